/*
 * The history on the page: a table with its filters, its export, and, where one cron is shown, its
 * durations over time.  What is loaded is past.js's.
 */

import {csvOf} from "./csv.js";
import {button, buttonById, byId, download, el, inputById, selectById, setText, showPanel} from "./dom.js";
import {problemWords} from "./errors.js";
import {durationChart} from "./plots.js";
import {asServerError} from "./server.js";
import {RUN_STATUSES} from "./state.js";
import {askedBy, askedHow, outcome, runStatusElement} from "./status.js";
import {zoneInWords} from "./times.js";
import {t} from "./words.js";

/** @typedef {import("./types.js").Run} Run */
/** @typedef {import("./address.js").Place} Place */

const SHOWN_AT_FIRST = 15;
const CHART_FROM = 3;
const FEW_CRONS = 40; // of more, the list is filled when one opens it

/** @type {["since" | "until" | "who", string][]} */
const MORE_FILTERS = [
  ["since", "filter-since"],
  ["until", "filter-until"],
  ["who", "filter-who"],
];

export class History {
  /**
   * @param {import("./state.js").State} state
   * @param {import("./past.js").Past} past
   * @param {import("./address.js").Address} address
   * @param {import("./status.js").LiveTimes} times
   * @param {import("./toasts.js").Toasts} toasts
   * @param {import("./secret.js").Secret} secret
   * @param {(id: number) => void} openRun
   */
  constructor(state, past, address, times, toasts, secret, openRun) {
    this.state = state;
    this.past = past;
    this.address = address;
    this.times = times;
    this.toasts = toasts;
    this.secret = secret;
    this.openRun = openRun;
    /** How many rows are in the page; one cron's chart knows of more. */
    this.rows = SHOWN_AT_FIRST;
    this.frame = 0;
    this.listen();
  }

  listen() {
    this.state.on("run", (run) => {
      this.past.put(run);
      this.renderSoon();
    });
    this.state.on("all", () => this.render());
    selectById("filter-cron").addEventListener("change", () =>
      this.filter({cron: selectById("filter-cron").value}),
    );
    selectById("filter-status").addEventListener("change", () =>
      this.filter({status: selectById("filter-status").value}),
    );
    for (const [name, id] of MORE_FILTERS)
      inputById(id).addEventListener("change", () => this.filter({[name]: inputById(id).value.trim()}));
    for (const kind of ["pointerdown", "focus"])
      selectById("filter-cron").addEventListener(kind, () => this.fillCrons(true));
    buttonById("more").addEventListener("click", () => this.more());
    buttonById("csv").addEventListener("click", () => this.export());
  }

  /** @param {Partial<Place>} changes */
  filter(changes) {
    this.address.write(changes);
    return this.reload();
  }

  /** The filters are others: by the page's own means, or by the address. */
  async reload() {
    this.past.forget();
    this.rows = SHOWN_AT_FIRST;
    this.renderFilters();
    this.render();
    await this.loadShown();
    this.render();
  }

  async loadShown() {
    const asked = this.past.asked + 1;
    try {
      await this.past.load();
    } catch (problem) {
      const reason = asServerError(problem);
      if (asked === this.past.asked && !this.secret.isAskedFor(reason)) this.past.fail(reason);
    }
  }

  async more() {
    this.rows += SHOWN_AT_FIRST;
    if (this.rows <= this.past.runs.length || this.past.next === null) return this.render();
    buttonById("more").disabled = true;
    try {
      await this.past.loadMore();
      this.render();
    } catch (problem) {
      const reason = asServerError(problem);
      if (!this.secret.isAskedFor(reason)) this.toasts.show("failed", t("history_failed"), problemWords(reason));
    } finally {
      buttonById("more").disabled = false;
    }
  }

  /** @param {string} name of the cron whose history is to be seen */
  async goTo(name) {
    const loading = this.filter({cron: name, status: "", since: "", until: "", who: ""});
    this.show();
    await loading;
    this.show(); // with what is there now the page is longer
  }

  show() {
    byId("history-title").scrollIntoView({block: "start"});
    byId("history-title").focus({preventScroll: true});
  }

  async export() {
    const pressed = buttonById("csv");
    pressed.disabled = true;
    try {
      const name = this.past.place.cron || this.state.host || "crons";
      const {runs, whole} = await this.past.all();
      download(new Blob([csvOf(runs)], {type: "text/csv"}), `${name}-history.csv`);
      if (whole) this.toasts.announce(t("csv_done", {n: runs.length}));
      else this.toasts.show("interrupted", t("csv_part", {n: runs.length}), t("csv_part_hint"));
    } catch (problem) {
      const reason = asServerError(problem);
      if (!this.secret.isAskedFor(reason)) this.toasts.show("failed", t("history_failed"), problemWords(reason));
    } finally {
      pressed.disabled = false;
    }
  }

  // ---- shown

  /** However many events come at once, the table is drawn once a frame. */
  renderSoon() {
    if (this.frame) return;
    this.frame = requestAnimationFrame(() => {
      this.frame = 0;
      this.render();
    });
  }

  render() {
    const {runs, next, loaded, place} = this.past;
    const shown = runs.slice(0, this.rows);
    const focused = document.activeElement?.closest("#runs tr")?.getAttribute("data-key");
    byId("runs").replaceChildren(...shown.map((run) => this.row(run)));
    if (focused) byId("runs").querySelector(`[data-key="${focused}"] button`)?.dispatchEvent(new Event("refocus"));
    byId("runs-table").hidden = !shown.length;
    byId("more").hidden = !loaded || (next === null && shown.length === runs.length);
    byId("csv").hidden = !runs.length;
    setText(byId("more"), t(place.who ? "search_on" : "more"));
    byId("searched").hidden = !place.who || !loaded;
    setText(byId("searched"), t("searched", {n: this.past.searched}));
    byId("history-columns").hidden = this.state.crons === null;
    this.renderChart();
    this.renderNone();
    this.renderFilters();
  }

  renderChart() {
    const {runs, place} = this.past;
    const ended = runs.filter((run) => run.durationMs !== null);
    byId("chart").hidden = !place.cron || ended.length < CHART_FROM;
    if (byId("chart").hidden) return byId("chart").replaceChildren();
    const title = el("figcaption", {}, t("chart", {n: ended.length}));
    const room = byId("chart").clientWidth;
    byId("chart").replaceChildren(title, durationChart(runs, this.times.now(), room, this.openRun));
  }

  renderNone() {
    const panel = byId("runs-empty");
    const {runs, failure, loaded, isFiltered, next, searched} = this.past;
    panel.hidden = true;
    if (failure)
      return showPanel(panel, t("history_failed"), problemWords(failure), button(t("retry"), () => this.reload()));
    if (!loaded) return showPanel(panel, "", t("loading"));
    if (runs.length) return;
    if (!isFiltered) return showPanel(panel, t("history_empty"), t("history_empty_hint"));
    const none = next === null ? t("history_none") : t("history_none_yet", {n: searched});
    showPanel(panel, none, "", button(t("filters_clear"), () => this.clear()));
  }

  clear() {
    this.filter({cron: "", status: "", since: "", until: "", who: ""});
    selectById("filter-cron").focus();
  }

  /**
   * The whole row opens the run; for the keyboard there is the button in it.
   * @param {Run} run
   */
  row(run) {
    const words = outcome(run);
    const title = this.state.titleOf(run.cronName);
    const number = t("number", {id: String(run.id)});
    const open = el("button", {type: "button", class: "link clip", title}, title);
    open.addEventListener("refocus", () => open.focus());
    const row = el(
      "tr",
      {"data-key": run.id, role: "row"},
      cell("state", runStatusElement(run), words && el("small", {class: "clip", title: words}, words)),
      cell("what", open, el("small", {class: "named"}, el("span", {class: "mono clip"}, run.cronName), el("span", {}, `· ${number}`))),
      cell("who", el("span", {class: "clip"}, askedBy(run)), el("small", {class: "clip"}, askedHow(run))),
      cell("long", this.times.duration(run)),
      cell("when", this.times.relative(run.startedAt)),
    );
    row.addEventListener("click", () => this.openRun(run.id));
    return row;
  }

  // ---- filters

  renderFilters() {
    this.fillCrons(this.state.list().length <= FEW_CRONS);
    const {status} = this.past.place;
    /** @type {[string, string][]} */
    const statuses = RUN_STATUSES.map((each) => [each, t(`status_${each}`)]);
    setOptions(selectById("filter-status"), status, [["", t("all_statuses")], ...statuses]);
    for (const [name, id] of MORE_FILTERS)
      if (document.activeElement !== byId(id)) inputById(id).value = this.past.place[name];
    const more = /** @type {HTMLDetailsElement} */ (byId("more-filters"));
    if (MORE_FILTERS.some(([name]) => this.past.place[name])) more.open = true;
    setText(byId("filter-zone"), t("zone", {zone: zoneInWords()}));
  }

  /**
   * 300 crons are as many elements: until somebody opens the list, only the chosen one is in it.
   * @param {boolean} whole
   */
  fillCrons(whole) {
    const {cron} = this.past.place;
    const names = whole ? this.state.list().map(({cronName}) => cronName) : [];
    if (cron && !names.includes(cron)) names.push(cron); // or no longer registered
    if (!whole && selectById("filter-cron").options.length > names.length + 1) return;
    /** @type {[string, string][]} */
    const options = names.map((name) => [name, this.state.titleOf(name)]);
    setOptions(selectById("filter-cron"), cron, [["", t("all_crons")], ...options]);
  }
}

/**
 * @param {string} name
 * @param {import("./dom.js").Child[]} children
 */
function cell(name, ...children) {
  return el("td", {class: name, role: "cell"}, ...children);
}

/**
 * Written only where they differ, so that an open list stays open.
 * @param {HTMLSelectElement} select
 * @param {string} value
 * @param {[string, string][]} options
 */
function setOptions(select, value, options) {
  const same =
    select.options.length === options.length &&
    options.every(([key, words], place) => select.options[place].value === key && select.options[place].text === words);
  if (!same) select.replaceChildren(...options.map(([key, words]) => el("option", {value: key}, words)));
  select.value = value;
}
