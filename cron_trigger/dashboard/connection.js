/*
 * The page's touch with the server, from the first load until the tab is closed.
 *
 * Loading the state and hearing of changes are two things with two faults: without the event
 * stream the page works and refreshes by itself; without an answer to /crons it is offline.  What
 * an event has told is not fetched again.
 */

import {Events} from "./events.js";
import {ServerError, asServerError} from "./server.js";
import {MINUTE_MS, SECOND_MS} from "./units.js";
import {t} from "./words.js";

/** @typedef {import("./types.js").Run} Run */

const POLL_MS = 30 * SECOND_MS; // without events
const FRESHEN_MS = 10 * MINUTE_MS; // with them: a lock that a crontab's line holds sends none
const HEALTH_MS = MINUTE_MS;
const RETRY_S = [1, 2, 4, 8, 15, 30];
const WAIT_S = 25;
const CATCH_UP_RUNS = 50;
const ONE_BY_ONE = 10;

/**
 * @typedef {object} Page what the connection shows and asks
 * @property {() => Promise<void>} loadHistory
 * @property {() => void} showFailure
 * @property {(next: string) => void} showOffline
 * @property {(problem: ServerError) => boolean} asksForSecret
 * @property {(text: string) => void} announce
 */

export class Connection {
  /**
   * @param {import("./server.js").Server} server
   * @param {import("./state.js").State} state
   * @param {Promise<any> | null} firstCrons what was asked for before this was made
   * @param {Page} page
   */
  constructor(server, state, firstCrons, page) {
    this.server = server;
    this.state = state;
    this.page = page;
    this.firstCrons = firstCrons;
    this.hearing = false; // the event stream is open
    this.missing = false; // it could not be had
    this.resting = false; // it was given up: nobody sees this page
    this.due = false; // a load is, by what was told meanwhile
    this.opened = 0; // how often it was
    this.failures = 0;
    /** @type {((why: string) => void) | null} ends the pause that the loop is in */
    this.wakeUp = null;
    /** @type {Set<number>} runs that are waited for, without events */
    this.watched = new Set();
    this.fetching = Promise.resolve();
    this.events = new Events({
      opened: (hadFailed) => this.streamOpened(hadFailed),
      lost: (status) => this.streamLost(status),
      event: (event) => this.state.take(event),
    });
    this.listen();
  }

  listen() {
    this.state.on("registry", () => this.wake("load"));
    document.addEventListener("visibilitychange", () => this.visibilityChanged());
    window.addEventListener("online", () => this.wake("load"));
    window.addEventListener("pagehide", () => this.events.stop());
    window.addEventListener("pageshow", (event) => {
      if (!event.persisted) return;
      this.startEvents();
      this.wake("load");
    });
  }

  /** Never returns. */
  async run() {
    for (;;) {
      try {
        await this.load();
        if (this.failures) this.page.announce(t("back"));
        this.failures = 0;
        this.state.setConnection(this.heard());
        if (this.opened === 0) this.startEvents();
        await this.untilLoadIsDue();
      } catch (problem) {
        await this.failed(asServerError(problem));
      }
    }
  }

  /** Until the stream has opened, or could not, nothing is known of it. */
  heard() {
    if (this.hearing) return "live";
    return this.missing ? "polling" : "connecting";
  }

  /** Fetch everything anew.  Throws the ServerError. */
  async load() {
    this.due = false;
    this.state.beginLoad();
    const crons = this.firstCrons ?? this.server.getJson("crons");
    this.firstCrons = null;
    // Each request with a secret that may be wrong counts as a guess.
    if (this.server.secret && !this.server.accepted) await crons;
    const history = this.page.loadHistory();
    history.catch(() => {}); // awaited below; the crons need not wait for it
    const rest = Promise.all([this.server.getJson("scheduled"), this.server.getJson("health")]);
    rest.catch(() => {});
    this.state.load(await crons);
    this.state.loadRest(...(await rest));
    await history;
  }

  async untilLoadIsDue() {
    while (!this.due) {
      const live = this.state.connection === "live";
      const why = await this.pause(live ? HEALTH_MS : POLL_MS);
      if (why === "load") return;
      // The stream is gone; whether the server is, its health tells, or that there is no answer.
      if (why === "lost" || (live && !document.hidden)) await this.loadHealth();
      if (why !== "time" || document.hidden) continue;
      if (!live || Date.now() - this.state.loadedAtMs > FRESHEN_MS) return;
    }
  }

  /** Small, and what no event tells: problems that the server survives. */
  async loadHealth() {
    this.state.takeHealth(await this.server.getJson("health"));
  }

  /** @param {ServerError} problem */
  async failed(problem) {
    if (this.page.asksForSecret(problem)) {
      this.events.stop();
      this.opened = 0;
      await this.pause(Infinity);
      return;
    }
    if (this.failures === 0 && this.state.crons) this.page.announce(t("offline"));
    this.state.failure = problem;
    this.state.setConnection("offline");
    this.page.showFailure();
    await this.countDown(RETRY_S[Math.min(this.failures, RETRY_S.length - 1)]);
    this.failures += 1;
    this.events.retry();
  }

  /**
   * Some chance is added, so that many pages do not come back at one moment.
   * @param {number} seconds
   */
  async countDown(seconds) {
    const end = Date.now() + seconds * SECOND_MS * (1 + Math.random() / 4);
    for (let why = "time"; why === "time" && Date.now() < end; ) {
      this.page.showOffline(t("offline_next", {seconds: Math.ceil((end - Date.now()) / SECOND_MS)}));
      why = await this.pause(Math.min(SECOND_MS, end - Date.now()));
      if (why === "lost") why = "time";
    }
    this.page.showOffline(t("offline_now"));
  }

  // ---- the event stream

  startEvents() {
    this.opened = Math.max(1, this.opened);
    this.events.start(this.server.secret);
  }

  /** @param {boolean} hadFailed */
  streamOpened(hadFailed) {
    this.hearing = true;
    this.missing = false;
    this.opened += 1;
    if (this.state.connection === "offline" || hadFailed) return this.wake("load");
    this.state.setConnection("live");
    this.catchUp().catch(() => this.wake("load"));
    this.wake("live");
  }

  /** @param {number} status */
  streamLost(status) {
    const heard = this.hearing;
    this.hearing = false;
    this.missing = true;
    if (this.state.connection !== "offline") this.state.setConnection("polling");
    if (status === 401) return this.wake("load"); // which then asks for the secret
    if (heard) this.wake("lost");
  }

  /**
   * What changed between the answer of /crons and the opening of the stream, or while it was cut
   * before any event had come whose id says where to go on.
   */
  async catchUp() {
    const {runs} = await this.server.getJson(`runs?limit=${CATCH_UP_RUNS}`);
    const missed = runs.filter((/** @type {Run} */ run) => !this.state.knows(run));
    const stale = this.state.staleAgainst(runs);
    if (stale.size > ONE_BY_ONE) return this.wake("load");
    for (const name of stale) await this.loadCron(name);
    for (const asked of missed) {
      const last = this.state.cron(asked.cronName)?.lastRun;
      const run = last?.id === asked.id ? last : asked; // it may have ended meanwhile
      this.state.tell("run", run);
      if (run.status !== "running") this.state.tell("ended", run);
    }
  }

  // ---- single things

  /**
   * One cron's entry; one after the other, so that they do not take all connections.
   * @param {string} name
   */
  loadCron(name) {
    this.fetching = this.fetching.then(() => this.fetchCron(name)).catch(() => {});
    return this.fetching;
  }

  /** @param {string} name */
  async fetchCron(name) {
    const since = this.state.follow();
    try {
      const {cron} = await this.server.getJson(`crons/${encodeURIComponent(name)}`);
      this.state.put(cron, since);
    } finally {
      this.state.forget(since);
    }
  }

  /**
   * Something was done here.  Without events nobody tells how it ends, so it is asked.
   * @param {number | null} runId null for a plan
   */
  acted(runId) {
    if (this.hearing) return;
    if (runId === null) return this.wake("load");
    this.watch(runId);
  }

  /** @param {number} runId */
  async watch(runId) {
    if (this.watched.has(runId)) return;
    this.watched.add(runId);
    for (let tries = 0; !this.hearing && tries < 200; tries += 1) {
      const run = await this.endOf(runId, tries);
      if (!run) continue;
      this.state.putRun(run);
      if (tries === 0 || run.status !== "running") await this.loadCron(run.cronName);
      if (run.status === "running") continue;
      this.state.tell("ended", run); // also one that no answer ever showed as running
      break;
    }
    this.watched.delete(runId);
  }

  /**
   * The run once it has ended, or as it is when waiting took too long.  The first look does not
   * wait: the card is to show at once that it runs.
   * @param {number} runId
   * @param {number} tries
   * @returns {Promise<Run | null>}
   */
  async endOf(runId, tries) {
    const wait = tries ? `?wait=${WAIT_S}` : "";
    try {
      const options = {timeoutMs: (WAIT_S + 10) * SECOND_MS};
      return (await this.server.getJson(`runs/${runId}${wait}`, options)).run;
    } catch (problem) {
      const {status} = asServerError(problem);
      await pauseFor(Math.min(8, 0.5 * 2 ** tries) * SECOND_MS);
      if (status === 404) return null;
      if (status !== 400) return null;
      return (await this.server.getJson(`runs/${runId}`).catch(() => ({run: null}))).run; // no `wait`
    }
  }

  // ---- pauses

  /** A stream of one's own takes a connection that other pages need.  While something runs it
      stays, so that the tab's title can tell the end. */
  restIfAlone() {
    if (!this.events.isOwn || this.state.running().length) return;
    this.events.stop();
    this.resting = true;
    this.hearing = false;
  }

  visibilityChanged() {
    if (document.hidden) return this.restIfAlone();
    if (this.resting) {
      this.resting = false;
      this.startEvents();
      return this.wake("load");
    }
    if (!this.hearing) this.events.retry();
    const stale = Date.now() - this.state.loadedAtMs > FRESHEN_MS;
    if (this.state.connection !== "live" || stale) this.wake("load");
  }

  /**
   * @param {number} ms
   * @returns {Promise<string>} why it ended: "time", or what it was woken with
   */
  pause(ms) {
    return new Promise((resolve) => {
      const timer = ms === Infinity ? 0 : setTimeout(() => resolve("time"), ms);
      this.wakeUp = (why) => {
        clearTimeout(timer);
        resolve(why);
      };
    });
  }

  /** @param {string} why */
  wake(why) {
    if (why === "load") this.due = true;
    this.wakeUp?.(why);
  }
}

/** @param {number} ms */
function pauseFor(ms) {
  return new Promise((resolve) => {
    setTimeout(resolve, ms);
  });
}
