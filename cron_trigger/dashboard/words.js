/*
 * The page's language: which one, its words, its numbers.  No DOM here, so Node can test it.
 * Words come from dictionary.js; `t` fills their holes and chooses the plural.
 */

import {DICTIONARY} from "./dictionary.js";

/** @typedef {"fr" | "en"} Language */
/** @typedef {Record<string, string | number>} Values */

/** @type {Language[]} */
export const LANGUAGES = ["fr", "en"];

/** What is spoken now; changed by `speak` alone. */
const spoken = {language: /** @type {Language} */ ("en"), tags: /** @type {string[]} */ (["en"])};

/**
 * The viewer's choice, else the first of the browser's languages that the page has, else English.
 * @param {readonly string[]} tags `navigator.languages`, in the viewer's order
 * @param {string | null} chosen what was chosen here earlier
 * @returns {Language}
 */
export function chooseLanguage(tags, chosen = null) {
  const wanted = [chosen ?? "", ...tags].map((tag) => tag.toLowerCase().split("-")[0]);
  const known = wanted.find((tag) => LANGUAGES.some((language) => language === tag));
  return known === "fr" ? "fr" : "en";
}

/**
 * @param {Language} language
 * @param {readonly string[]} tags
 */
export function speak(language, tags = []) {
  spoken.language = language;
  spoken.tags = [...tags];
}

/** @returns {Language} */
export function language() {
  return spoken.language;
}

/** @returns {Language} */
export function otherLanguage() {
  return spoken.language === "fr" ? "en" : "fr";
}

/**
 * The page's language as this viewer's region writes it: en-GB has other dates than en-US.  Who
 * gets English for want of their own language keeps their region: a German browser's `en-US`, last
 * in its list, says what its user can read, not that their clock has twelve hours.
 */
export function locale() {
  const {language, tags} = spoken;
  const own = tags.find((each) => each.toLowerCase().startsWith(language));
  if (language !== "en" || !tags.length || own === tags[0]) return own ?? language;
  const {region} = new Intl.Locale(tags[0]).maximize();
  return region ? `${language}-${region}` : language;
}

/**
 * @param {string} key
 * @param {Values} [values] for the holes; `n` chooses the plural
 * @returns {string}
 */
export function t(key, values = {}) {
  const entry = DICTIONARY[key];
  if (!entry) throw new Error(`no words for ${key}`);
  return filled(pluralOf(entry[LANGUAGES.indexOf(spoken.language)], values.n), values);
}

/**
 * @param {string} words
 * @param {string | number | undefined} n
 */
function pluralOf(words, n) {
  if (!words.includes("|")) return words;
  const [one, many] = words.split("|");
  return new Intl.PluralRules(spoken.language).select(Number(n)) === "one" ? one : many;
}

/**
 * @param {string} words
 * @param {Values} values
 */
function filled(words, values) {
  return words.replace(/\{(\w+)\}/g, (_, name) => {
    const value = values[name] ?? "";
    return typeof value === "number" ? number(value) : value;
  });
}

/**
 * @param {number} value
 * @param {Intl.NumberFormatOptions} [options]
 */
export function number(value, options) {
  return new Intl.NumberFormat(locale(), options).format(value);
}

/** @param {number} size in bytes */
export function bytes(size) {
  const units = ["byte", "kilobyte", "megabyte", "gigabyte", "terabyte"];
  const power = size < 1 ? 0 : Math.min(4, Math.floor(Math.log10(size) / 3));
  return number(size / 1000 ** power, {
    style: "unit",
    unit: units[power],
    maximumFractionDigits: 1,
  });
}

/**
 * Case and accents do not matter to someone who searches at 3 a.m.
 * @param {string} text
 */
export function plain(text) {
  return text.normalize("NFD").replace(/\p{M}/gu, "").toLowerCase();
}
