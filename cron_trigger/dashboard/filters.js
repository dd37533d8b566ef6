/*
 * Which crons are shown, and in which groups.  No DOM here.
 */

import {BAD_STATUSES} from "./state.js";
import {plain} from "./words.js";

/** @typedef {import("./types.js").Cron} Cron */
/** @typedef {"failed" | "running" | "late"} Kind */

/** More crons than these stand in groups. */
export const GROUPS_FROM = 21;

/** @type {Kind[]} */
export const KINDS = ["failed", "running", "late"];

/** @type {Record<Kind, (cron: Cron) => boolean>} */
export const IS = {
  failed: (cron) => !cron.running && BAD_STATUSES.includes(cron.lastRun?.status ?? ""),
  running: (cron) => cron.running !== null,
  late: (cron) => cron.late === true,
};

/**
 * Whether a cron has all the words of the query in its name or description, and is of one of the
 * kinds, where any are chosen.
 * @param {Cron} cron
 * @param {string} query
 * @param {ReadonlySet<Kind>} kinds
 */
export function matches(cron, query, kinds) {
  if (kinds.size && ![...kinds].some((kind) => IS[kind](cron))) return false;
  const text = plain(`${cron.cronName} ${cron.description}`);
  return plain(query)
    .split(/\s+/)
    .every((word) => text.includes(word));
}

/**
 * Groups by the name's part before the first `.` or `-`, in the order of the alphabet; those who
 * are alone in theirs stand together at the end, under "".  Few crons are one group, without a
 * name (null).
 * @template {{cronName: string}} Item
 * @param {Item[]} crons
 * @returns {[string | null, Item[]][]}
 */
export function grouped(crons) {
  if (crons.length < GROUPS_FROM) return [[null, crons]];
  /** @type {Map<string, Item[]>} */
  const groups = new Map();
  for (const cron of crons) {
    const [name] = cron.cronName.split(/[.-]/, 1);
    groups.set(name, [...(groups.get(name) ?? []), cron]);
  }
  const all = [...groups].sort(([a], [b]) => a.localeCompare(b));
  const alone = all.filter(([, members]) => members.length === 1).flatMap(([, members]) => members);
  /** @type {[string | null, Item[]][]} */
  const several = all.filter(([, members]) => members.length > 1);
  if (!several.length) return [[null, crons]];
  return alone.length ? [...several, ["", alone]] : several;
}
