/*
 * What is told: toasts, the one polite live region, and, for who wants them, the browser's own
 * notifications.  A toast stands in a place that is kept free for it, over no button; the newest
 * is shown, and the others behind it are counted.
 */

import {buttonById, byId, el, setText, stored} from "./dom.js";
import {BAD_STATUSES} from "./state.js";
import {outcome, statusElement} from "./status.js";
import {duration} from "./times.js";
import {SECOND_MS} from "./units.js";
import {t} from "./words.js";

/** @typedef {import("./types.js").Run} Run */

const KEPT = 9;
const TOAST_MS = 8 * SECOND_MS;
const BAD_TOAST_MS = 30 * SECOND_MS;
const SAID_MS = 10 * SECOND_MS;
const NOTIFY_KEY = "cron-trigger-notify";

export class Toasts {
  /**
   * @param {(name: string) => string} titleOf
   * @param {{run: (id: number) => void, cron: (name: string) => void}} go
   */
  constructor(titleOf, go) {
    this.place = byId("toasts");
    this.titleOf = titleOf;
    this.go = go;
    /** @type {Set<number>} runs whose end was told */
    this.told = new Set();
    /** @type {HTMLElement[]} */
    this.shown = [];
    this.setUpNotifications();
  }

  /**
   * For screen readers.
   * @param {string} text
   */
  announce(text) {
    const said = el("p", {}, text);
    byId("announcer").append(said);
    setTimeout(() => said.remove(), SAID_MS);
  }

  /** @param {Run} run */
  tellEnd(run) {
    if (this.told.has(run.id)) return;
    this.told.add(run.id);
    const after = run.durationMs === null ? "" : t("ended_after", {duration: duration(run.durationMs)});
    const detail = [t(`status_${run.status}`), outcome(run), after].filter(Boolean).join(" · ");
    this.tell(run.status, this.titleOf(run.cronName), detail, `run-${run.id}`, () => this.go.run(run.id));
  }

  /** @param {import("./types.js").Cron} cron that the crontab did not run */
  tellLate({cronName, nextRunAt}) {
    const open = () => this.go.cron(cronName);
    this.tell("timed_out", this.titleOf(cronName), t("late_told"), `late-${cronName}-${nextRunAt}`, open);
  }

  /**
   * @param {string} status
   * @param {string} title
   * @param {string} detail
   * @param {string} tag
   * @param {() => void} open
   */
  tell(status, title, detail, tag, open) {
    this.show(status, title, detail, open);
    this.notify(title, detail, tag, open);
  }

  /**
   * @param {string} status
   * @param {string} title
   * @param {string} [detail]
   * @param {(() => void) | null} [open]
   */
  show(status, title, detail = "", open = null) {
    const words = el("button", {type: "button", class: "link"}, statusElement(status, el("span", {class: "clip"}, title)));
    words.append(el("small", {class: "clip"}, detail));
    const close = el(
      "button",
      {type: "button", class: "button quiet square", "aria-label": t("close")},
      "✕",
    );
    const toast = el("div", {class: "toast"}, words, el("span", {class: "behind muted"}), close);
    words.addEventListener("click", () => {
      this.remove(toast);
      open?.();
    });
    close.addEventListener("click", () => this.remove(toast));
    this.shown = [...this.shown, toast].slice(-KEPT);
    this.lay();
    this.announce([title, detail].filter(Boolean).join(", "));
    this.removeLater(toast, BAD_STATUSES.includes(status) ? BAD_TOAST_MS : TOAST_MS);
  }

  /** Only the newest is in the page. */
  lay() {
    const newest = this.shown.at(-1);
    this.place.replaceChildren(...(newest ? [newest] : []));
    const behind = newest?.querySelector(".behind");
    const n = this.shown.length - 1;
    if (behind) setText(behind, n ? t("toasts_more", {n}) : "");
  }

  /** @param {HTMLElement} toast */
  remove(toast) {
    this.shown = this.shown.filter((other) => other !== toast);
    this.lay();
  }

  /**
   * Not while someone reads it, nor in a tab that nobody sees.
   * @param {HTMLElement} toast
   * @param {number} ms
   */
  removeLater(toast, ms) {
    setTimeout(() => {
      const read = document.hidden || toast.matches(":hover, :focus-within");
      if (read) this.removeLater(toast, TOAST_MS);
      else this.remove(toast);
    }, ms);
  }

  // ---- the browser's notifications: in a secure context only, and only for who wants them

  setUpNotifications() {
    const toggle = buttonById("notify");
    toggle.hidden = !(window.isSecureContext && "Notification" in window);
    this.wanted = stored(() => localStorage.getItem(NOTIFY_KEY)) === "yes";
    toggle.setAttribute("aria-pressed", String(this.wanted));
    toggle.addEventListener("click", () => this.toggleNotifications(toggle));
  }

  /** @param {HTMLButtonElement} toggle */
  async toggleNotifications(toggle) {
    const granted = this.wanted || (await Notification.requestPermission()) === "granted";
    if (!granted) this.show("failed", t("notify_denied"));
    this.wanted = granted && !this.wanted;
    stored(() => localStorage.setItem(NOTIFY_KEY, this.wanted ? "yes" : "no"));
    toggle.setAttribute("aria-pressed", String(this.wanted));
  }

  /**
   * Several tabs tell the same: its tag makes one notification of them.
   * @param {string} title
   * @param {string} detail
   * @param {string} tag
   * @param {() => void} open
   */
  notify(title, detail, tag, open) {
    if (!this.wanted || !document.hidden || Notification.permission !== "granted") return;
    const shown = new Notification(title, {body: detail, tag: `cron-trigger-${tag}`});
    shown.addEventListener("click", () => {
      window.focus();
      open();
      shown.close();
    });
  }
}
