/*
 * Elements: found, made, filled.  Text from the server is only ever textContent; nothing here
 * parses markup, and no element carries the page's state (it lives in the modules' objects).
 */

import {t} from "./words.js";

const SVG = "http://www.w3.org/2000/svg";

/** @typedef {Record<string, string | number | boolean | null | undefined>} Attributes */
/** @typedef {Node | string | null | undefined | false} Child */

/**
 * An element of index.html; a missing one is a fault of the page.
 * @param {string} id
 * @returns {HTMLElement}
 */
export function byId(id) {
  const found = document.getElementById(id);
  if (!found) throw new Error(`no element ${id}`);
  return found;
}

/** @param {string} id */
export const inputById = (id) => /** @type {HTMLInputElement} */ (byId(id));
/** @param {string} id */
export const selectById = (id) => /** @type {HTMLSelectElement} */ (byId(id));
/** @param {string} id */
export const buttonById = (id) => /** @type {HTMLButtonElement} */ (byId(id));
/** @param {string} id */
export const dialogById = (id) => /** @type {HTMLDialogElement} */ (byId(id));

/**
 * el("span", {class: "x", title: "y"}, "text", child)
 * @template {keyof HTMLElementTagNameMap} Tag
 * @param {Tag} tag
 * @param {Attributes} [attributes] those that are null, undefined or false are left out
 * @param {Child[]} children
 * @returns {HTMLElementTagNameMap[Tag]}
 */
export function el(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  fill(element, attributes, children);
  return element;
}

/**
 * @template {keyof SVGElementTagNameMap} Tag
 * @param {Tag} tag
 * @param {Attributes} [attributes]
 * @param {Child[]} children
 * @returns {SVGElementTagNameMap[Tag]}
 */
export function svg(tag, attributes = {}, ...children) {
  const element = document.createElementNS(SVG, tag);
  fill(element, attributes, children);
  return /** @type {SVGElementTagNameMap[Tag]} */ (element);
}

/**
 * @param {Element} element
 * @param {Attributes} attributes
 * @param {Child[]} children
 */
function fill(element, attributes, children) {
  setAttributes(element, attributes);
  element.append(...shown(children));
}

/**
 * @param {Child[]} children
 * @returns {(Node | string)[]}
 */
function shown(children) {
  return /** @type {(Node | string)[]} */ (children.filter(Boolean));
}

/**
 * @param {Element} element
 * @param {Attributes} attributes
 */
export function setAttributes(element, attributes) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) element.removeAttribute(name);
    else element.setAttribute(name, String(value));
  }
}

/**
 * @param {Element} element
 * @param {Child[]} children
 */
export function replace(element, ...children) {
  element.replaceChildren(...shown(children));
}

/**
 * A button that acts on click.
 * @param {string} words
 * @param {(event: MouseEvent) => void} action
 * @param {Attributes} [attributes]
 */
export function button(words, action, attributes = {}) {
  const made = el("button", {type: "button", class: "button", ...attributes}, words);
  made.addEventListener("click", action);
  return made;
}

/**
 * Write only what differs, so that a selection or a focus stays where it is.
 * @param {Element} element
 * @param {string} text
 */
export function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/**
 * Fill in what stands in the HTML.
 * @param {ParentNode} root
 */
export function translate(root) {
  for (const element of root.querySelectorAll("[data-t]"))
    setText(element, t(element.getAttribute("data-t") ?? ""));
  for (const element of root.querySelectorAll("[data-t-label]"))
    element.setAttribute("aria-label", t(element.getAttribute("data-t-label") ?? ""));
  for (const element of root.querySelectorAll("[data-t-placeholder]"))
    element.setAttribute("placeholder", t(element.getAttribute("data-t-placeholder") ?? ""));
}

/**
 * A calm panel for what is empty or failed: a title, what it means, what to do next.
 * @param {HTMLElement} panel
 * @param {string} title
 * @param {string} [hint]
 * @param {HTMLElement[]} actions
 */
export function showPanel(panel, title, hint = "", ...actions) {
  const parts = [title && el("strong", {}, title), hint && el("span", {}, hint)];
  replace(panel, ...parts, actions.length > 0 && el("div", {}, ...actions));
  panel.hidden = false;
}

/**
 * A browser may refuse storage altogether; the page then simply forgets.
 * @template Value
 * @param {() => Value} action
 * @returns {Value | null}
 */
export function stored(action) {
  try {
    return action();
  } catch {
    return null;
  }
}

/**
 * The clipboard of today needs a secure context; http://host:9998 is none, so the old way, by a
 * selection, too.
 * @param {string} text
 * @param {HTMLElement} place where a selection may be made: inside the open dialog
 * @returns {Promise<boolean>} whether it was copied
 */
export async function copyText(text, place) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    return copySelected(text, place);
  }
}

/**
 * @param {string} text
 * @param {HTMLElement} place
 */
function copySelected(text, place) {
  const before = document.activeElement;
  const area = el("textarea", {class: "visually-hidden", readonly: "", "aria-hidden": "true"});
  area.value = text;
  place.append(area);
  area.select();
  const done = document.execCommand("copy");
  area.remove();
  if (before instanceof HTMLElement) before.focus();
  return done;
}

/**
 * Hand a file to the browser's downloads.
 * @param {Blob} blob
 * @param {string} name
 */
export function download(blob, name) {
  const address = URL.createObjectURL(blob);
  el("a", {href: address, download: name}).click();
  setTimeout(() => URL.revokeObjectURL(address), 60000);
}
