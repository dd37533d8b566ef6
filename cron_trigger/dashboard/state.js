/*
 * What the server last said, and how an event changes it.  No DOM and no requests here.
 *
 * An event's data is whole (a run, a plan, a cron with its figures), so taking one twice, or
 * again over an answer that is newer, ends in the same state: that is what lets `load` apply the
 * events that came while its answer was under way.
 */

import {parseDuration} from "./times.js";

/** @typedef {import("./types.js").Cron} Cron */
/** @typedef {import("./types.js").Run} Run */
/** @typedef {import("./types.js").RecentRun} RecentRun */
/** @typedef {import("./types.js").ExternalRun} ExternalRun */
/** @typedef {import("./types.js").Plan} Plan */
/** @typedef {import("./types.js").ServerEvent} ServerEvent */
/** @typedef {"connecting" | "live" | "polling" | "offline"} Connection */

/**
 * What listeners are told: all was loaded anew, one cron changed, a run did, a run started or
 * ended just now, a cron became late, the plans, the connection or the problems did, the
 * registry was read again.
 * @typedef {object} Told
 * @property {null} all
 * @property {Cron} cron
 * @property {Run} run
 * @property {Run} started
 * @property {Run} ended
 * @property {Cron} late
 * @property {null} plans
 * @property {null} connection
 * @property {null} problems
 * @property {null} registry
 */

export const RUN_STATUSES = ["running", "completed", "failed", "cancelled", "timed_out", "interrupted"];
export const BAD_STATUSES = ["failed", "timed_out", "interrupted"];
const PLOT_RUNS = 30;

export class State {
  constructor() {
    /** @type {Map<string, Cron> | null} null until the first answer */
    this.crons = null;
    this.host = "";
    /** @type {Plan[]} */
    this.plans = [];
    /** @type {string[]} what `/health` calls problems */
    this.problems = [];
    /** @type {import("./server.js").ServerError | null} of the last load */
    this.failure = null;
    this.loadedAtMs = 0;
    /** @type {Connection} */
    this.connection = "connecting";
    /** @type {Set<ServerEvent[]>} those that came since each request under way began */
    this.followed = new Set();
    /** @type {ServerEvent[]} those since a load began */
    this.meanwhile = [];
    /** @type {Map<string, Set<(value: any) => void>>} */
    this.listeners = new Map();
  }

  /**
   * @template {keyof Told} Kind
   * @param {Kind} kind
   * @param {(value: Told[Kind]) => void} listener
   */
  on(kind, listener) {
    const known = this.listeners.get(kind) ?? new Set();
    this.listeners.set(kind, known.add(listener));
  }

  /**
   * @template {keyof Told} Kind
   * @param {Kind} kind
   * @param {Told[Kind]} value
   */
  tell(kind, value) {
    for (const listener of this.listeners.get(kind) ?? []) listener(value);
  }

  /** @returns {Cron[]} */
  list() {
    return [...(this.crons?.values() ?? [])];
  }

  /**
   * @param {string} name
   * @returns {Cron | undefined}
   */
  cron(name) {
    return this.crons?.get(name);
  }

  /** @param {string} name */
  titleOf(name) {
    return this.cron(name)?.description ?? name;
  }

  running() {
    return this.list().filter((cron) => cron.running);
  }

  // ---- answers, which may be older than what came while they were under way

  /** @returns {ServerEvent[]} all that come until it is forgotten */
  follow() {
    /** @type {ServerEvent[]} */
    const events = [];
    this.followed.add(events);
    return events;
  }

  /** @param {ServerEvent[]} events */
  forget(events) {
    this.followed.delete(events);
  }

  beginLoad() {
    this.forget(this.meanwhile);
    this.meanwhile = this.follow();
  }

  /** @param {{crons: Cron[], host?: string}} crons the answer of /crons */
  load(crons) {
    const before = this.crons;
    this.crons = new Map(crons.crons.map((cron) => [cron.cronName, cron]));
    this.host = crons.host ?? "";
    this.failure = null;
    this.loadedAtMs = Date.now();
    for (const event of this.meanwhile) this.apply(event);
    this.tell("all", null);
    for (const cron of before?.values() ?? []) this.tellChangeOf(cron);
  }

  /**
   * @param {{scheduled: Plan[]}} scheduled
   * @param {{problems?: string[]}} health
   */
  loadRest(scheduled, health) {
    this.plans = scheduled.scheduled;
    for (const {data} of this.meanwhile) if (data.scheduled) this.putPlan(data.scheduled);
    this.forget(this.meanwhile);
    this.tell("plans", null);
    this.takeHealth(health);
  }

  /** @param {{problems?: string[]}} health */
  takeHealth({problems = []}) {
    this.problems = problems;
    this.tell("problems", null);
  }

  /**
   * Without events, or after a gap in them: what was running and is not any more has ended.
   * @param {Cron} before
   */
  tellChangeOf(before) {
    const cron = this.cron(before.cronName);
    const last = cron?.lastRun;
    if (before.running?.id && last?.id === before.running.id) this.tell("ended", last);
    if (cron?.late && !before.late) this.tell("late", cron);
  }

  /**
   * One cron's entry, fetched by itself.
   * @param {Cron} cron
   * @param {ServerEvent[]} since those that came while it was under way
   */
  put(cron, since) {
    const before = this.crons?.get(cron.cronName);
    if (!before || !this.crons) return;
    this.crons.set(cron.cronName, cron);
    for (const event of since) if (cronOf(event) === cron.cronName) this.apply(event);
    this.tell("cron", this.cron(cron.cronName) ?? cron);
    this.tellChangeOf(before);
  }

  /** @param {Connection} connection */
  setConnection(connection) {
    this.connection = connection;
    this.tell("connection", null);
  }

  // ---- events

  /** @param {ServerEvent} event */
  take(event) {
    for (const events of this.followed) events.push(event);
    const {run, scheduled} = event.data;
    const name = cronOf(event);
    const wasLate = this.cron(name)?.late;
    this.apply(event);
    const entry = this.cron(name);
    if (entry) this.tell("cron", entry);
    if (run) this.tell("run", run);
    if (event.name === "run.started" && entry?.running?.id === run.id) this.tell("started", run);
    if (event.name === "run.finished") this.tell("ended", run);
    if (entry?.late && !wasLate) this.tell("late", entry);
    if (scheduled) this.tell("plans", null);
    if (event.name === "registry.reloaded") this.tell("registry", null);
  }

  /** @param {ServerEvent} event */
  apply({name, data}) {
    if (name === "run.started") this.runStarted(data.run);
    if (name === "run.finished") this.runFinished(data.run, data.cron);
    if (data.scheduled) this.putPlan(data.scheduled);
    const late = name === "cron.late" && this.cron(data.cron.cronName);
    if (late) late.late = true;
  }

  /** @param {Run} run */
  runStarted(run) {
    const cron = this.cron(run.cronName);
    if (cron && !knowsEnd(cron, run)) cron.running = run;
  }

  /**
   * @param {Run} run
   * @param {Cron | null | undefined} entry the cron's figures after this end; an older server has
   *   none, and they are carried on here
   */
  runFinished(run, entry) {
    const cron = this.cron(run.cronName);
    if (!cron) return;
    if (entry?.cronName === run.cronName) this.crons?.set(run.cronName, entry);
    else countEnd(cron, run);
  }

  /** @param {Plan} plan */
  putPlan(plan) {
    this.plans = [plan, ...this.plans.filter((other) => other.id !== plan.id)];
  }

  /**
   * A run as an answer had it: a cancel's, or the end that was waited for.
   * @param {Run} run
   */
  putRun(run) {
    const cron = this.cron(run.cronName);
    if (cron?.running?.id === run.id && run.status === "running") cron.running = run;
    if (cron) this.tell("cron", cron);
    this.tell("run", run);
  }

  /**
   * Whether its cron's entry has this run as it is; that of an unknown cron is no news.
   * @param {Run} run
   */
  knows(run) {
    const cron = this.cron(run.cronName);
    if (!cron) return true;
    return run.status === "running" ? cron.running?.id === run.id : knowsEnd(cron, run);
  }

  /**
   * The names of the crons whose entries do not know of these runs: what was missed.
   * @param {Run[]} runs the newest ones of all crons
   * @returns {Set<string>}
   */
  staleAgainst(runs) {
    const stale = new Set(runs.filter((run) => !this.knows(run)).map((run) => run.cronName));
    const going = new Set(runs.filter((run) => run.status === "running").map((run) => run.id));
    const oldest = runs.at(-1)?.id ?? Infinity;
    for (const {cronName, running} of this.running())
      if (running?.id && running.id >= oldest && !going.has(running.id)) stale.add(cronName);
    return stale;
  }
}

/** @param {ServerEvent} event */
function cronOf({data}) {
  return data.run?.cronName ?? data.cron?.cronName;
}

/**
 * Whether this run's end is in the cron's figures already.
 * @param {Cron} cron
 * @param {Run} run
 */
function knowsEnd(cron, run) {
  return cron.recentRuns.some((recent) => recent.id === run.id) || (cron.lastRun?.id ?? 0) >= run.id;
}

/**
 * The figures of GET /crons, carried on by one run.
 * @param {Cron} cron
 * @param {Run} run
 */
function countEnd(cron, run) {
  if (cron.running?.id === run.id) cron.running = null;
  if (knowsEnd(cron, run)) return;
  const good = (cron.successRate ?? 0) * cron.runs + (run.status === "completed" ? 1 : 0);
  cron.runs += 1;
  cron.successRate = good / cron.runs;
  cron.lastRun = run;
  cron.recentRuns = [...cron.recentRuns, run].slice(-PLOT_RUNS);
  cron.medianDurationMs = quantile(durationsOf(cron.recentRuns), 0.5);
}

/**
 * @param {RecentRun[]} runs
 * @returns {number[]}
 */
export function durationsOf(runs) {
  return runs.flatMap((run) => (run.durationMs === null ? [] : [run.durationMs]));
}

/**
 * The value below which this share lies, between two where it falls between; null of none.
 * @param {number[]} values
 * @param {number} share
 * @returns {number | null}
 */
export function quantile(values, share) {
  if (!values.length) return null;
  const sorted = [...values].sort((a, b) => a - b);
  const place = (sorted.length - 1) * share;
  const low = Math.floor(place);
  const high = Math.min(low + 1, sorted.length - 1);
  return sorted[low] + (sorted[high] - sorted[low]) * (place - low);
}

/**
 * The history says what is usual once there are a few runs.
 * @param {Cron} cron
 */
export function knowsUsual(cron) {
  return cron.runs >= 5 && cron.medianDurationMs !== null;
}

/**
 * @param {Cron} cron
 * @returns {number | null}
 */
export function usualMs(cron) {
  return knowsUsual(cron) ? cron.medianDurationMs : parseDuration(cron.estimatedDuration);
}
