/*
 * The dialog of one run: its facts, its log, cancel, and starting it again.  What is under way for
 * the run belongs to its OpenedRun; this shows the one that is open and drops the others.
 */

import {bodyOf} from "./actions.js";
import {ArmedButton, Dialog} from "./dialogs.js";
import {buttonById, byId, dialogById, download, el, replace, setText} from "./dom.js";
import {problemWords} from "./errors.js";
import {hasSecret} from "./fields.js";
import {LogView} from "./log-view.js";
import {OpenedRun} from "./opened-run.js";
import {asServerError, newKey} from "./server.js";
import {askedBy, askedHow, outcome, runStatusElement} from "./status.js";
import {duration} from "./times.js";
import {SECOND_MS} from "./units.js";
import {bytes, number, t} from "./words.js";

/** @typedef {import("./types.js").Run} Run */

/**
 * @typedef {object} Ways out of the dialog to elsewhere
 * @property {(name: string) => void} toCron
 * @property {(name: string) => void} toHistory
 * @property {(name: string, opening: import("./trigger.js").Opening) => void} toTrigger
 */

export class RunView {
  /**
   * @param {import("./state.js").State} state
   * @param {import("./actions.js").Actions} actions
   * @param {import("./dialogs.js").Overlays} overlays
   * @param {import("./secret.js").Secret} secret
   * @param {import("./address.js").Address} address
   * @param {import("./status.js").LiveTimes} times
   * @param {import("./toasts.js").Toasts} toasts
   * @param {Ways} ways
   */
  constructor(state, actions, overlays, secret, address, times, toasts, ways) {
    this.state = state;
    this.actions = actions;
    this.secret = secret;
    this.address = address;
    this.times = times;
    this.toasts = toasts;
    this.ways = ways;
    /** @type {OpenedRun | null} */
    this.opened = null;
    this.staysInHistory = false;
    this.dialog = new Dialog(dialogById("run-dialog"), overlays, () => this.closed());
    this.log = new LogView((text) => toasts.announce(text));
    this.listen();
  }

  listen() {
    const on = (/** @type {string} */ id, /** @type {() => void} */ action) =>
      byId(id).addEventListener("click", action);
    this.cancelButton = new ArmedButton(buttonById("run-cancel"), "cancel_confirm", () => this.cancel());
    on("run-again", () => this.again());
    on("run-to-cron", () => this.leaveTo(this.ways.toCron));
    on("run-to-history", () => this.leaveTo(this.ways.toHistory));
    on("log-download", () => this.download());
    this.state.on("run", (run) => this.opened?.put(run));
    this.state.on("all", () => this.opened?.run && this.showRun(this.opened.run));
  }

  /** @param {number} id */
  open(id) {
    if (this.opened?.id === id && this.dialog.isOpen) return;
    this.opened?.close();
    /** @type {OpenedRun} */
    const opened = new OpenedRun(id, this.actions.server, this.knownRun(id), (change) => {
      if (this.opened === opened) this.changed(change);
    });
    this.opened = opened;
    this.showHead(id);
    this.log.show(opened);
    this.address.enter(id);
    this.dialog.open();
    opened.open();
  }

  /**
   * What the page knows of it already, so that the head is there at once.
   * @param {number} id
   * @returns {Run | null}
   */
  knownRun(id) {
    for (const {running, lastRun} of this.state.list()) {
      if (running?.id === id) return running;
      if (lastRun?.id === id) return lastRun;
    }
    return null;
  }

  close() {
    this.dialog.close();
  }

  closed() {
    this.opened?.close();
    this.opened = null;
    this.log.show(null);
    this.cancelButton?.disarm();
    if (!this.staysInHistory) this.address.leave();
    this.staysInHistory = false;
  }

  /** @param {import("./opened-run.js").Change} change */
  changed(change) {
    const {opened} = this;
    if (!opened) return;
    if (change === "run" && opened.run) this.showRun(opened.run);
    if (change === "loading") this.log.begin();
    if (opened.problem) this.showProblem(opened.problem);
    this.log.changed();
  }

  /** @param {import("./server.js").ServerError} problem */
  showProblem(problem) {
    if (this.secret.isAskedFor(problem)) return this.close();
    const missing = problem.status === 404 && !this.opened?.done;
    this.notice(missing ? t("run_missing") : t("log_failed", {error: problemWords(problem)}));
  }

  /** @param {string} text */
  notice(text) {
    setText(byId("run-notice"), text);
    byId("run-notice").hidden = !text;
    if (text) this.toasts.announce(text);
  }

  /** @param {number} id */
  showHead(id) {
    this.cancelButton?.disarm();
    setText(byId("run-title"), "…");
    setText(byId("run-number"), t("number", {id: String(id)}));
    setText(byId("run-name"), "");
    replace(byId("run-facts"));
    this.notice("");
    for (const button of ["run-cancel", "run-again", "run-to-cron", "run-to-history"])
      byId(button).hidden = true;
    if (this.opened?.run) this.showRun(this.opened.run);
  }

  /** @param {Run} run */
  showRun(run) {
    setText(byId("run-title"), this.state.titleOf(run.cronName));
    setText(byId("run-name"), run.cronName);
    replace(byId("run-facts"), ...this.facts(run));
    const known = this.state.cron(run.cronName) !== undefined;
    const running = run.status === "running";
    byId("run-again").hidden = running || !known;
    byId("run-to-cron").hidden = !known;
    byId("run-to-history").hidden = false;
    this.showCancel(running, Boolean(run.stopping));
  }

  /**
   * @param {boolean} running
   * @param {boolean} stopping
   */
  showCancel(running, stopping) {
    const cancel = buttonById("run-cancel");
    cancel.hidden = !running;
    cancel.disabled = stopping;
    if (stopping || !running) this.cancelButton?.disarm();
    if (!this.cancelButton?.before) setText(cancel, t(stopping ? "cancelling" : "cancel_run"));
  }

  /**
   * @param {Run} run
   * @returns {HTMLElement[]}
   */
  facts(run) {
    const words = outcome(run);
    const status = el("span", {}, runStatusElement(run), words && el("small", {class: "muted"}, ` ${words}`));
    const memory = typeof run.maxRssBytes === "number" ? run.maxRssBytes : null;
    return [
      fact("fact_state", status),
      fact("fact_started", this.times.short(run.startedAt)),
      run.completedAt && fact("fact_ended", this.times.short(run.completedAt), "extra"),
      fact("fact_duration", this.times.duration(run)),
      fact("fact_who", el("span", {title: askedHow(run)}, askedBy(run))),
      run.cancelledBy && fact("fact_cancelled_by", run.cancelledBy),
      fact("fact_how", askedHow(run), "extra"),
      run.params && Object.keys(run.params).length > 0 && fact("fact_params", parameterList(run.params), "wide"),
      typeof run.cpuSeconds === "number" && fact("fact_cpu", duration(run.cpuSeconds * SECOND_MS), "extra"),
      // A small script's peak is hidden by that of the server which started it.
      memory !== null && fact("fact_memory", el("span", {title: number(memory)}, `≤ ${bytes(memory)}`), "extra"),
    ].filter((each) => each instanceof HTMLElement);
  }

  // ---- what the viewer does

  async cancel() {
    const {opened} = this;
    if (!opened) return;
    this.showCancel(true, true);
    try {
      await this.actions.cancelRun(opened.id);
    } catch (problem) {
      if (this.opened !== opened) return;
      const reason = asServerError(problem);
      if (opened.run) this.showRun(opened.run); // it may have ended meanwhile
      if (!this.secret.isAskedFor(reason)) this.notice(problemWords(reason));
    }
  }

  /** With the same parameters; those that are secret are not kept, and are asked for. */
  async again() {
    const {opened} = this;
    const run = opened?.run;
    if (!opened || !run) return;
    if (hasSecret(this.state.cron(run.cronName)?.parameters))
      return this.leaveTo((name) => this.ways.toTrigger(name, {values: run.params ?? {}}), true);
    const pressed = buttonById("run-again");
    pressed.disabled = true;
    setText(pressed, t("starting"));
    try {
      const answer = await this.actions.trigger(bodyOf(run.cronName, run.params), opened.key);
      if (this.opened === opened && answer.runId) this.startedAgain(answer.runId);
    } catch (problem) {
      const reason = asServerError(problem);
      if (reason.isDefinite) opened.key = newKey();
      if (this.opened === opened) this.notStartedAgain(run, reason);
    } finally {
      pressed.disabled = false;
      setText(pressed, t("rerun"));
    }
  }

  /** @param {number} id */
  startedAgain(id) {
    this.toasts.show("running", t("rerun_started", {id: String(id)}));
    this.open(id);
  }

  /**
   * @param {Run} run
   * @param {import("./server.js").ServerError} problem
   */
  notStartedAgain(run, problem) {
    if (this.secret.isAskedFor(problem)) return;
    if (problem.code !== "invalid_params") return this.notice(problemWords(problem));
    const opening = {values: run.params ?? {}, problem};
    this.leaveTo((name) => this.ways.toTrigger(name, opening), true);
  }

  /**
   * @param {(name: string) => void} way
   * @param {boolean} [toDialog] which takes this one's entry of the browser's history
   */
  leaveTo(way, toDialog = false) {
    const name = this.opened?.run?.cronName;
    if (!name) return;
    this.staysInHistory = toDialog;
    this.dialog.close();
    // The close event, which gives the focus back, comes first.
    setTimeout(() => way(name), 0);
  }

  /** Fetched again, as the script wrote it: a link could not carry the secret's header. */
  async download() {
    const {opened} = this;
    if (!opened?.run) return;
    try {
      const answer = await this.actions.server.request(`runs/${opened.id}/log`, {timeoutMs: 0});
      download(await answer.blob(), `${opened.run.cronName}-${opened.id}.log`);
    } catch (problem) {
      const reason = asServerError(problem);
      if (this.opened === opened && !this.secret.isAskedFor(reason)) this.notice(problemWords(reason));
    }
  }
}

/**
 * @param {string} key
 * @param {string | Node} value
 * @param {string} [kind]
 */
function fact(key, value, kind) {
  return el("div", {class: kind}, el("dt", {}, t(key)), el("dd", {}, value));
}

/** @param {Record<string, import("./types.js").ParameterValue>} params */
function parameterList(params) {
  const items = Object.entries(params).map(([name, value]) =>
    el("li", {}, el("span", {class: "mono"}, name), ` = ${value}`),
  );
  return el("ul", {class: "parameters"}, ...items);
}
