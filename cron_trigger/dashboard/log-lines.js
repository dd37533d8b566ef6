/*
 * The lines of one log: kept, searched, laid out in rows.  No DOM here; log-view.js shows them.
 */

import {AnsiReader, textOf} from "./log-text.js";

/** @typedef {import("./log-text.js").Line} Line */

/** What a browser can show (its tallest element has 33 million pixels) and keep in memory. */
export const MAX_LINES = 1000000;
export const MAX_ROWS = 1600000;
export const MAX_LINE_SHOWN = 10000; // characters; search, copy and download have all of them

export class LogLines {
  /** @param {number} [limit] */
  constructor(limit = MAX_LINES) {
    this.limit = limit;
    /** @type {Line[]} */
    this.lines = [];
    /** How many of the first lines were dropped. */
    this.dropped = 0;
    /** The line that is not whole yet, as it came. */
    this.rest = "";
    this.reader = new AnsiReader();
    this.query = "";
    /** @type {number[]} places of lines that hold the query */
    this.hits = [];
    this.hit = -1;
    this.searchedTo = 0;
    /** @type {{from: number, atMs: number}[]} when the lines from a place on arrived */
    this.arrivals = [];
  }

  /**
   * @param {string} chunk
   * @param {number | null} [atMs] when it arrived, where that says when it was written
   */
  append(chunk, atMs = null) {
    if (atMs !== null) this.arrivals.push({from: this.lines.length, atMs});
    const lines = (this.rest + chunk).split("\n");
    this.rest = lines.pop() ?? "";
    for (const line of lines) this.lines.push(this.reader.read(line));
    this.dropOldest();
    this.search();
  }

  /** What was not whole is, now: nothing comes any more. */
  end() {
    if (this.rest) this.lines.push(this.reader.read(this.rest));
    this.rest = "";
    this.search();
  }

  /** A tenth more than needed, so that this is seldom done. */
  dropOldest() {
    const over = this.lines.length - this.limit;
    if (over <= 0) return;
    const gone = over + Math.floor(this.limit / 10);
    this.lines.splice(0, gone);
    this.dropped += gone;
    this.arrivals = this.arrivals.map(({from, atMs}) => ({from: Math.max(0, from - gone), atMs}));
    Object.assign(this, {searchedTo: 0, hits: [], hit: -1});
  }

  /** Lines to show, the one that is not whole yet among them: progress is written without end. */
  get length() {
    return this.lines.length + (this.rest ? 1 : 0);
  }

  /**
   * @param {number} place
   * @returns {Line}
   */
  line(place) {
    return place < this.lines.length ? this.lines[place] : this.reader.peek(this.rest);
  }

  /** All that is here, as text. */
  text() {
    const all = Array.from({length: this.length}, (_, place) => textOf(this.line(place)));
    return all.join("\n") + (all.length ? "\n" : "");
  }

  /**
   * When a line arrived, or null where that is not known.
   * @param {number} place
   */
  arrivedAt(place) {
    let low = 0;
    let high = this.arrivals.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (this.arrivals[middle].from <= place) low = middle + 1;
      else high = middle;
    }
    return low ? this.arrivals[low - 1].atMs : null;
  }

  // ---- search

  /** @param {string} query */
  setQuery(query) {
    Object.assign(this, {query: query.toLowerCase(), hits: [], hit: -1, searchedTo: 0});
    this.search();
  }

  /** Only the lines that came since the last time. */
  search() {
    if (!this.query) return;
    for (let place = this.searchedTo; place < this.lines.length; place += 1) {
      if (textOf(this.lines[place]).toLowerCase().includes(this.query)) this.hits.push(place);
    }
    this.searchedTo = this.lines.length;
  }

  /**
   * Go to the next match, or by -1 to the one before; round at the ends.
   * @param {number} by
   * @returns {number | null} the line's place
   */
  step(by) {
    if (!this.hits.length) return null;
    const from = this.hit < 0 && by < 0 ? 0 : this.hit;
    this.hit = (from + by + this.hits.length) % this.hits.length;
    return this.hits[this.hit];
  }
}

/**
 * Where a query stands in a text, without regard to case.
 * @param {string} text
 * @param {string} query in lower case
 * @returns {[number, number][]}
 */
export function matchesIn(text, query) {
  /** @type {[number, number][]} */
  const found = [];
  if (!query) return found;
  const low = text.toLowerCase();
  for (let at = low.indexOf(query); at >= 0; at = low.indexOf(query, at + query.length)) {
    found.push([at, at + query.length]);
  }
  return found;
}

/** Which row of the screen a line begins at: one a line, or several where lines are wrapped. */
export class Rows {
  /** @param {number} columns characters in a row; 0: lines are not wrapped */
  constructor(columns) {
    this.columns = columns;
    /** @type {number[]} the first row of each line; only where they are wrapped */
    this.starts = [];
    this.count = 0;
    this.dropped = 0;
  }

  /**
   * Lay out the lines that came since; all of them where the first ones were dropped.  The last
   * is laid out again each time: it may not have been whole.
   * @param {LogLines} log
   */
  update(log) {
    if (!this.columns) {
      this.count = log.length;
      return;
    }
    if (log.dropped !== this.dropped) Object.assign(this, {starts: [], dropped: log.dropped});
    if (this.starts.length) this.starts.pop();
    let place = this.starts.length;
    let row = place ? this.starts[place - 1] + this.height(log, place - 1) : 0;
    for (; place < log.length; place += 1) {
      this.starts.push(row);
      row += this.height(log, place);
    }
    this.count = row;
  }

  /**
   * @param {LogLines} log
   * @param {number} place
   */
  height(log, place) {
    const length = Math.min(textOf(log.line(place)).length, MAX_LINE_SHOWN);
    return Math.max(1, Math.ceil(length / this.columns));
  }

  /** @param {number} place of a line */
  rowOf(place) {
    return this.columns ? (this.starts[place] ?? 0) : place;
  }

  /**
   * The line that a row belongs to.
   * @param {number} row
   */
  lineAt(row) {
    if (!this.columns) return row;
    let low = 0;
    let high = this.starts.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (this.starts[middle] <= row) low = middle + 1;
      else high = middle;
    }
    return low - 1;
  }
}
