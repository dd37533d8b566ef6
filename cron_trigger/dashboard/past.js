/*
 * The history as it is loaded: page by page, by the filters of the address.  An answer to filters
 * that have changed since is dropped.  No DOM here; history.js shows it.
 */

import {asServerError} from "./server.js";
import {plain} from "./words.js";

/** @typedef {import("./types.js").Run} Run */
/** @typedef {import("./address.js").Place} Place */

const PAGE = 15;
const CHART_PAGE = 100;
const SEARCH_PAGE = 500;
/** Who asked is not known to the server's filters: so many runs are looked through for one page. */
const SEARCHED_MOST = 10000;
const EXPORTED_MOST = 100000;
const MEANWHILE_MOST = 100;

/**
 * The first and the last moment of days, in the viewer's time.
 * @param {Pick<Place, "since" | "until">} place
 * @returns {[string, string]} with an offset; "" where not given
 */
export function momentsOf({since, until}) {
  const first = since && new Date(`${since}T00:00`).toISOString();
  const after = until ? new Date(`${until}T00:00`) : null;
  after?.setDate(after.getDate() + 1);
  return [first, after ? after.toISOString() : ""];
}

/**
 * @param {Run} run
 * @param {string} who
 */
export function isAskedBy(run, who) {
  const text = plain(`${run.requestedBy ?? ""} ${run.client ?? ""}`);
  return text.includes(plain(who.trim()));
}

export class Past {
  /**
   * @param {import("./server.js").Server} server
   * @param {Place} place whose filters hold
   */
  constructor(server, place) {
    this.server = server;
    this.place = place;
    /** @type {Run[]} newest first */
    this.runs = [];
    /** @type {Run[]} as events had them since it was asked for more: the answer may be older */
    this.meanwhile = [];
    /** @type {number | null} */
    this.next = null;
    /** @type {import("./server.js").ServerError | null} */
    this.failure = null;
    this.loaded = false;
    this.searched = 0;
    this.asked = 0;
  }

  get isFiltered() {
    const {cron, status, since, until, who} = this.place;
    return Boolean(cron || status || since || until || who);
  }

  /**
   * @param {number} limit
   * @param {number | null} before
   */
  address(limit, before) {
    const {cron, status} = this.place;
    const [since, until] = momentsOf(this.place);
    const query = new URLSearchParams({limit: String(limit)});
    const given = {cron, status, since, until, before: before === null ? "" : String(before)};
    for (const [name, value] of Object.entries(given)) if (value) query.set(name, value);
    return `runs?${query}`;
  }

  /** Where only one cron is shown, its chart wants more runs. */
  get pageSize() {
    if (this.place.who) return SEARCH_PAGE;
    return this.place.cron ? CHART_PAGE : PAGE;
  }

  /** The filters changed. */
  forget() {
    Object.assign(this, {runs: [], next: null, failure: null, loaded: false, searched: 0});
  }

  /** The newest page: as much as is shown already.  Throws the ServerError. */
  async load() {
    const asked = (this.asked += 1);
    this.meanwhile = [];
    const limit = Math.min(SEARCH_PAGE, Math.max(this.pageSize, this.runs.length));
    const found = await this.search(limit, null, Math.max(PAGE, this.runs.length));
    if (asked !== this.asked) return;
    Object.assign(this, found, {failure: null, loaded: true});
    for (const run of this.meanwhile) this.set(run);
  }

  /** @returns {Promise<boolean>} false where the filters have changed since */
  async loadMore() {
    const asked = (this.asked += 1);
    this.meanwhile = [];
    const found = await this.search(this.pageSize, this.next);
    if (asked !== this.asked) return false;
    this.runs.push(...found.runs);
    this.next = found.next;
    for (const run of this.meanwhile) this.set(run);
    this.searched += found.searched;
    return true;
  }

  /** @param {unknown} problem */
  fail(problem) {
    this.failure = asServerError(problem);
  }

  /**
   * One page; by person, as many as it takes to find a page of theirs.
   * @param {number} limit
   * @param {number | null} before
   * @param {number} [wanted]
   */
  async search(limit, before, wanted = PAGE) {
    const {who} = this.place;
    /** @type {Run[]} */
    const runs = [];
    let next = before;
    let searched = 0;
    do {
      const answer = await this.server.getJson(this.address(limit, next));
      runs.push(...answer.runs.filter((/** @type {Run} */ run) => !who || isAskedBy(run, who)));
      searched += answer.runs.length;
      next = answer.next;
    } while (who && next !== null && runs.length < wanted && searched < SEARCHED_MOST);
    return {runs, next, searched};
  }

  /** All that the filters admit, for a file; not `whole` where that is more than one can hold. */
  async all() {
    /** @type {Run[]} */
    const runs = [];
    const past = new Past(this.server, {...this.place}); // whatever filters come meanwhile
    for (let next = /** @type {number | null} */ (null); ; ) {
      const answer = await past.search(SEARCH_PAGE, next);
      runs.push(...answer.runs);
      next = answer.next;
      if (next === null || runs.length >= EXPORTED_MOST) return {runs, whole: next === null};
    }
  }

  /**
   * An event's run takes its place; it leaves where it no longer fits the filters.
   * @param {Run} run
   */
  put(run) {
    this.meanwhile = [...this.meanwhile, run].slice(-MEANWHILE_MOST);
    if (this.loaded) this.set(run);
  }

  /** @param {Run} run */
  set(run) {
    const known = this.runs.find((other) => other.id === run.id);
    if (known && known.status !== "running" && run.status === "running") return;
    const others = this.runs.filter((other) => other.id !== run.id);
    const oldest = this.next === null ? 0 : (this.runs.at(-1)?.id ?? 0);
    const fits = this.fits(run) && run.id >= oldest;
    this.runs = fits ? [...others, run].sort((a, b) => b.id - a.id) : others;
  }

  /** @param {Run} run */
  fits(run) {
    const {cron, status, who} = this.place;
    const [since, until] = momentsOf(this.place);
    const started = Date.parse(run.startedAt);
    return (
      (!cron || run.cronName === cron) &&
      (!status || run.status === status) &&
      (!since || started >= Date.parse(since)) &&
      (!until || started < Date.parse(until)) &&
      (!who || isAskedBy(run, who))
    );
  }
}
