/*
 * Dialogs: the native ones; focus comes back by itself.  What they have in common: how they open
 * and close, that a held key or a second click of a double click does nothing in them, and that
 * Back closes them.
 */

import {setText} from "./dom.js";
import {t} from "./words.js";

const DOUBLE_CLICK_MS = 500;
const ARMED_MS = 4000;

/** A key that is held confirms nothing: neither a button, nor a form. */
export function ignoreHeldKeys() {
  document.addEventListener(
    "keydown",
    (event) => {
      const typing = event.target instanceof HTMLInputElement && event.target.type === "search";
      if (event.repeat && (event.key === "Enter" || event.key === " ") && !typing)
        event.preventDefault();
    },
    {capture: true},
  );
}

/** All outside of a modal dialog is inert and silent: what must be seen moves into the top one. */
export class Overlays {
  /** @param {HTMLElement[]} elements */
  constructor(elements) {
    this.elements = elements.map((element) => ({element, home: element.parentElement}));
    /** @type {HTMLDialogElement[]} */
    this.open = [];
  }

  /** @param {HTMLDialogElement} dialog */
  opened(dialog) {
    this.open = [...this.open.filter((other) => other !== dialog), dialog];
    this.bring();
  }

  /** @param {HTMLDialogElement} dialog */
  closed(dialog) {
    this.open = this.open.filter((other) => other !== dialog);
    this.bring();
  }

  bring() {
    const top = this.open.at(-1);
    for (const {element, home} of this.elements) {
      const place = top ?? home;
      if (place && element.parentElement !== place) place.append(element);
    }
  }
}

export class Dialog {
  /**
   * @param {HTMLDialogElement} element
   * @param {Overlays} overlays
   * @param {() => void} closed called when it closes, by whatever means
   */
  constructor(element, overlays, closed) {
    this.element = element;
    this.overlays = overlays;
    this.closed = closed;
    this.openedAt = 0;
    this.pressedOutside = false;
    element.addEventListener("click", (event) => this.guard(event), {capture: true});
    element.addEventListener("pointerdown", (event) => {
      this.pressedOutside = event.target === element;
    });
    element.addEventListener("click", (event) => this.clicked(event));
    element.addEventListener("close", () => this.left());
  }

  get isOpen() {
    return this.element.open;
  }

  /**
   * The focus goes to what is named, else to the heading: never to a button that does something.
   * @param {HTMLElement | null} [focus]
   */
  open(focus = null) {
    if (!this.element.open) {
      this.openedAt = performance.now();
      this.element.showModal();
      this.overlays.opened(this.element);
    }
    const heading = /** @type {HTMLElement | null} */ (this.element.querySelector("h2"));
    (focus ?? heading)?.focus();
  }

  close() {
    this.element.close();
  }

  left() {
    if (this.element.open) return; // the event comes later than the closing: it is open anew
    this.overlays.closed(this.element);
    this.closed();
  }

  /**
   * The second click of the double click that opened it lands in it.
   * @param {MouseEvent} event
   */
  guard(event) {
    if (event.detail < 2 || performance.now() - this.openedAt > DOUBLE_CLICK_MS) return;
    event.preventDefault();
    event.stopImmediatePropagation();
  }

  /** @param {MouseEvent} event */
  clicked(event) {
    // A selection that began inside and ended outside is no wish to close.
    if (event.target === this.element && this.pressedOutside) this.close();
    if (event.target instanceof Element && event.target.closest("[data-close]")) this.close();
  }
}

/** A button whose second press, within 4 s, means it: no dialog on top of a dialog. */
export class ArmedButton {
  /**
   * @param {HTMLButtonElement} button
   * @param {string} question a word of the dictionary
   * @param {() => void} action
   */
  constructor(button, question, action) {
    this.button = button;
    this.question = question;
    this.action = action;
    /** @type {{text: string, label: string | null, timer: number} | null} while it is armed */
    this.before = null;
    button.addEventListener("click", (event) => this.pressed(event));
  }

  /** @param {MouseEvent} event */
  pressed(event) {
    if (event.detail > 1) return; // a double click is one press
    if (!this.before) return this.arm();
    this.disarm();
    this.action();
  }

  arm() {
    const {button} = this;
    const timer = window.setTimeout(() => this.disarm(), ARMED_MS);
    this.before = {text: button.textContent ?? "", label: button.getAttribute("aria-label"), timer};
    setText(button, t(this.question));
    if (this.before.label) button.setAttribute("aria-label", `${t(this.question)} ${this.before.label}`);
  }

  /** Its words and label are again what they were. */
  disarm() {
    if (!this.before) return;
    const {text, label, timer} = this.before;
    clearTimeout(timer);
    this.before = null;
    setText(this.button, text);
    if (label) this.button.setAttribute("aria-label", label);
  }
}
