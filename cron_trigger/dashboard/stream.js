/*
 * The event stream: read, kept open, opened again.  Runs in the SharedWorker (worker.js), or in
 * the page where there is none.  No DOM here.
 */

import {ServerError, refusal, secretHeader} from "./server.js";
import {SECOND_MS} from "./units.js";

/** @typedef {import("./types.js").ServerEvent} ServerEvent */

const QUIET_MS = 45 * SECOND_MS; // the server says something every 15 s; three missed is lost
const FIRST_WORD_MS = 5 * SECOND_MS; // a proxy that holds the stream back counts as none
const RETRY_S = [1, 2, 4, 8, 15, 30];

/** Server-Sent Events out of pieces of text, as the HTML standard has them (9.2.6). */
export class EventReader {
  constructor() {
    this.rest = "";
    this.id = "";
  }

  /**
   * @param {string} text
   * @returns {ServerEvent[]}
   */
  read(text) {
    const blocks = (this.rest + text).replaceAll("\r\n", "\n").split("\n\n");
    this.rest = blocks.pop() ?? "";
    return blocks.flatMap((block) => this.event(block) ?? []);
  }

  /**
   * `id:`, `event:` and `data:` lines; a comment has none of them.
   * @param {string} block
   * @returns {ServerEvent | null}
   */
  event(block) {
    let name = "";
    /** @type {string[]} */
    const data = [];
    for (const line of block.split("\n")) {
      const [, field, value] = line.match(/^(\w+): ?(.*)$/) ?? [];
      if (field === "id") this.id = value;
      if (field === "event") name = value;
      if (field === "data") data.push(value);
    }
    return data.length ? {id: this.id, name, data: JSON.parse(data.join("\n"))} : null;
  }
}

/**
 * @typedef {object} StreamListener
 * @property {(hadFailed: boolean) => void} opened `hadFailed`: the server was away meanwhile, so
 *   what no event tells (a registry changed while it was down) may have changed
 * @property {(status: number) => void} lost the answer's status, 0 where there was none
 * @property {(event: ServerEvent) => void} event
 */

/** One stream, kept open until `stop`. */
export class EventStream {
  /**
   * @param {string} address of /events
   * @param {string} secret
   * @param {StreamListener} listener
   */
  constructor(address, secret, listener) {
    this.address = address;
    this.secret = secret;
    this.listener = listener;
    this.reader = new EventReader();
    this.failures = 0;
    this.stopping = new AbortController();
    /** @type {(() => void) | null} ends the pause before the next try */
    this.wakeUp = null;
  }

  /** Returns once it was stopped, or the secret was refused. */
  async run() {
    while (!this.stopping.signal.aborted) {
      const status = await this.readOnce().catch(statusOf);
      if (this.stopping.signal.aborted) return;
      this.listener.lost(status);
      if (status === 401) return; // each try would count as a guess
      await this.pause(RETRY_S[Math.min(this.failures, RETRY_S.length - 1)]);
      this.failures += 1;
    }
  }

  stop() {
    this.stopping.abort();
    this.retry();
  }

  /** Try at once instead of later. */
  retry() {
    this.wakeUp?.();
  }

  /**
   * @param {number} seconds some chance is added, so that many pages do not come at one moment
   */
  async pause(seconds) {
    await new Promise((resolve) => {
      const timer = setTimeout(resolve, seconds * SECOND_MS * (1 + Math.random() / 4));
      this.wakeUp = () => {
        clearTimeout(timer);
        resolve(null);
      };
    });
    this.wakeUp = null;
  }

  /**
   * Open it and read to its end.
   * @returns {Promise<number>} 0
   */
  async readOnce() {
    const cut = new AbortController();
    const stop = () => cut.abort();
    this.stopping.signal.addEventListener("abort", stop, {once: true});
    let quiet = setTimeout(stop, FIRST_WORD_MS);
    try {
      const body = await this.open(cut.signal);
      const decoder = new TextDecoder();
      for (let first = true; ; first = false) {
        const {done, value} = await body.read();
        clearTimeout(quiet);
        if (done) return 0;
        if (first) this.opened();
        quiet = setTimeout(stop, QUIET_MS);
        this.reader.read(decoder.decode(value, {stream: true})).forEach(this.listener.event);
      }
    } finally {
      clearTimeout(quiet);
      this.stopping.signal.removeEventListener("abort", stop);
    }
  }

  opened() {
    const hadFailed = this.failures > 1;
    this.failures = 0;
    this.listener.opened(hadFailed);
  }

  /** @param {AbortSignal} signal */
  async open(signal) {
    const missed = this.reader.id;
    this.reader.rest = "";
    const answer = await fetch(this.address, {
      cache: "no-store",
      signal,
      headers: {
        Accept: "text/event-stream",
        ...secretHeader(this.secret),
        ...(missed ? {"Last-Event-ID": missed} : {}),
      },
    });
    if (!answer.ok) throw await refusal(answer);
    const kind = answer.headers.get("Content-Type") ?? "";
    if (!answer.body || !kind.startsWith("text/event-stream")) throw new ServerError(501);
    return answer.body.getReader();
  }
}

/** @param {unknown} problem */
function statusOf(problem) {
  return problem instanceof ServerError ? problem.status : 0;
}
