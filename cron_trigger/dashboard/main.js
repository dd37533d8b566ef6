/*
 * Where the page is put together: each part is made here, once, and given what it needs.
 *
 *   connection -> state -> cards, summary, plans, history        what the server says, shown
 *   cards, history, plans -> trigger, run view -> actions        what a person does, sent
 */

import {Actions} from "./actions.js";
import {Address} from "./address.js";
import {Cards} from "./cards.js";
import {Connection} from "./connection.js";
import {Overlays, ignoreHeldKeys} from "./dialogs.js";
import {buttonById, byId, inputById, setText, stored, translate} from "./dom.js";
import {firstCrons, server} from "./early.js";
import {History} from "./history.js";
import {Past} from "./past.js";
import {Plans} from "./plans.js";
import {RunView} from "./run-view.js";
import {Secret} from "./secret.js";
import {State} from "./state.js";
import {LiveTimes} from "./status.js";
import {Summary} from "./summary.js";
import {Toasts} from "./toasts.js";
import {TriggerDialog} from "./trigger.js";
import {chooseLanguage, language, otherLanguage, speak, t} from "./words.js";

const LANGUAGE_KEY = "cron-trigger-language";
const TICK_MS = 1000;
const OVERDUE_TICKS = 20;

/** @param {import("./words.js").Language} spoken */
function useLanguage(spoken) {
  speak(spoken, navigator.languages);
  document.documentElement.lang = spoken;
  buttonById("language").lang = otherLanguage();
  setText(buttonById("language"), t("other_language"));
  translate(document);
}

function start() {
  useLanguage(chooseLanguage(navigator.languages, stored(() => localStorage.getItem(LANGUAGE_KEY))));
  ignoreHeldKeys();

  const state = new State();
  const times = new LiveTimes(() => server.now());
  const overlays = new Overlays([byId("toasts"), byId("announcer")]);
  const openRun = (/** @type {number} */ id) =>
    trigger.dialog.isOpen ? trigger.follow(id) : runView.open(id);
  const toasts = new Toasts((name) => state.titleOf(name), {
    run: openRun,
    cron: (name) => cards.goTo(name),
  });
  const address = new Address((place) => {
    if (place.run === null) {
      trigger.close();
      runView.close();
    } else openRun(place.run);
    history.reload();
  });
  const secret = new Secret(server, overlays, {
    entered: () => connection.wake("load"),
    dismissed: () => cards.showSecretNeeded(),
  });
  const connection = new Connection(server, state, firstCrons, {
    loadHistory: () => history.loadShown().then(() => history.renderSoon()),
    showFailure: () => cards.showFailure(),
    showOffline: (next) => summary.showOffline(next),
    asksForSecret: (problem) => secret.isAskedFor(problem),
    announce: (text) => toasts.announce(text),
  });
  const actions = new Actions(server, state, (runId) => connection.acted(runId));
  const openTrigger = (/** @type {string} */ name, opening = {}) => {
    trigger.open(name, opening);
    const cron = state.cron(name);
    if (cron?.running && !cron.running.id) connection.loadCron(name); // no event tells its end
  };
  const toHistory = (/** @type {string} */ name) => history.goTo(name);
  const cards = new Cards(
    state,
    times,
    {trigger: openTrigger, run: openRun, history: toHistory},
    {
      retry: () => connection.wake("load"),
      askSecret: () => secret.open(),
      announce: (text) => toasts.announce(text),
    },
  );
  const summary = new Summary(state);
  new Plans(state, actions, times, toasts, secret, {run: openRun, trigger: openTrigger});
  const past = new Past(server, address.place);
  const history = new History(state, past, address, times, toasts, secret, openRun);
  const trigger = new TriggerDialog(state, actions, overlays, secret, address, openRun);
  const runView = new RunView(state, actions, overlays, secret, address, times, toasts, {
    toCron: (name) => cards.goTo(name),
    toHistory,
    toTrigger: openTrigger,
  });

  state.on("started", (run) => toasts.announce(t("started_told", {cron: state.titleOf(run.cronName)})));
  state.on("ended", (run) => toasts.tellEnd(run));
  state.on("late", (cron) => toasts.tellLate(cron));
  openNamedRun(state, address.place.run, openRun);
  listen(cards, history, connection);
  switchable(() => {
    cards.translate();
    state.tell("plans", null);
    state.tell("connection", null);
    history.render();
    summary.render();
  });
  tick(times, cards, connection);
  connection.run();
}

/**
 * The run that the address names, once the page knows the crons.
 * @param {State} state
 * @param {number | null} run
 * @param {(id: number) => void} openRun
 */
function openNamedRun(state, run, openRun) {
  let toOpen = run;
  state.on("all", () => {
    const id = toOpen;
    toOpen = null;
    if (id !== null) openRun(id);
  });
}

/**
 * @param {Cards} cards
 * @param {History} history
 * @param {Connection} connection
 */
function listen(cards, history, connection) {
  buttonById("retry").addEventListener("click", () => connection.wake("load"));
  byId("to-crons").addEventListener("click", () => go("crons-title"));
  byId("to-history").addEventListener("click", () => history.show());
  byId("to-plans").addEventListener("click", () => go("planned-title"));
  document.addEventListener("keydown", (event) => {
    const typing = event.target instanceof Element && event.target.closest("input, select, textarea, dialog");
    if (typing || event.ctrlKey || event.altKey || event.metaKey || event.repeat) return;
    if (event.key === "/") inputById("search").focus();
    else if (event.key === "h") history.show();
    else return;
    event.preventDefault();
  });
}

/** @param {string} id of a heading */
function go(id) {
  byId(id).scrollIntoView({block: "start"});
  byId(id).focus({preventScroll: true});
}

/** @param {() => void} render */
function switchable(render) {
  buttonById("language").addEventListener("click", () => {
    const other = otherLanguage();
    stored(() => localStorage.setItem(LANGUAGE_KEY, other));
    useLanguage(other);
    render();
  });
}

/**
 * Once a second, in a tab that is seen.
 * @param {LiveTimes} times
 * @param {Cards} cards
 * @param {Connection} connection
 */
function tick(times, cards, connection) {
  let ticks = 0;
  const step = () => {
    if (document.hidden) return;
    times.tick();
    cards.tick();
    ticks += 1;
    // A crontab that starts its cron past this server tells nothing: the next time is asked for.
    if (ticks % OVERDUE_TICKS === 0) for (const name of cards.overdue().slice(0, 3)) connection.loadCron(name);
  };
  setInterval(step, TICK_MS);
  document.addEventListener("visibilitychange", step);
}

start();
