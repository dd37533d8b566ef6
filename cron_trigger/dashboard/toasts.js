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
   * @param {(id: number) => void} openRun
   */
  constructor(titleOf, openRun) {
    this.place = byId("toasts");
    this.titleOf = titleOf;
    this.openRun = openRun;
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
    const status = t(`status_${run.status}`);
    const title = t("ended_told", {cron: this.titleOf(run.cronName), status});
    const after = run.durationMs === null ? "" : t("ended_after", {duration: duration(run.durationMs)});
    const detail = [outcome(run), after].filter(Boolean).join(" · ");
    this.show(run.status, title, detail, () => this.openRun(run.id));
    this.notify(title, detail, run);
  }

  /**
   * @param {string} status
   * @param {string} title
   * @param {string} [detail]
   * @param {(() => void) | null} [open]
   */
  show(status, title, detail = "", open = null) {
    const words = el("button", {type: "button", class: "link"}, statusElement(status, title));
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
   * Several tabs tell the same run: its tag makes one notification of them.
   * @param {string} title
   * @param {string} detail
   * @param {Run} run
   */
  notify(title, detail, run) {
    if (!this.wanted || !document.hidden || Notification.permission !== "granted") return;
    const shown = new Notification(title, {body: detail, tag: `cron-trigger-run-${run.id}`});
    shown.addEventListener("click", () => {
      window.focus();
      this.openRun(run.id);
      shown.close();
    });
  }
}
