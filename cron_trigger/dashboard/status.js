/*
 * A run's state as a shape and words, and who asked for it and how it ended.
 */

import {el, svg} from "./dom.js";
import {serverWords} from "./errors.js";
import {duration, elapsed, exactDuration, fullTime, relativeTime, shortTime} from "./times.js";
import {t} from "./words.js";

/** @typedef {import("./types.js").Run} Run */

const CIRCLE = "M8 1.75a6.25 6.25 0 1 1 0 12.5a6.25 6.25 0 1 1 0-12.5";
const CLOCK = `${CIRCLE}M8 4.6V8l2.4 1.6`;
const TRIANGLE = "M8 1.75L14.6 13.5H1.4zM8 6v3.6M8 11.6v.1";

/** @type {Record<string, string>} */
const SHAPES = {
  running: "M8 1.75a6.25 6.25 0 1 1-6.25 6.25",
  completed: `${CIRCLE}M5.2 8.2l2 2l3.6-4`,
  failed: `${CIRCLE}M5.8 5.8l4.4 4.4M10.2 5.8l-4.4 4.4`,
  cancelled: `${CIRCLE}M3.9 12.1l8.2-8.2`,
  timed_out: CLOCK,
  interrupted: TRIANGLE,
  pending: CLOCK,
  fired: `${CIRCLE}M6.7 5.4v5.2L10.8 8z`,
  missed: TRIANGLE,
  skipped: `${CIRCLE}M5 8h6`,
};

/**
 * A shape and words, never a colour alone.
 * @param {string} status
 * @param {string | Node} [words] others than the status' own
 */
export function statusElement(status, words = t(`status_${status}`)) {
  const shape = svg("path", {
    d: SHAPES[status] ?? CIRCLE,
    class: status === "running" && "turn",
  });
  const picture = svg("svg", {viewBox: "0 0 16 16", "aria-hidden": "true"}, shape);
  return el("span", {class: `status ${status}`}, picture, words);
}

/**
 * The state of a run, with the word for one that is being cancelled.
 * @param {Pick<Run, "status" | "stopping">} run
 */
export function runStatusElement(run) {
  return statusElement(run.status, run.stopping ? t("stopping") : undefined);
}

/**
 * exit 2 · tué par SIGKILL · the reason why it did not start; nothing for a success.
 * @param {Run} run
 */
export function outcome(run) {
  if (run.error) return serverWords(run.error);
  if (run.signal) return t("killed", {signal: run.signal});
  if (run.exitCode !== null && run.exitCode !== 0) return t("exit", {code: String(run.exitCode)});
  return "";
}

/** @param {Run} run */
export function askedBy(run) {
  return run.requestedBy || run.client || t(`by_${run.trigger}`);
}

/** @param {Run} run */
export function askedHow(run) {
  const how = t(`by_${run.trigger}`);
  return run.requestedBy && run.client ? `${how} · ${run.client}` : how;
}

/**
 * Elements that tell a time which goes on, and one tick that keeps them true.  An element that
 * has left the page is forgotten.
 */
export class LiveTimes {
  /** @param {() => number} now */
  constructor(now) {
    this.now = now;
    /** @type {Map<HTMLElement, {atMs: number, kind: "elapsed" | "relative"}>} */
    this.shown = new Map();
    this.ticks = 0;
  }

  /**
   * @param {Pick<Run, "status" | "startedAt" | "durationMs">} run
   * @returns {HTMLElement}
   */
  duration(run) {
    if (run.status === "running") return this.elapsed(run.startedAt);
    return el("span", {title: exactDuration(run.durationMs)}, duration(run.durationMs));
  }

  /** @param {string} since */
  elapsed(since) {
    const atMs = Date.parse(since);
    const element = el("span", {}, elapsed(this.now() - atMs));
    this.shown.set(element, {atMs, kind: "elapsed"});
    return element;
  }

  /** @param {string} iso */
  relative(iso) {
    const date = new Date(iso);
    const words = relativeTime(date.getTime(), this.now());
    const element = el("time", {datetime: iso, title: fullTime(date)}, words);
    this.shown.set(element, {atMs: date.getTime(), kind: "relative"});
    return element;
  }

  /** @param {string} iso */
  short(iso) {
    const date = new Date(iso);
    return el("time", {datetime: iso, title: fullTime(date)}, shortTime(date, this.now()));
  }

  /** Called once a second: elapsed times each time, the relative ones each half minute. */
  tick() {
    const relative = this.ticks % 30 === 0;
    this.ticks += 1;
    for (const [element, {atMs, kind}] of this.shown) {
      if (!element.isConnected) this.shown.delete(element);
      else if (kind === "elapsed") element.textContent = elapsed(this.now() - atMs);
      else if (relative) element.textContent = relativeTime(atMs, this.now());
    }
  }
}
