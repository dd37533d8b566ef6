/*
 * Requests to the server.  Addresses are relative, so that the page works under a proxy's path;
 * the secret goes in a header, never in an address.  A `Server` is made once, in main.js.
 */

import {SECOND_MS} from "./units.js";

const REQUEST_TIMEOUT_MS = 15 * SECOND_MS;

/** The server answered, but not what was hoped for; status 0: it did not answer. */
export class ServerError extends Error {
  /**
   * @param {number} status
   * @param {Record<string, any>} [answer]
   * @param {number} [retryAfterS]
   */
  constructor(status, answer = {}, retryAfterS = 0) {
    super(typeof answer.error === "string" ? answer.error : "");
    this.status = status;
    this.code = typeof answer.code === "string" ? answer.code : "";
    this.answer = answer;
    this.retryAfterS = retryAfterS;
  }

  /** @returns {boolean} whether a missing or wrong secret is the reason */
  get wantsSecret() {
    return this.status === 401 || this.code === "too_many_attempts";
  }

  /** @returns {boolean} false where it may have been carried out: a proxy's 502 comes after it, too */
  get isDefinite() {
    return this.status > 0 && this.status < 500;
  }
}

/**
 * Whatever was thrown, as a ServerError; a fault of this page is reported as such.
 * @param {unknown} problem
 * @returns {ServerError}
 */
export function asServerError(problem) {
  if (problem instanceof ServerError) return problem;
  if (!(problem instanceof DOMException)) console.error(problem);
  return new ServerError(0);
}

/**
 * @typedef {object} Options
 * @property {string} [method]
 * @property {string} [body]
 * @property {Record<string, string>} [headers]
 * @property {number} [timeoutMs] 0: none
 * @property {AbortSignal} [signal]
 */

export class Server {
  /** @param {string} secret */
  constructor(secret) {
    this.secret = secret;
    /** The server's clock against this one's. */
    this.aheadMs = 0;
    /** Whether the secret was found right: then a 429 is no reason to ask for it. */
    this.accepted = false;
  }

  /** Elapsed times are counted on the server's clock. */
  now() {
    return Date.now() + this.aheadMs;
  }

  /**
   * Throws a ServerError, or what `signal` was aborted with.
   * @param {string} path
   * @param {Options} [options]
   * @returns {Promise<Response>}
   */
  async request(path, {timeoutMs = REQUEST_TIMEOUT_MS, signal, headers, ...options} = {}) {
    const stop = new AbortController();
    // Not cleared once the head is there: the body must arrive in that time, too.
    if (timeoutMs) setTimeout(() => stop.abort(), timeoutMs);
    const abort = () => stop.abort();
    signal?.addEventListener("abort", abort, {once: true});
    const sent = this.secret;
    if (signal?.aborted) abort();
    try {
      const response = await fetch(path, {
        cache: "no-store",
        ...options,
        signal: stop.signal,
        headers: {...secretHeader(sent), ...headers},
      });
      // Another secret was entered while this was under way: the refusal says nothing of that.
      if ([401, 429].includes(response.status) && sent !== this.secret)
        return await this.request(path, {timeoutMs, signal, headers, ...options});
      this.learnClock(response);
      if (path !== "health") this.accepted = response.ok || (this.accepted && response.status !== 401);
      if (response.ok) return response;
      throw await refusal(response);
    } catch (problem) {
      if (signal?.aborted || problem instanceof ServerError) throw problem;
      throw new ServerError(0);
    }
  }

  /**
   * @param {string} path
   * @param {Options} [options]
   * @returns {Promise<any>}
   */
  async getJson(path, options) {
    const response = await this.request(path, options);
    try {
      return await response.json();
    } catch (problem) {
      if (options?.signal?.aborted) throw problem;
      throw new ServerError(0); // cut off in the middle
    }
  }

  /**
   * @param {string} method
   * @param {string} path
   * @param {object} [body]
   * @param {Record<string, string>} [headers]
   * @returns {Promise<any>}
   */
  sendJson(method, path, body = {}, headers = {}) {
    return this.getJson(path, {
      method,
      body: JSON.stringify(body),
      headers: {"Content-Type": "application/json", ...headers},
    });
  }

  /**
   * Under 2 s the Date header, which has whole seconds, says nothing.
   * @param {Response} response
   */
  learnClock(response) {
    const ahead = Date.parse(response.headers.get("Date") ?? "") - Date.now();
    if (Number.isFinite(ahead)) this.aheadMs = Math.abs(ahead) > 2 * SECOND_MS ? ahead : 0;
  }
}

/**
 * @param {string} secret
 * @returns {Record<string, string>}
 */
export function secretHeader(secret) {
  return secret ? {"X-Trigger-Secret": byteString(secret)} : {};
}

/**
 * A header's value is bytes, one a character: those of the text in UTF-8.
 * @param {string} text
 */
function byteString(text) {
  return String.fromCharCode(...new TextEncoder().encode(text));
}

/**
 * @param {Response} response
 * @returns {Promise<ServerError>}
 */
export async function refusal(response) {
  const answer = await response.json().catch(() => ({error: response.statusText}));
  const object = typeof answer === "object" && answer !== null ? answer : {};
  return new ServerError(response.status, object, Number(response.headers.get("Retry-After")) || 0);
}

/**
 * A key for `Idempotency-Key`: visible ASCII, up to 64 (`randomUUID` needs a secure context).
 */
export function newKey() {
  const parts = crypto.getRandomValues(new Uint32Array(4));
  return Array.from(parts, (part) => part.toString(36)).join("-");
}
