/*
 * The history as CSV (RFC 4180), for a spreadsheet.  No DOM here.
 */

/** @typedef {import("./types.js").Run} Run */

/** @type {(keyof Run)[]} */
const COLUMNS = [
  "id",
  "cronName",
  "status",
  "startedAt",
  "completedAt",
  "durationMs",
  "exitCode",
  "signal",
  "trigger",
  "requestedBy",
  "client",
  "params",
  "error",
];

/** @param {Run[]} runs */
export function csvOf(runs) {
  const lines = runs.map((run) => COLUMNS.map((column) => cell(run[column])).join(","));
  // With the byte order mark, which tells Excel that it is UTF-8.
  return `\ufeff${[COLUMNS.join(","), ...lines].join("\r\n")}\r\n`;
}

/**
 * A text that a spreadsheet would take for a formula gets an apostrophe before it (CWE-1236):
 * `requestedBy` is whatever somebody sent.
 * @param {unknown} value
 */
function cell(value) {
  if (value === null || value === undefined) return "";
  if (typeof value === "number") return String(value);
  const text = typeof value === "object" ? JSON.stringify(value) : String(value);
  const harmless = /^[=+\-@\t\r]/.test(text) ? `'${text}` : text;
  return /[",\r\n]/.test(harmless) ? `"${harmless.replaceAll('"', '""')}"` : harmless;
}
