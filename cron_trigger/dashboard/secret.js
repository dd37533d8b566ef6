/*
 * The secret: asked for where the server wants one, kept for this tab only.  Who closes the
 * dialog without it finds a button in the crons' place that opens it again.
 */

import {Dialog} from "./dialogs.js";
import {buttonById, byId, dialogById, inputById, setText} from "./dom.js";
import {rememberSecret} from "./early.js";
import {SECOND_MS} from "./units.js";
import {t} from "./words.js";

/** @typedef {import("./server.js").ServerError} ServerError */

const WAIT_S = 60;

export class Secret {
  /**
   * @param {import("./server.js").Server} server
   * @param {import("./dialogs.js").Overlays} overlays
   * @param {{dismissed: () => void, entered: () => void}} listener
   */
  constructor(server, overlays, listener) {
    this.server = server;
    this.listener = listener;
    this.timer = 0;
    this.dialog = new Dialog(dialogById("secret-dialog"), overlays, () => this.closed());
    this.submit = buttonById("secret-submit");
    byId("secret-form").addEventListener("submit", (event) => this.submitted(event));
    buttonById("forget").addEventListener("click", () => {
      this.keep("");
      location.reload();
    });
    buttonById("forget").hidden = !server.secret;
  }

  /**
   * Whether the problem is a missing or wrong secret; the dialog is then open.  Others' wrong
   * tries (429) are no reason where this tab's secret was found right.
   * @param {ServerError} problem
   */
  isAskedFor(problem) {
    if (!problem.wantsSecret || (problem.status === 429 && this.server.accepted)) return false;
    const tooMany = problem.code === "too_many_attempts";
    const wait = tooMany ? problem.retryAfterS || WAIT_S : 0;
    // Several requests are refused at once: only the first one had the secret.
    if (this.server.secret || !this.dialog.isOpen)
      this.tell(!tooMany && this.server.secret ? t("secret_wrong") : "");
    if (problem.status === 401) this.keep("");
    if (wait || !this.timer) this.hold(wait);
    this.open();
    return true;
  }

  open() {
    this.dialog.open(inputById("secret"));
    inputById("secret").select();
  }

  /** @param {string} words */
  tell(words) {
    setText(byId("secret-error"), words);
    inputById("secret").setAttribute("aria-invalid", String(Boolean(words)));
  }

  /**
   * Count down before another try is of use.
   * @param {number} seconds
   */
  hold(seconds) {
    clearTimeout(this.timer);
    this.timer = 0;
    this.submit.disabled = seconds > 0;
    if (seconds <= 0) return;
    this.tell(t("secret_wait", {seconds}));
    this.timer = window.setTimeout(() => {
      if (seconds <= 1) this.tell("");
      this.hold(seconds - 1);
    }, SECOND_MS);
  }

  /** @param {Event} event */
  submitted(event) {
    event.preventDefault();
    const entered = inputById("secret").value.trim();
    if (!entered || this.submit.disabled) return;
    this.keep(entered);
    inputById("secret").value = "";
    this.tell("");
    this.dialog.close();
    this.listener.entered();
  }

  closed() {
    if (!this.server.secret) this.listener.dismissed();
  }

  /** @param {string} value */
  keep(value) {
    this.server.secret = value;
    rememberSecret(value);
    buttonById("forget").hidden = !value;
  }
}
