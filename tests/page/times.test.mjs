// Durations and moments in words.

import assert from "node:assert/strict";
import {test} from "node:test";

process.env.TZ = "Europe/Paris";

const {duration, elapsed, foreignTime, isoWithOffset, localInput, nextHour, parseDuration, relativeTime, shortTime, timeInWords, zoneInWords} =
  await import("../../cron_trigger/dashboard/times.js");
const {speak} = await import("../../cron_trigger/dashboard/words.js");

const NOON = Date.parse("2026-11-24T12:00:00+01:00");
const DAY = 86400000;

test("durations are short, and exact where that matters", () => {
  speak("fr", ["fr-FR"]);
  assert.equal(duration(null), "–");
  assert.equal(duration(840), "840 ms");
  assert.equal(duration(2140), "2,1 s");
  assert.equal(duration(59400), "59 s");
  assert.equal(duration(59700), "1 min");
  assert.equal(duration(90000), "1 min 30 s");
  assert.equal(duration(7500000), "2 h 05 min");
  assert.equal(duration(3 * DAY + 4 * 3600000), "3 j 4 h");
  assert.equal(elapsed(1999), "1 s");
  assert.equal(elapsed(-5), "0 s");
});

test("months are never taken for minutes", () => {
  speak("fr", ["fr-FR"]);
  assert.equal(relativeTime(NOON + 120 * DAY, NOON), "dans 4 mois");
  assert.equal(relativeTime(NOON + 4 * 60000, NOON), "dans 4 minutes");
  assert.equal(relativeTime(NOON - DAY, NOON), "hier");
  assert.equal(relativeTime(NOON - 1000, NOON), "à l'instant");
});

test("a time is short today, with its day otherwise, with its year in another", () => {
  speak("en", ["en-GB"]);
  assert.equal(shortTime(new Date(NOON), NOON + 1000), "12:00");
  assert.equal(shortTime(new Date(NOON), NOON + DAY), "24 Nov, 12:00");
  assert.match(shortTime(new Date(NOON), NOON + 400 * DAY), /2026/);
});

test("the time zone stands in words", () => {
  speak("fr", ["fr-FR"]);
  assert.match(timeInWords(new Date(NOON)), /24 novembre 2026.*12:00.*heure normale d.Europe centrale/);
  assert.match(zoneInWords(new Date(NOON)), /^heure normale d.Europe centrale$/);
  assert.match(zoneInWords(new Date("2026-07-01T12:00:00Z")), /été/);
});

test("the host's own time is told where it differs", () => {
  assert.equal(foreignTime("2026-11-24T12:00:00+01:00"), "");
  assert.equal(foreignTime("2026-11-24T11:00:00Z"), "11:00 UTC");
  assert.equal(foreignTime("2026-11-24T06:00:00.5-05:00"), "06:00 UTC-05:00");
});

test("what is sent has the viewer's offset, at the change of the clock, too", () => {
  assert.equal(isoWithOffset(new Date(NOON)), "2026-11-24T12:00:00+01:00");
  assert.equal(isoWithOffset(new Date("2026-07-01T10:00:00Z")), "2026-07-01T12:00:00+02:00");
  assert.equal(localInput(new Date("2026-10-25T00:30:00Z")), "2026-10-25T02:30");
  assert.equal(localInput(nextHour(NOON)), "2026-11-24T13:00");
});

test("the registry's durations are read", () => {
  assert.equal(parseDuration("1m30s"), 90000);
  assert.equal(parseDuration("2h"), 7200000);
  assert.equal(parseDuration("500ms"), 500);
  assert.equal(parseDuration(null), null);
});
