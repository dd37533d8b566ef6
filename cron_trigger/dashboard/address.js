/*
 * The page's address: filters and the open run stand in the fragment.  An open dialog is an
 * entry of the browser's history, so that Back closes it and does not leave the page.
 */

/**
 * @typedef {object} Place
 * @property {string} cron
 * @property {string} status
 * @property {string} since a day, 2026-11-24
 * @property {string} until
 * @property {string} who
 * @property {number | null} run
 */

/** @type {(keyof Place)[]} */
const NAMES = ["cron", "status", "since", "until", "who", "run"];

/**
 * @param {string} fragment
 * @returns {Place}
 */
export function placeOf(fragment) {
  const parts = new URLSearchParams(fragment.replace(/^#/, ""));
  const text = (/** @type {string} */ name) => parts.get(name) ?? "";
  const day = (/** @type {string} */ name) => (/^\d{4}-\d\d-\d\d$/.test(text(name)) && Date.parse(text(name)) ? text(name) : "");
  return {
    cron: text("cron"),
    status: /^[a-z_]+$/.test(text("status")) ? text("status") : "",
    since: day("since"),
    until: day("until"),
    who: text("who"),
    run: /^\d{1,15}$/.test(text("run")) ? Number(text("run")) : null,
  };
}

/** @param {Place} place */
export function fragmentOf(place) {
  const parts = new URLSearchParams();
  for (const name of NAMES) if (place[name]) parts.set(name, String(place[name]));
  return parts.toString();
}

export class Address {
  /** @param {(place: Place) => void} moved the viewer went back, forward, or typed another one */
  constructor(moved) {
    this.place = placeOf(location.hash);
    this.moved = moved;
    /** @type {(() => void) | null} what waits for our own step back */
    this.left = null;
    /** @type {Promise<void>} */
    this.settled = Promise.resolve();
    window.addEventListener("popstate", () => this.popped());
  }

  popped() {
    if (this.left) {
      this.left();
      this.left = null;
      return this.replace(); // the entry below may have other filters than those of now
    }
    Object.assign(this.place, placeOf(location.hash)); // the same object: others hold it
    this.moved(this.place);
  }

  /** @param {Partial<Place>} changes */
  write(changes) {
    Object.assign(this.place, changes);
    if (!this.left) this.replace();
  }

  replace() {
    history.replaceState(history.state, "", this.text());
  }

  /** The path alone where there is nothing to say: "" would keep the old fragment. */
  text() {
    const fragment = fragmentOf(this.place);
    return fragment ? `#${fragment}` : location.pathname + location.search;
  }

  /**
   * A dialog opened.  One that follows another takes its entry.
   * @param {number | null} run
   */
  enter(run) {
    if (this.place.run === run && run !== null) return; // the address was opened with it
    this.place.run = run;
    this.settled.then(() => {
      if (history.state?.layer) this.replace();
      else history.pushState({layer: true}, "", this.text());
    });
  }

  /** The dialog was closed by its own means. */
  leave() {
    this.place.run = null;
    this.settled.then(() => {
      if (!history.state?.layer) return this.replace();
      this.settled = new Promise((resolve) => {
        this.left = resolve;
      });
      history.back();
    });
  }
}
