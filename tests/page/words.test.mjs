// The page's language, its words and its numbers.

import assert from "node:assert/strict";
import {test} from "node:test";

import {DICTIONARY} from "../../cron_trigger/dashboard/dictionary.js";
import {chooseLanguage, locale, number, plain, speak, t} from "../../cron_trigger/dashboard/words.js";

test("the first of the browser's languages that the page has decides", () => {
  assert.equal(chooseLanguage(["fr-FR"]), "fr");
  assert.equal(chooseLanguage(["ar-TN", "fr-FR"]), "fr");
  assert.equal(chooseLanguage(["de-DE"]), "en");
  assert.equal(chooseLanguage(["de-DE", "en-GB", "fr-FR"]), "en");
  assert.equal(chooseLanguage([]), "en");
});

test("what was chosen on the page comes before the browser's languages", () => {
  assert.equal(chooseLanguage(["fr-FR"], "en"), "en");
  assert.equal(chooseLanguage(["fr-FR"], "xx"), "fr");
});

test("dates and numbers are those of the viewer's region", () => {
  speak("en", ["en-GB", "en-US"]);
  assert.equal(locale(), "en-GB");
  speak("en", ["de-DE", "de", "en-US", "en"]);
  assert.equal(locale(), "en-DE");
  speak("en", ["de", "en"]);
  assert.equal(locale(), "en-DE");
  speak("fr", ["ar-TN", "fr-FR"]);
  assert.equal(locale(), "fr-FR");
  speak("fr", ["en-GB"]);
  assert.equal(locale(), "fr");
  assert.match(number(12345.5), /^12\s345,5$/u);
});

test("holes are filled, and the plural is that of the language", () => {
  speak("fr");
  assert.equal(t("log_lines", {n: 0}), "0 ligne");
  assert.equal(t("log_lines", {n: 2}), "2 lignes");
  speak("en");
  assert.equal(t("log_lines", {n: 0}), "0 lines");
  assert.equal(t("exit", {code: "2"}), "exit 2");
  assert.throws(() => t("no_such_word"), /no_such_word/);
});

test("every word has the same holes in both languages", () => {
  const holes = (text) => [...new Set(text.match(/\{\w+\}/g) ?? [])].filter((hole) => hole !== "{n}").sort();
  for (const [key, [french, english]] of Object.entries(DICTIONARY))
    assert.deepEqual(holes(french), holes(english), key);
});

test("case and accents do not matter in a search", () => {
  assert.equal(plain("Sauvegardé à l'ÉTÉ"), "sauvegarde a l'ete");
});
