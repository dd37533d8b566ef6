/*
 * Asks for the crons while the other modules are still on their way: with hundreds of crons this
 * is the longest of the page's answers, and the first that is shown.  main.js takes it from here.
 */

import {Server} from "./server.js";

const SECRET_KEY = "cron-trigger-secret";

/** Kept for this tab only; a browser may refuse storage altogether. */
function rememberedSecret() {
  try {
    return sessionStorage.getItem(SECRET_KEY) ?? "";
  } catch {
    return "";
  }
}

/** The secret of this tab; undefined or "" forgets it. @param {string} [secret] */
export function rememberSecret(secret) {
  try {
    if (secret) sessionStorage.setItem(SECRET_KEY, secret);
    else sessionStorage.removeItem(SECRET_KEY);
  } catch {
    // Then it is asked for again after a reload.
  }
}

export const server = new Server(rememberedSecret());

/** @type {Promise<any>} */
export const firstCrons = server.getJson("crons");
firstCrons.catch(() => {}); // awaited later; till then its failure is nobody's
