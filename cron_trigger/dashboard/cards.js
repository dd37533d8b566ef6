/*
 * The grid of cards: which ones, in which groups, and which of them are drawn.  One stop of Tab
 * for each card; the arrow keys go from card to card and to what else a card offers.
 */

import {Card} from "./card.js";
import {button, buttonById, byId, el, inputById, setText, showPanel} from "./dom.js";
import {problemWords} from "./errors.js";
import {IS, KINDS, grouped, matches} from "./filters.js";
import {number, t} from "./words.js";

/** @typedef {import("./types.js").Cron} Cron */
/** @typedef {import("./filters.js").Kind} Kind */

const FILTER_FROM = 9; // fewer crons are found at a glance
const MANY = 40; // more are drawn only when they come near the view
const NEAR_PX = 300;

export class Cards {
  /**
   * @param {import("./state.js").State} state
   * @param {import("./status.js").LiveTimes} times
   * @param {import("./card.js").CardWays} ways
   * @param {{retry: () => void, askSecret: () => void, announce: (text: string) => void}} page
   */
  constructor(state, times, ways, page) {
    this.state = state;
    this.times = times;
    this.ways = ways;
    this.page = page;
    this.grid = byId("grid");
    /** @type {Map<string, Card>} */
    this.cards = new Map();
    /** @type {Set<Kind>} */
    this.kinds = new Set();
    this.query = "";
    /** What the grid shows, so that it is laid out anew only where that changes. */
    this.laidOut = "";
    this.watcher = new IntersectionObserver((entries) => this.cameNear(entries), {
      rootMargin: `${NEAR_PX}px`,
    });
    this.listen();
  }

  listen() {
    this.state.on("all", () => this.render());
    this.state.on("cron", (cron) => this.update(cron));
    inputById("search").addEventListener("input", () => this.filter());
    inputById("search").addEventListener("change", () => this.announceFound());
    for (const kind of KINDS) byId(`only-${kind}`).addEventListener("click", () => this.toggle(kind));
    this.grid.addEventListener("keydown", (event) => this.keyed(event));
  }

  // ---- what there is

  render() {
    const crons = this.state.list();
    for (const name of this.cards.keys()) if (!this.state.cron(name)) this.cards.delete(name);
    for (const cron of crons) this.put(cron);
    byId("cron-filters").hidden = crons.length < FILTER_FROM;
    this.lay();
  }

  /** @param {Cron} cron */
  put(cron) {
    const card = this.cards.get(cron.cronName);
    if (card) return card.update(cron);
    this.cards.set(cron.cronName, new Card(cron, this.times, this.ways));
  }

  /** @param {Cron} cron */
  update(cron) {
    this.put(cron);
    this.countKinds();
    if (this.kinds.size) this.lay();
  }

  tick() {
    for (const cron of this.state.running()) this.cards.get(cron.cronName)?.tick();
  }

  /** Texts in the other language. */
  translate() {
    for (const cron of this.state.list()) this.cards.get(cron.cronName)?.update(cron);
    this.laidOut = "";
    this.lay();
  }

  /** The cards in view whose next time has passed without a word: nobody told them another. */
  overdue() {
    const now = this.times.now();
    return [...this.cards.values()]
      .filter(({seen, cron}) => seen && !cron.running && Date.parse(cron.nextRunAt ?? "") < now - 60000)
      .map(({cron}) => cron.cronName);
  }

  // ---- layout

  shown() {
    return this.state.list().filter((cron) => matches(cron, this.query, this.kinds));
  }

  lay() {
    if (!this.state.crons) return;
    const groups = grouped(this.shown());
    const signature = JSON.stringify(groups.map(([name, crons]) => [name, crons.map((cron) => cron.cronName)]));
    if (signature !== this.laidOut || !this.grid.querySelector(".card")) {
      this.laidOut = signature;
      this.grid.replaceChildren(...groups.flatMap(([name, crons]) => this.group(name, crons)));
      this.watch();
    }
    this.countKinds();
    this.showNone();
  }

  /**
   * @param {string | null} name
   * @param {Cron[]} crons
   */
  group(name, crons) {
    const items = crons.flatMap((cron) => this.cards.get(cron.cronName)?.item ?? []);
    if (!items.length) return [];
    const list = el("ul", {class: "grid"}, ...items);
    if (name === null) return [list];
    const title = name || t("other_group");
    list.setAttribute("aria-label", title);
    const count = el("small", {class: "muted"}, number(crons.length));
    return [el("p", {class: "group-title"}, title, " ", count), list];
  }

  /** Few are drawn at once; of many, those near the view, as one scrolls. */
  watch() {
    this.watcher.disconnect();
    const many = this.state.list().length > MANY;
    this.grid.classList.toggle("many", many);
    for (const card of this.cards.values()) {
      if (!many) card.see(true);
      else if (card.item.isConnected) this.watcher.observe(card.item);
    }
  }

  /** @param {IntersectionObserverEntry[]} entries */
  cameNear(entries) {
    for (const {target, isIntersecting} of entries)
      this.cards.get(target.getAttribute("data-key") ?? "")?.see(isIntersecting);
  }

  // ---- what is looked for

  filter() {
    this.query = inputById("search").value.trim();
    this.lay();
  }

  /** @param {Kind} kind */
  toggle(kind) {
    if (!this.kinds.delete(kind)) this.kinds.add(kind);
    byId(`only-${kind}`).setAttribute("aria-pressed", String(this.kinds.has(kind)));
    this.lay();
    this.announceFound();
  }

  announceFound() {
    this.page.announce(t("search_found", {n: this.shown().length}));
  }

  countKinds() {
    const crons = this.state.list();
    for (const kind of KINDS) {
      const n = crons.filter(IS[kind]).length;
      setText(buttonById(`only-${kind}`), n ? `${t(`only_${kind}`)} ${number(n)}` : t(`only_${kind}`));
    }
  }

  clear() {
    inputById("search").value = "";
    this.query = "";
    this.kinds.clear();
    for (const kind of KINDS) byId(`only-${kind}`).setAttribute("aria-pressed", "false");
    this.lay();
    inputById("search").focus();
  }

  showNone() {
    const panel = byId("crons-empty");
    panel.hidden = true;
    if (!this.state.crons?.size) return showPanel(panel, t("empty_title"), t("empty_hint"));
    if (this.shown().length) return;
    const words = this.query ? t("search_none", {query: this.query}) : t("filter_none");
    showPanel(panel, words, "", button(t("search_clear"), () => this.clear()));
  }

  // ---- before the first answer

  showFailure() {
    const {failure} = this.state;
    if (this.state.crons || !failure) return;
    this.grid.replaceChildren();
    const retry = button(t("retry"), this.page.retry);
    if (failure.status === 0) return showPanel(byId("crons-empty"), t("down_title"), t("down_hint"), retry);
    showPanel(byId("crons-empty"), t("failed_title"), problemWords(failure), retry);
  }

  /** The secret's dialog was closed without one. */
  showSecretNeeded() {
    if (this.state.crons) return;
    this.grid.replaceChildren();
    const enter = button(t("secret_enter"), this.page.askSecret);
    showPanel(byId("crons-empty"), t("secret_title"), t("secret_why"), enter);
  }

  // ---- keys

  /**
   * Left and right: within the card.  Up and down: from card to card.
   * @param {KeyboardEvent} event
   */
  keyed(event) {
    const card = [...this.cards.values()].find(({article}) => article.contains(document.activeElement));
    if (!card || event.ctrlKey || event.altKey || event.metaKey) return;
    const by = {ArrowRight: 1, ArrowLeft: -1, ArrowDown: 1, ArrowUp: -1}[event.key];
    if (!by) return;
    event.preventDefault();
    if (event.key === "ArrowRight" || event.key === "ArrowLeft") {
      const controls = card.controls().filter((control) => !control.disabled);
      const place = controls.findIndex((control) => control === document.activeElement);
      controls[(place + by + controls.length) % controls.length].focus();
      return;
    }
    const items = [...this.grid.querySelectorAll("li")];
    const next = items[items.indexOf(card.item) + by];
    this.cards.get(next?.getAttribute("data-key") ?? "")?.run.focus();
  }

  /**
   * Show a cron's card, whatever is filtered.
   * @param {string} name
   */
  goTo(name) {
    const card = this.cards.get(name);
    if (!card) return;
    if (!card.item.isConnected) this.clear();
    card.item.scrollIntoView({block: "center"});
    card.run.focus();
  }
}
