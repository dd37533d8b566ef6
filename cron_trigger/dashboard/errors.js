/*
 * What went wrong, in the page's language: made from the answer's `code` and values, and for a
 * script that could not start, or a parameter, from what is known of it.  A sentence of the
 * server's stands only where nothing else is known.  No DOM here.
 */

import {language, number, t} from "./words.js";

/** @typedef {import("./server.js").ServerError} ServerError */
/** @typedef {import("./types.js").Parameter} Parameter */
/** @typedef {import("./types.js").ParameterValue} ParameterValue */

/** @type {Record<string, string>} codes whose words need no values */
const WORDS_OF_CODE = {
  already_running: "already_running",
  forbidden: "forbidden",
  internal_error: "server_fault",
  not_found: "not_found",
  not_running: "not_running",
  too_many_scheduled: "too_many_plans",
  unknown_cron: "unknown_cron",
};

/** @param {ServerError} problem */
export function problemWords(problem) {
  const seconds = problem.retryAfterS || 10;
  if (problem.status === 0) return t("no_answer");
  if (problem.code === "misdirected_request") return t("misdirected", {host: location.host});
  if (problem.code === "launch_failed") return serverWords(problem.message);
  if (problem.code === "shutting_down") return t("shutting_down", {seconds});
  if (problem.code in WORDS_OF_CODE) return t(WORDS_OF_CODE[problem.code]);
  if ([429, 502, 503, 504].includes(problem.status)) return t("busy", {seconds});
  const refused = t("refused", {status: String(problem.status)});
  return problem.message ? `${refused} ${t("server_said", {error: problem.message})}` : refused;
}

/** @type {[RegExp, string][]} the server's sentences on a script that can't start, and their words */
const SCRIPT_SENTENCES = [
  [/script (?<path>\/\S+?) is missing/, "script_missing"],
  [/script (?<path>\/\S+?) is not executable/, "script_mode"],
  [/(?:script|program) (?<path>\/\S+?) is not a file/, "script_folder"],
  [/first line of its script (?<path>\/\S+?) ends as/, "script_lines"],
  [/script (?<path>\/\S+?) asks for the interpreter "(?<other>[^"]+)"/, "script_interpreter"],
  [/(?<path>\/\S+?) is not safe/, "script_unsafe"],
  [/(?:^|: )(?<path>[\w.-]+), which runs \S+, is not on PATH/, "script_tool"],
  [/program "(?<path>[^"]+)" is not installed/, "script_program"],
  [/script (?<path>\/\S+?) is executable, but lies/, "script_noexec"],
  [/(?:script|folder) (?<path>\/\S+?) can(?:not|'t) be reached/, "script_reach"],
  [/there is no user "(?<path>[^"]+)"/, "script_user"],
  [/only a server of root can run it as user "(?<path>[^"]+)"/, "script_root"],
  [/(?:its folder|folder of its log) (?:is missing: mkdir -p )?(?<path>\/[^\s:]+)/, "script_directory"],
  [/needs tsx/, "script_typescript"],
  [/output was not kept/, "script_output"],
  [/keeper was killed/, "keeper_killed"],
  [/\b(?:went down|server (?:was )?stopped|host (?:was )?restarted)\b/, "restarted"],
];

/**
 * A sentence of the server's about a script, in the page's language; as it is where unknown.
 * @param {string} sentence
 */
export function serverWords(sentence) {
  if (language() === "en") return sentence;
  for (const [pattern, key] of SCRIPT_SENTENCES) {
    const found = sentence.match(pattern);
    if (found) return t(key, {path: found.groups?.path ?? "", other: found.groups?.other ?? ""});
  }
  return t("server_said", {error: sentence});
}

/** @type {[RegExp, string][]} the server's reasons for a parameter, and their words */
const REASONS = [
  [/^is required/, "bad_required"],
  [/^must be at least (?<limit>\S+), got (?<value>.+)$/, "bad_minimum"],
  [/^must be at most (?<limit>\S+), got (?<value>.+)$/, "bad_maximum"],
  [/^must have at least (?<limit>\S+) characters, got (?<value>.+)$/, "bad_short"],
  [/^must have at most (?<limit>\S+) characters, got (?<value>.+)$/, "bad_long"],
  [/^must match the pattern (?<limit>.+)$/, "bad_pattern"],
  [/^expected one of (?<limit>.+), got /, "bad_enum"],
  [/^expected an? integer/, "bad_integer"],
  [/^expected an? number/, "bad_number"],
  [/^must not begin with "-"/, "bad_option"],
  [/control character/, "bad_control"],
  [/date-time|date and time|offset/, "bad_time"],
  [/\bdate\b/, "bad_date"],
  [/is not a parameter/, "bad_unknown"],
];

/**
 * Why a value was refused: from its definition, which the page knows, else from the server's
 * words for it.
 * @param {Parameter | undefined} schema
 * @param {ParameterValue | undefined} value what was sent
 * @param {string} reason the server's
 */
export function reasonWords(schema, value, reason) {
  const known = schema && faultOf(schema, value);
  if (known) return known;
  for (const [pattern, key] of REASONS) {
    const found = reason.match(pattern);
    if (found) return t(key, {limit: found.groups?.limit ?? "", value: found.groups?.value ?? ""});
  }
  return language() === "en" ? reason : t("server_said", {error: reason});
}

/**
 * @param {Parameter} schema
 * @param {ParameterValue | undefined} value
 * @returns {string | null}
 */
function faultOf(schema, value) {
  if (value === undefined || value === "") return schema.required ? t("bad_required") : null;
  if (schema.enum && !schema.enum.includes(value))
    return t("bad_enum", {limit: schema.enum.map(String).join(", ")});
  return typeof value === "number" ? numberFault(schema, value) : textFault(schema, String(value));
}

/**
 * @param {Parameter} schema
 * @param {number} value
 */
function numberFault({type, minimum, maximum}, value) {
  if (type === "integer" && !Number.isInteger(value)) return t("bad_integer");
  if (minimum !== undefined && value < minimum)
    return t("bad_minimum", {limit: minimum, value: number(value)});
  if (maximum !== undefined && value > maximum)
    return t("bad_maximum", {limit: maximum, value: number(value)});
  return null;
}

/**
 * Lengths in characters, as the server counts them, not in UTF-16 units.
 * @param {Parameter} schema
 * @param {string} value
 */
function textFault({minLength, maxLength, pattern, enum: choices}, value) {
  const length = [...value].length;
  if (minLength !== undefined && length < minLength)
    return t("bad_short", {limit: minLength, value: length});
  if (maxLength !== undefined && length > maxLength)
    return t("bad_long", {limit: maxLength, value: length});
  if (value.startsWith("-") && !pattern && !choices) return t("bad_option");
  return null;
}
