/*
 * Two plots: a card's last 30 runs, and the durations of a cron's history over time.  Height is
 * duration; colour and shape are the status.
 */

import {svg} from "./dom.js";
import {durationsOf, quantile} from "./state.js";
import {duration, shortTime} from "./times.js";
import {t} from "./words.js";

/** @typedef {import("./types.js").RecentRun} RecentRun */
/** @typedef {{x: number, y: number, width: number, height: number}} Box */

const RUNS = 30;
const BAR = 8;
const HEIGHT = 34;

/** @param {Box} box */
const rect = ({x, y, width, height}) => `M${x} ${y.toFixed(1)}h${width}v${height.toFixed(1)}h${-width}z`;

/**
 * What a bar says when one points at it.
 * @param {RecentRun} run
 * @param {number} nowMs
 */
function runWords(run, nowMs) {
  const when = shortTime(new Date(run.startedAt), nowMs);
  return `${t(`status_${run.status}`)} · ${when} · ${duration(run.durationMs)}`;
}

/**
 * The shape of a bar by status: failed ones are cut through near the foot, timed-out ones stand
 * narrow under a lid, cancelled and interrupted ones are outlines.
 * @param {RecentRun["status"]} status
 * @param {Box} box
 */
function barShape(status, {x, y, width, height}) {
  if (status === "failed") {
    const gap = Math.min(2.5, height / 3);
    const foot = Math.min(5, height / 2);
    const top = {x, y, width, height: Math.max(0, height - foot - gap)};
    return rect(top) + rect({x, y: y + height - foot, width, height: foot});
  }
  if (status === "timed_out")
    return rect({x, y, width, height: 2.5}) + rect({x: x + width / 3, y, width: width / 3, height});
  if (status === "completed") return rect({x, y, width, height});
  return rect({x: x + 0.5, y: y + 0.5, width: width - 1, height: height - 1});
}

/** The last 30 runs, newest at the right edge: one path for each status, one title for all. */
export class Spark {
  /** @param {(id: number) => void} openRun */
  constructor(openRun) {
    /** @type {(RecentRun | undefined)[]} by place, from the left */
    this.places = [];
    this.nowMs = 0;
    this.element = svg("svg", {
      class: "spark",
      viewBox: `0 0 ${RUNS * BAR} ${HEIGHT}`,
      preserveAspectRatio: "none",
      role: "img",
    });
    this.title = svg("title");
    this.pointed = svg("rect", {class: "pointed", y: 0, width: BAR, height: HEIGHT, x: -BAR});
    this.element.addEventListener("pointermove", (event) => this.point(event));
    this.element.addEventListener("pointerleave", () => this.pointed.setAttribute("x", String(-BAR)));
    this.element.addEventListener("click", (event) => {
      const run = this.at(event);
      if (run) openRun(run.id);
    });
  }

  /**
   * @param {RecentRun[]} recent
   * @param {number} nowMs
   */
  draw(recent, nowMs) {
    const runs = recent.slice(-RUNS);
    this.nowMs = nowMs;
    this.places = [...Array(RUNS - runs.length).fill(undefined), ...runs];
    const longest = Math.max(1, ...durationsOf(runs));
    /** @type {Map<RecentRun["status"], string>} */
    const paths = new Map();
    this.places.forEach((run, place) => {
      if (!run) return;
      const height = Math.max(4, (HEIGHT * (run.durationMs ?? 0)) / longest);
      const box = {x: place * BAR + 1, y: HEIGHT - height, width: BAR - 2, height};
      paths.set(run.status, (paths.get(run.status) ?? "") + barShape(run.status, box));
    });
    const bad = runs.filter((run) => run.status !== "completed").length;
    const words = runs.length ? t("plot", {n: runs.length, bad}) : t("plot_none");
    this.element.setAttribute("aria-label", words);
    const shapes = [...paths].map(([status, d]) => svg("path", {class: status, d}));
    this.element.replaceChildren(this.title, this.pointed, ...shapes);
  }

  /**
   * The run under the pointer.
   * @param {MouseEvent} event
   */
  at(event) {
    const {left, width} = this.element.getBoundingClientRect();
    return this.places[Math.floor(((event.clientX - left) / width) * RUNS)];
  }

  /** @param {MouseEvent} event */
  point(event) {
    const run = this.at(event);
    this.title.textContent = run ? runWords(run, this.nowMs) : "";
    this.pointed.setAttribute("x", String(run ? this.places.indexOf(run) * BAR : -BAR));
    this.element.classList.toggle("opens", run !== undefined);
  }
}

const WIDEST = 800;
const NARROWEST = 400; // on a phone it is drawn smaller, and its letters are larger
const TALL = 180;
const LEFT = 84;
const RIGHT = 108; // the marks are named there, beside the bars
const WIDEST_BAR = 24;
const TOP = 14;
const BOTTOM = 26;

/**
 * Even steps for an axis from 0: at most five, of a length that a clock has.
 * @param {number} longestMs
 * @returns {number[]}
 */
export function axisSteps(longestMs) {
  const lengths = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1e3, 2e3, 5e3, 1e4, 2e4, 3e4, 6e4, 12e4, 3e5, 6e5, 12e5, 18e5, 36e5, 72e5, 144e5, 288e5, 864e5];
  const step = lengths.find((length) => longestMs / length <= 4) ?? Math.ceil(longestMs / 4 / 864e5) * 864e5;
  const steps = [];
  for (let at = 0; at <= longestMs + step * 0.999; at += step) steps.push(at);
  return steps;
}

/**
 * Durations over time, with an axis and the marks below which 50 % and 95 % lie.
 * @param {RecentRun[]} newestFirst
 * @param {number} nowMs
 * @param {number} room in pixels
 * @param {(id: number) => void} openRun
 */
export function durationChart(newestFirst, nowMs, room, openRun) {
  const runs = [...newestFirst].reverse().filter((run) => run.durationMs !== null);
  const durations = durationsOf(runs);
  const half = quantile(durations, 0.5) ?? 0;
  const most = quantile(durations, 0.95) ?? 0;
  const steps = axisSteps(Math.max(1, ...durations));
  const top = steps[steps.length - 1];
  const wide = Math.min(WIDEST, Math.max(NARROWEST, room));
  const end = wide - RIGHT;
  const y = (/** @type {number} */ ms) => TALL - BOTTOM - ((TALL - BOTTOM - TOP) * ms) / top;
  const words = {n: runs.length, half: duration(half), most: duration(most)};
  const chart = svg("svg", {class: "chart", viewBox: `0 0 ${wide} ${TALL}`, preserveAspectRatio: "xMinYMid", role: "img", "aria-label": t("chart_words", words)});
  for (const ms of steps) chart.append(line("grid", y(ms), end), label(LEFT - 8, y(ms) + 4, "end", duration(ms)));
  const width = Math.min(WIDEST_BAR, (end - LEFT) / Math.max(1, runs.length));
  runs.forEach((run, place) => chart.append(chartBar(run, LEFT + place * width, width, y, nowMs, openRun)));
  chart.append(line("mark", y(half), end), line("mark", y(most), end));
  const [low, high] = [y(half) + 4, Math.min(y(most) + 4, y(half) - 9)];
  chart.append(label(end + 6, low, "mark", t("chart_half", {duration: duration(half)})));
  chart.append(label(end + 6, high, "mark", t("chart_most", {duration: duration(most)})));
  const days = [runs[0], runs[runs.length - 1]].map((run) => shortTime(new Date(run.startedAt), nowMs));
  const last = Math.max(LEFT + runs.length * width, LEFT + 200);
  chart.append(label(LEFT, TALL - 6, "start", days[0]), label(last, TALL - 6, "end", days[1]));
  return chart;
}

/**
 * @param {string} kind
 * @param {number} y
 * @param {number} end
 */
function line(kind, y, end) {
  return svg("line", {class: kind, x1: LEFT, x2: end, y1: y, y2: y});
}

/**
 * @param {number} x
 * @param {number} y
 * @param {string} kind
 * @param {string} words
 */
function label(x, y, kind, words) {
  return svg("text", {x, y, class: kind}, words);
}

/**
 * @param {RecentRun} run
 * @param {number} x
 * @param {number} width
 * @param {(ms: number) => number} y
 * @param {number} nowMs
 * @param {(id: number) => void} openRun
 */
function chartBar(run, x, width, y, nowMs, openRun) {
  const foot = y(0);
  const height = Math.max(2, foot - y(run.durationMs ?? 0));
  const gap = Math.min(2, width / 4);
  const box = {x: x + gap / 2, y: foot - height, width: width - gap, height};
  const bar = svg("path", {class: run.status, d: barShape(run.status, box)}, svg("title", {}, runWords(run, nowMs)));
  bar.addEventListener("click", () => openRun(run.id));
  return bar;
}
