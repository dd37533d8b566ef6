/*
 * A form made from a cron's parameters: one field each, as JSON Schema's words say.
 */

import {el, replace, setText} from "./dom.js";
import {isoWithOffset, zoneInWords} from "./times.js";
import {t} from "./words.js";

/** @typedef {import("./types.js").Parameter} Parameter */
/** @typedef {import("./types.js").ParameterValue} ParameterValue */
/** @typedef {HTMLInputElement | HTMLSelectElement} Control */
/** @typedef {{schema: Parameter, control: Control, error: HTMLElement}} Field */

/** @type {Record<string, string>} */
const INPUT_TYPES = {date: "date", "date-time": "datetime-local", password: "password"};

/**
 * Whether a value of it is never shown, and so can't be taken from an earlier run.
 * @param {Record<string, Parameter> | undefined} parameters
 */
export function hasSecret(parameters) {
  return Object.values(parameters ?? {}).some((schema) => schema.format === "password");
}

export class ParameterForm {
  /** @param {HTMLElement} place */
  constructor(place) {
    this.place = place;
    /** @type {Map<string, Field>} */
    this.fields = new Map();
  }

  /**
   * @param {Record<string, Parameter>} parameters
   * @param {Record<string, ParameterValue> | null} values those of an earlier run, else the
   *   defaults
   */
  show(parameters, values) {
    this.fields.clear();
    const built = Object.entries(parameters).map(([name, schema]) => {
      const value = values && schema.format !== "password" ? values[name] : schema.default;
      return this.field(name, schema, value ?? undefined);
    });
    replace(this.place, ...built);
  }

  /** @returns {Control | undefined} */
  first() {
    return this.fields.values().next().value?.control;
  }

  /**
   * @param {string} name
   * @param {Parameter} schema
   * @param {ParameterValue | undefined} value
   */
  field(name, schema, value) {
    const id = `param-${name}`;
    const control = schema.enum ? choice(schema, value) : input(schema, value);
    control.id = id;
    control.name = name;
    control.required = Boolean(schema.required);
    control.setAttribute("aria-describedby", `${id}-hint ${id}-error`);
    const error = el("p", {class: "error", id: `${id}-error`});
    this.fields.set(name, {schema, control, error});
    const hint = el("p", {class: "hint", id: `${id}-hint`}, hintOf(schema));
    return el("div", {class: "field"}, ...labelled(control, schema.title ?? name), hint, error);
  }

  /**
   * What was filled in; null after the browser's own doubts were shown.
   * @returns {Record<string, ParameterValue> | null}
   */
  read() {
    /** @type {Record<string, string>} */
    const doubts = {};
    for (const [name, {control}] of this.fields)
      if (control.validity.badInput)
        doubts[name] = t(control.type === "number" ? "not_a_number" : "not_a_date");
    this.showErrors(doubts);
    return Object.keys(doubts).length ? null : this.values();
  }

  /**
   * A field left empty is not there: the script's own default holds.
   * @returns {Record<string, ParameterValue>}
   */
  values() {
    /** @type {Record<string, ParameterValue>} */
    const values = {};
    for (const [name, {schema, control}] of this.fields) {
      const value = valueOf(control, schema);
      if (value !== undefined) values[name] = value;
    }
    return values;
  }

  /** @param {Record<string, string>} errors by parameter, in words */
  showErrors(errors) {
    for (const [name, {control, error}] of this.fields) {
      setText(error, errors[name] ?? "");
      control.setAttribute("aria-invalid", String(Boolean(errors[name])));
    }
    [...this.fields.values()].find(({error}) => error.textContent)?.control.focus();
  }
}

/**
 * @param {Control} control
 * @param {string} title
 * @returns {HTMLElement[]}
 */
function labelled(control, title) {
  const label = el("label", {for: control.id}, title);
  if (control.type === "checkbox") {
    label.classList.add("check");
    label.prepend(control);
    return [label];
  }
  if (!control.required) label.append(" ", el("small", {}, t("optional")));
  return [label, control];
}

/**
 * @param {Parameter} schema
 * @param {ParameterValue | undefined} value
 */
function input(schema, value) {
  if (schema.type === "boolean") {
    const box = el("input", {type: "checkbox"});
    box.checked = value === true;
    return box;
  }
  const numeric = schema.type === "integer" || schema.type === "number";
  const made = el("input", {
    type: numeric ? "number" : (INPUT_TYPES[schema.format ?? ""] ?? "text"),
    min: schema.minimum,
    max: schema.maximum,
    minlength: schema.minLength,
    maxlength: schema.maxLength,
    step: numeric ? (schema.type === "integer" ? 1 : "any") : null,
    autocomplete: schema.format === "password" ? "new-password" : "off",
    spellcheck: "false",
  });
  if (value !== undefined)
    made.value = schema.format === "date-time" ? isoWithOffset(new Date(String(value))).slice(0, 19) : String(value);
  return made;
}

/**
 * The value is the place in the list: an enum may hold numbers as well as strings.
 * @param {Parameter} schema
 * @param {ParameterValue | undefined} value
 */
function choice(schema, value) {
  const list = el("select");
  const choices = schema.enum ?? [];
  if (!schema.required || value === undefined)
    list.append(el("option", {value: ""}, t("none_chosen")));
  choices.forEach((each, place) => list.append(el("option", {value: place}, String(each))));
  list.value = value === undefined ? "" : String(choices.indexOf(value));
  return list;
}

/**
 * @param {Control} control
 * @param {Parameter} schema
 * @returns {ParameterValue | undefined}
 */
function valueOf(control, schema) {
  if (control instanceof HTMLInputElement && control.type === "checkbox") return control.checked;
  if (control.value === "") return undefined;
  if (schema.enum) return schema.enum[Number(control.value)];
  if (control.type === "number") return Number(control.value);
  if (control.type === "datetime-local") return isoWithOffset(new Date(control.value));
  return control.value;
}

/** @param {Parameter} schema */
function hintOf(schema) {
  const bounds = boundsOf(schema.minimum, schema.maximum, "between", "at_least", "at_most");
  const lengths = boundsOf(
    schema.minLength,
    schema.maxLength,
    "length_between",
    "length_least",
    "length_most",
  );
  const zone = schema.format === "date-time" ? t("zone", {zone: zoneInWords()}) : "";
  return [schema.description, bounds, lengths, zone].filter(Boolean).join(" · ");
}

/**
 * @param {number | undefined} min
 * @param {number | undefined} max
 * @param {string} both
 * @param {string} least
 * @param {string} most
 */
function boundsOf(min, max, both, least, most) {
  if (min !== undefined && max !== undefined) return t(both, {min, max});
  if (min !== undefined) return t(least, {min});
  return max === undefined ? "" : t(most, {max});
}
