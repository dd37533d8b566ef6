/*
 * Durations and moments in words.  Humanised in view, exact in the tooltip, and wherever a time
 * is typed or shown on hover the time zone is named.  No DOM here; who calls says what "now" is.
 */

import {DAY_MS, HOUR_MS, MINUTE_MS, SECOND_MS} from "./units.js";
import {locale, number, t} from "./words.js";

/** @param {number} value */
const two = (value) => String(Math.trunc(Math.abs(value))).padStart(2, "0");

/**
 * 840 ms · 2,1 s · 1 min 30 s · 2 h 05 min · 3 j 4 h
 * @param {number | null | undefined} ms
 */
export function duration(ms) {
  if (ms === null || ms === undefined) return "–";
  if (ms < SECOND_MS) return `${Math.round(ms)} ms`;
  if (ms < 9950) return `${number(ms / SECOND_MS, {maximumFractionDigits: 1})} s`;
  if (ms < MINUTE_MS - 500) return `${Math.round(ms / SECOND_MS)} s`;
  return longDuration(Math.round(ms / SECOND_MS));
}

/** @param {number} seconds */
function longDuration(seconds) {
  const minutes = Math.floor(seconds / 60);
  const hours = Math.floor(minutes / 60);
  if (minutes < 60)
    return seconds % 60 ? `${minutes} min ${two(seconds % 60)} s` : `${minutes} min`;
  if (hours < 24) return minutes % 60 ? `${hours} h ${two(minutes % 60)} min` : `${hours} h`;
  return `${Math.floor(hours / 24)} ${t("day_short")} ${hours % 24} h`;
}

/**
 * Whole seconds only: a running clock with tenths would flicker.
 * @param {number} ms
 */
export function elapsed(ms) {
  const seconds = Math.max(0, Math.floor(ms / SECOND_MS));
  return seconds < 60 ? `${seconds} s` : longDuration(seconds);
}

/** @param {number | null | undefined} ms */
export function exactDuration(ms) {
  return ms === null || ms === undefined ? "" : `${number(ms)} ms`;
}

/**
 * The registry's `1m30s`, in milliseconds; null where there is none.
 * @param {string | null | undefined} text
 * @returns {number | null}
 */
export function parseDuration(text) {
  /** @type {Record<string, number>} */
  const units = {d: DAY_MS, h: HOUR_MS, m: MINUTE_MS, s: SECOND_MS, ms: 1};
  let total = null;
  for (const [, amount, unit] of (text ?? "").matchAll(/([\d.]+)\s*(ms|[dhms])/g)) {
    total = (total ?? 0) + Number(amount) * units[unit];
  }
  return total;
}

/** @type {[number, Intl.RelativeTimeFormatUnit, number][]} below this size, that unit */
const RELATIVE_UNITS = [
  [50 * MINUTE_MS, "minute", MINUTE_MS],
  [22 * HOUR_MS, "hour", HOUR_MS],
  [50 * DAY_MS, "day", DAY_MS],
  [600 * DAY_MS, "month", 30.44 * DAY_MS],
  [Infinity, "year", 365.25 * DAY_MS],
];

/**
 * il y a 5 minutes · dans 2 heures.  Written out: "dans 4 m." could be minutes or months.
 * @param {number} atMs
 * @param {number} nowMs
 */
export function relativeTime(atMs, nowMs) {
  const ms = atMs - nowMs;
  const size = Math.abs(ms);
  if (size < 45 * SECOND_MS) return t("just_now");
  const [, unit, unitMs] = RELATIVE_UNITS.find(([below]) => size < below) ?? RELATIVE_UNITS[4];
  const formatter = new Intl.RelativeTimeFormat(locale(), {
    numeric: unit === "day" ? "auto" : "always",
  });
  return formatter.format(Math.round(ms / unitMs), unit);
}

/**
 * The hour alone today, the day with it otherwise.
 * @param {Date} date
 * @param {number} nowMs
 */
export function shortTime(date, nowMs) {
  const now = new Date(nowMs);
  /** @type {Intl.DateTimeFormatOptions} */
  const parts = {hour: "2-digit", minute: "2-digit"};
  if (date.toDateString() !== now.toDateString())
    Object.assign(parts, {day: "numeric", month: "short"});
  if (date.getFullYear() !== now.getFullYear()) parts.year = "numeric";
  return new Intl.DateTimeFormat(locale(), parts).format(date);
}

/** @type {Intl.DateTimeFormatOptions} */
const IN_WORDS = {
  weekday: "long",
  day: "numeric",
  month: "long",
  year: "numeric",
  hour: "2-digit",
  minute: "2-digit",
  timeZoneName: "long",
};

/**
 * mardi 24 novembre 2026 à 14:30:05 heure normale d'Europe centrale
 * @param {Date} date
 */
export function fullTime(date) {
  return new Intl.DateTimeFormat(locale(), {...IN_WORDS, second: "2-digit"}).format(date);
}

/**
 * What is shown back before a plan is sent.
 * @param {Date} date
 */
export function timeInWords(date) {
  return new Intl.DateTimeFormat(locale(), IN_WORDS).format(date);
}

/** @param {Date} date */
export function clockTime(date) {
  return new Intl.DateTimeFormat(locale(), {
    hour: "2-digit",
    minute: "2-digit",
    second: "2-digit",
  }).format(date);
}

/**
 * The viewer's time zone in words: heure normale d'Europe centrale.
 * @param {Date} [date] the name depends on the season
 */
export function zoneInWords(date = new Date()) {
  const parts = new Intl.DateTimeFormat(locale(), {timeZoneName: "long"}).formatToParts(date);
  return parts.find((part) => part.type === "timeZoneName")?.value ?? "UTC";
}

/**
 * The wall clock and offset that stand in an ISO time, where the viewer's own differ; else "".
 * @param {string} iso 2026-11-24T14:30:00+01:00
 */
export function foreignTime(iso) {
  const [, wall, offset] = iso.match(/T(\d\d:\d\d)\S*?(Z|[+-]\d\d:\d\d)$/) ?? [];
  if (!wall || offset === offsetOf(new Date(iso))) return "";
  return `${wall} ${offset === "Z" ? "UTC" : `UTC${offset}`}`;
}

/** @param {Date} date */
function offsetOf(date) {
  const offset = -date.getTimezoneOffset();
  return `${offset < 0 ? "-" : "+"}${two(offset / 60)}:${two(offset % 60)}`;
}

/**
 * ISO 8601 with the viewer's own offset: 2026-11-24T14:30:00+01:00.
 * @param {Date} date
 */
export function isoWithOffset(date) {
  return `${localInput(date)}:${two(date.getSeconds())}${offsetOf(date)}`;
}

/**
 * The value of a `datetime-local` input.
 * @param {Date} date
 */
export function localInput(date) {
  const day = `${String(date.getFullYear()).padStart(4, "0")}-${two(date.getMonth() + 1)}-${two(date.getDate())}`;
  return `${day}T${two(date.getHours())}:${two(date.getMinutes())}`;
}

/**
 * The next full hour that is at least five minutes away: what a plan begins with.
 * @param {number} nowMs
 */
export function nextHour(nowMs) {
  return new Date(Math.ceil((nowMs + 5 * MINUTE_MS) / HOUR_MS) * HOUR_MS);
}
