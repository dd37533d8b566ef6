/*
 * A run that was opened: its address, its requests, its stream and its log, in one object.  An
 * answer that comes late reaches this object alone, so it can never show under another run; and
 * `close` ends whatever is still under way.  No DOM here.
 */

import {LogLines} from "./log-lines.js";
import {ServerError, asServerError, newKey} from "./server.js";
import {SECOND_MS} from "./units.js";

/** @typedef {import("./types.js").Run} Run */
/** @typedef {"run" | "log" | "missing" | "loading"} Change */

const RETRY_S = [0.5, 1, 2, 4, 8, 15];
/** What comes within this time of the first byte was written before one looked. */
const BACKLOG_MS = 700;

export class OpenedRun {
  /**
   * @param {number} id
   * @param {import("./server.js").Server} server
   * @param {Run | null} run what is known of it already
   * @param {(change: Change) => void} changed
   */
  constructor(id, server, run, changed) {
    this.id = id;
    this.server = server;
    this.run = run;
    this.changed = changed;
    this.log = new LogLines();
    this.live = false;
    /** The stream broke, and is being resumed. */
    this.lost = false;
    this.done = false;
    /** @type {ServerError | null} why the run, or its log, can't be shown */
    this.problem = null;
    this.stopping = new AbortController();
    this.key = newKey(); // of starting it again
    this.decoder = new TextDecoder();
    this.received = 0; // bytes of the log
    this.liveSinceMs = 0;
    /** An older server has no `from`: then all is fetched again, and the known part skipped. */
    this.canSkip = true;
  }

  get closed() {
    return this.stopping.signal.aborted;
  }

  close() {
    this.stopping.abort();
  }

  /** @param {Change} change */
  tell(change) {
    if (!this.closed) this.changed(change);
  }

  /** Load the run and its log; returns when both are there whole, or can't be had. */
  async open() {
    try {
      await this.loadRun();
    } catch (problem) {
      if (this.closed) return;
      this.problem = asServerError(problem);
      return this.tell("missing");
    }
    await this.readLog();
  }

  async loadRun() {
    const answer = await this.server.getJson(`runs/${this.id}`, {signal: this.stopping.signal});
    this.put(answer.run);
  }

  /**
   * A newer state of the run, by an answer or an event.
   * @param {Run} run
   */
  put(run) {
    if (run.id !== this.id) return;
    if (this.run && this.run.status !== "running" && run.status === "running") return; // an older one
    this.run = run;
    this.tell("run");
  }

  // ---- the log

  async readLog() {
    this.live = this.run?.status === "running";
    this.tell("loading");
    for (let failures = 0; !this.closed; ) {
      const before = this.received;
      try {
        const whole = await this.readOnce();
        if (whole) return this.end(null);
        if (!this.live) continue; // the rest of it
      } catch (problem) {
        if (this.closed) return;
        const reason = asServerError(problem);
        if (isFinal(reason)) return this.end(reason);
      }
      failures = this.received > before ? 0 : failures + 1;
      this.lost = true;
      this.tell("log");
      await this.pause(RETRY_S[Math.min(failures, RETRY_S.length - 1)]);
    }
  }

  /**
   * Read on from where it was.
   * @returns {Promise<boolean>} whether that was all; a live stream ends where the run has ended,
   *   or the server has: the run tells which, and then the rest of the log is fetched
   */
  async readOnce() {
    const {live} = this;
    await this.readFrom(this.received, live);
    if (!live) return true;
    await this.loadRun();
    this.live = this.run?.status === "running";
    return false;
  }

  /**
   * @param {number} from bytes that are here already
   * @param {boolean} follow
   * @returns {Promise<void>}
   */
  async readFrom(from, follow) {
    const query = new URLSearchParams();
    if (follow) query.set("follow", "true");
    if (from && this.canSkip) query.set("from", String(from));
    const text = query.toString();
    const path = `runs/${this.id}/log${text ? `?${text}` : ""}`;
    const answer = await this.server
      .request(path, {timeoutMs: 0, signal: this.stopping.signal})
      .catch((problem) => this.withoutFrom(problem, from));
    if (!answer) return this.readFrom(from, follow);
    this.lost = false;
    this.liveSinceMs = Date.now() + (from ? 0 : BACKLOG_MS);
    this.tell("log");
    await this.readBody(answer, this.canSkip ? 0 : from);
  }

  /**
   * @param {unknown} problem
   * @param {number} from
   * @returns {null} where it is to be tried again without `from`
   */
  withoutFrom(problem, from) {
    const refused = problem instanceof ServerError && problem.status === 400;
    if (!refused || !from || !this.canSkip) throw problem;
    this.canSkip = false;
    return null;
  }

  /**
   * @param {Response} answer
   * @param {number} skip bytes at its beginning that are here already
   */
  async readBody(answer, skip) {
    const reader = answer.body?.getReader();
    let left = skip;
    for (;;) {
      const {done, value} = (await reader?.read().catch(broken)) ?? {done: true};
      if (this.closed || done || !value) return;
      const fresh = value.subarray(Math.min(left, value.length));
      left -= value.length - fresh.length;
      this.received += fresh.length;
      const arrived = this.live && Date.now() > this.liveSinceMs ? this.server.now() : null;
      this.log.append(this.decoder.decode(fresh, {stream: true}), arrived);
      this.tell("log");
    }
  }

  /** @param {ServerError | null} problem */
  end(problem) {
    this.log.append(this.decoder.decode());
    this.log.end();
    Object.assign(this, {problem, live: false, lost: false, done: true});
    this.tell("log");
  }

  /** @param {number} seconds */
  pause(seconds) {
    return new Promise((resolve) => {
      setTimeout(resolve, seconds * SECOND_MS);
      this.stopping.signal.addEventListener("abort", resolve, {once: true});
    });
  }
}

/** @returns {never} */
function broken() {
  throw new ServerError(0); // cut off in the middle
}

/**
 * A refusal stays one however often one asks; an answer that did not come, or a proxy's, may come
 * the next time.
 * @param {ServerError} problem
 */
function isFinal({status}) {
  return status >= 400 && status < 500 && status !== 408 && status !== 429;
}
