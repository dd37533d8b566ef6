/*
 * The log of the opened run on the screen: only the rows in view are in the page.  The lines and
 * their layout are log-lines.js's; here they are drawn, searched, followed, wrapped, copied.
 */

import {buttonById, byId, copyText, el, inputById, setText} from "./dom.js";
import {MAX_LINE_SHOWN, MAX_ROWS, Rows, matchesIn} from "./log-lines.js";
import {textOf} from "./log-text.js";
import {clockTime, zoneInWords} from "./times.js";
import {number, t} from "./words.js";

/** @typedef {import("./log-lines.js").LogLines} LogLines */
/** @typedef {import("./log-text.js").Line} Line */

const ROW_PX = 20;
const ROWS_AROUND = 30;
const PAD_PX = 8;
const FLASH_MS = 2000;

export class LogView {
  /** @param {(text: string) => void} announce */
  constructor(announce) {
    this.announce = announce;
    this.box = byId("log");
    this.space = byId("log-space");
    /** @type {import("./opened-run.js").OpenedRun | null} */
    this.opened = null;
    this.rows = new Rows(0);
    this.following = false; // the end stays in view as lines come
    this.mayFollow = false; // it does so again once one has scrolled back to the end
    this.lastTop = 0;
    this.wraps = false;
    this.showsTimes = false;
    this.frame = 0;
    this.setUp();
  }

  setUp() {
    const on = (/** @type {string} */ id, /** @type {() => void} */ action) =>
      byId(id).addEventListener("click", action);
    this.box.addEventListener("scroll", () => this.scrolled());
    on("log-end", () => this.toEnd());
    on("log-next", () => this.step(1));
    on("log-previous", () => this.step(-1));
    on("log-wrap", () => this.toggleWrap());
    on("log-times", () => this.toggleTimes());
    on("log-copy", () => this.copy());
    inputById("log-search").addEventListener("input", () => this.searched());
    inputById("log-search").addEventListener("keydown", (event) => {
      if (event.key === "Enter") this.step(event.shiftKey ? -1 : 1);
    });
    window.addEventListener("resize", () => this.opened && this.layOut());
  }

  /** @param {import("./opened-run.js").OpenedRun | null} opened */
  show(opened) {
    this.opened = opened;
    this.following = false;
    inputById("log-search").value = "";
    this.box.scrollTo(0, 0);
    this.layOut();
  }

  /** A live log is followed; one that failed opens at its last words. */
  begin() {
    const status = this.opened?.run?.status ?? "";
    this.mayFollow = ["running", "failed", "timed_out", "interrupted"].includes(status);
    this.following = this.mayFollow;
    this.changed();
  }

  /** However many pieces come, the page is drawn once a frame. */
  changed() {
    if (this.frame) return;
    this.frame = requestAnimationFrame(() => {
      this.frame = 0;
      this.draw();
    });
  }

  /** The rows anew: another width, wrapped or not. */
  layOut() {
    this.rows = new Rows(this.wraps ? this.columns() : 0);
    this.rows.update(this.lines ?? EMPTY);
    if (this.rows.count > MAX_ROWS) this.rows = new Rows(0);
    this.draw();
  }

  get lines() {
    return this.opened?.log ?? null;
  }

  columns() {
    const probe = el("span", {class: "log-probe"}, "0".repeat(100));
    this.box.append(probe);
    const width = probe.getBoundingClientRect().width / 100;
    probe.remove();
    return Math.max(20, Math.floor((this.box.clientWidth - this.gutterPx() - 16) / width));
  }

  /** As wide as the longest number, and the time where it is shown. */
  gutterPx() {
    const digits = number((this.lines?.dropped ?? 0) + (this.lines?.length ?? 0)).length;
    return 24 + Math.max(3, digits) * 8 + (this.showsTimes ? 80 : 0);
  }

  draw() {
    const log = this.lines ?? EMPTY;
    this.rows.update(log);
    this.space.style.setProperty("height", `${this.rows.count * ROW_PX + 2 * PAD_PX}px`);
    this.box.style.setProperty("--gutter", `${this.gutterPx()}px`);
    this.box.classList.toggle("wraps", this.rows.columns > 0);
    if (this.following) this.box.scrollTop = this.box.scrollHeight;
    this.drawRows();
    this.drawState(log);
  }

  /** @param {LogLines} log */
  drawState(log) {
    setText(byId("log-count"), this.countWords(log));
    byId("log-left-out").hidden = log.dropped === 0;
    setText(byId("log-left-out"), log.dropped ? t("log_left_out", {n: log.dropped}) : "");
    const note = log.length ? "" : this.noteWords();
    setText(byId("log-note"), note);
    byId("log-note").hidden = !note;
    const {live = false, lost = false} = this.opened ?? {};
    byId("log-live").hidden = !live;
    setText(byId("log-live"), t(lost ? "log_lost" : "log_live"));
    for (const id of ["log-next", "log-previous"]) buttonById(id).disabled = !log.hits.length;
    buttonById("log-times").hidden = !log.arrivals.length && !live;
    this.drawEnd();
  }

  noteWords() {
    if (!this.opened?.run || this.opened.problem) return "";
    if (this.opened.done) return t("log_empty");
    return t(this.opened.live ? "log_waiting" : "loading");
  }

  /** @param {LogLines} log */
  countWords(log) {
    if (!log.query) return log.length ? t("log_lines", {n: log.dropped + log.length}) : "";
    if (!log.hits.length) return t("log_not_found");
    return t("log_found", {i: Math.max(0, log.hit) + 1, n: log.hits.length});
  }

  drawEnd() {
    const live = Boolean(this.opened?.live);
    buttonById("log-end").hidden = this.atEnd() && (this.following || !live);
    setText(buttonById("log-end"), t(live ? "log_end" : "log_to_end"));
  }

  drawRows() {
    const log = this.lines ?? EMPTY;
    const top = Math.floor(this.box.scrollTop / ROW_PX);
    const visible = Math.ceil(this.box.clientHeight / ROW_PX);
    const from = Math.max(0, top - ROWS_AROUND);
    const to = Math.min(this.rows.count, top + visible + ROWS_AROUND);
    const drawn = [];
    for (let row = from; row < to; row += 1) drawn.push(this.row(log, row));
    this.space.replaceChildren(...drawn);
  }

  /**
   * @param {LogLines} log
   * @param {number} row
   */
  row(log, row) {
    const place = this.rows.lineAt(row);
    const first = this.rows.rowOf(place) === row;
    const columns = this.rows.columns || MAX_LINE_SHOWN;
    const start = (row - this.rows.rowOf(place)) * columns;
    const element = el("div", {class: "log-line"});
    if (first) {
      element.setAttribute("data-number", number(log.dropped + place + 1));
      const arrived = this.showsTimes ? log.arrivedAt(place) : null;
      if (arrived) element.setAttribute("data-time", clockTime(new Date(arrived)));
    }
    element.style.setProperty("top", `${row * ROW_PX + PAD_PX}px`);
    const current = log.hit >= 0 && place === log.hits[log.hit];
    element.classList.toggle("found", current);
    element.append(...pieces(log.line(place), start, start + columns, log.query, current));
    return element;
  }

  // ---- what the viewer does

  scrolled() {
    const up = this.box.scrollTop < this.lastTop - 1;
    this.lastTop = this.box.scrollTop;
    // The box may have become smaller meanwhile: only who scrolls up stops following.
    this.following = this.mayFollow && (this.atEnd() || (this.following && !up));
    this.drawEnd();
    this.drawRows();
  }

  atEnd() {
    return this.box.scrollTop + this.box.clientHeight >= this.box.scrollHeight - ROW_PX;
  }

  toEnd() {
    this.following = this.mayFollow = true;
    this.draw();
    this.box.focus();
  }

  searched() {
    this.lines?.setQuery(inputById("log-search").value);
    this.step(1);
  }

  /** @param {number} by */
  step(by) {
    const place = this.lines?.step(by) ?? null;
    if (place !== null) {
      this.following = false;
      const middle = this.rows.rowOf(place) * ROW_PX - this.box.clientHeight / 2;
      this.box.scrollTop = Math.max(0, middle);
    }
    this.draw();
  }

  toggleWrap() {
    const place = this.rows.lineAt(Math.floor(this.box.scrollTop / ROW_PX));
    const {following} = this;
    this.wraps = !this.wraps;
    buttonById("log-wrap").setAttribute("aria-pressed", String(this.wraps));
    this.layOut();
    this.box.scrollTop = this.rows.rowOf(Math.max(0, place)) * ROW_PX;
    this.following = following;
    this.draw();
  }

  toggleTimes() {
    this.showsTimes = !this.showsTimes;
    const toggle = buttonById("log-times");
    toggle.setAttribute("aria-pressed", String(this.showsTimes));
    toggle.title = t("log_times_title", {zone: zoneInWords()});
    this.layOut();
  }

  /** All of it; where the first lines are not here any more, it says so. */
  async copy() {
    const log = this.lines;
    if (!log) return;
    const place = /** @type {HTMLElement} */ (this.box.closest("dialog"));
    const done = await copyText(log.text(), place);
    const words = log.dropped ? t("log_copied_part", {n: log.dropped}) : t("copied");
    this.flash(done ? words : t("copy_failed"));
  }

  /** @param {string} words */
  flash(words) {
    setText(byId("log-copy"), words);
    this.announce(words);
    setTimeout(() => setText(byId("log-copy"), t("copy")), FLASH_MS);
  }
}

const EMPTY = /** @type {LogLines} */ (
  /** @type {unknown} */ ({length: 0, dropped: 0, hits: [], hit: -1, query: "", arrivals: []})
);

/**
 * A part of a line, cut wherever a colour or a found word begins or ends.
 * @param {Line} line
 * @param {number} from
 * @param {number} to
 * @param {string} query
 * @param {boolean} current whether this line is the match that one went to
 * @returns {Node[]}
 */
function pieces(line, from, to, query, current) {
  const whole = textOf(line);
  const end = Math.min(to, whole.length, MAX_LINE_SHOWN);
  const spans = typeof line === "string" ? [] : line.spans;
  const found = matchesIn(whole, query);
  const cuts = [from, end, ...spans.flatMap(([a, b]) => [a, b]), ...found.flat()];
  const order = [...new Set(cuts)].filter((cut) => cut >= from && cut <= end).sort((a, b) => a - b);
  /** @type {Node[]} */
  const parts = order.slice(1).map((stop, i) => {
    const start = order[i];
    const classes = spans.find(([a, b]) => a <= start && stop <= b)?.[2] ?? "";
    const hit = found.some(([a, b]) => a <= start && stop <= b);
    if (!hit && !classes) return new Text(whole.slice(start, stop));
    const names = hit && current ? `${classes} current` : classes;
    return el(hit ? "mark" : "span", {class: names || null}, whole.slice(start, stop));
  });
  if (end === MAX_LINE_SHOWN && whole.length > end)
    parts.push(el("span", {class: "muted"}, ` … +${number(whole.length - end)}`));
  return parts;
}
