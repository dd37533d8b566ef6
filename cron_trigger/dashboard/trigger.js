/*
 * The dialog that starts or plans a cron: its description, its form, now or later, and the
 * command lines of the same.  Each opening is a session of its own; what answers to one that was
 * closed shows nowhere.
 */

import {PlanLost, bodyOf} from "./actions.js";
import {clientCommand, curlCommand} from "./command.js";
import {Dialog} from "./dialogs.js";
import {button, buttonById, byId, copyText, dialogById, el, inputById, replace, setAttributes, setText} from "./dom.js";
import {problemWords, reasonWords} from "./errors.js";
import {ParameterForm, hasSecret} from "./fields.js";
import {asServerError, newKey} from "./server.js";
import {knowsUsual} from "./state.js";
import {outcome, statusElement} from "./status.js";
import {duration, exactDuration, isoWithOffset, localInput, nextHour, parseDuration, relativeTime, timeInWords} from "./times.js";
import {SECOND_MS} from "./units.js";
import {t} from "./words.js";

/** @typedef {import("./types.js").Cron} Cron */
/** @typedef {import("./types.js").Plan} Plan */
/** @typedef {import("./types.js").ParameterValue} ParameterValue */
/** @typedef {import("./server.js").ServerError} ServerError */

const CLOSE_AFTER_MS = 2 * SECOND_MS;

/**
 * @typedef {object} Session
 * @property {Cron} cron
 * @property {string} key
 * @property {boolean} later
 * @property {boolean} sending
 * @property {boolean} started
 * @property {Plan | null} plan what this one is to replace
 * @property {number} timer
 */

/**
 * @typedef {object} Opening
 * @property {Record<string, ParameterValue> | null} [values]
 * @property {Plan | null} [plan]
 * @property {boolean} [later]
 * @property {ServerError} [problem] why one has to look at it again
 */

export class TriggerDialog {
  /**
   * @param {import("./state.js").State} state
   * @param {import("./actions.js").Actions} actions
   * @param {import("./dialogs.js").Overlays} overlays
   * @param {import("./secret.js").Secret} secret
   * @param {import("./address.js").Address} address
   * @param {(id: number) => void} openRun
   */
  constructor(state, actions, overlays, secret, address, openRun) {
    this.state = state;
    this.actions = actions;
    this.secret = secret;
    this.address = address;
    this.openRun = openRun;
    /** @type {Session | null} */
    this.session = null;
    /** @type {boolean} whether a run takes this dialog's entry of the browser's history */
    this.followed = false;
    this.dialog = new Dialog(dialogById("trigger-dialog"), overlays, () => this.closed());
    this.form = new ParameterForm(byId("trigger-fields"));
    this.submit = buttonById("trigger-submit");
    this.at = inputById("plan-at");
    this.listen();
  }

  listen() {
    byId("trigger-form").addEventListener("submit", (event) => {
      event.preventDefault();
      this.send();
    });
    byId("trigger-form").addEventListener("input", () => this.showCommands());
    buttonById("plan-toggle").addEventListener("click", () => this.setLater(!this.session?.later));
    this.at.addEventListener("input", () => this.plannedTime());
    const commands = byId("commands");
    commands.addEventListener("toggle", () => commands.scrollIntoView({block: "nearest"}));
    for (const id of ["copy-curl", "copy-client"]) byId(id).addEventListener("click", () => this.copy(id));
    this.state.on("cron", (cron) => this.cronChanged(cron));
  }

  /**
   * @param {string} name
   * @param {Opening} [opening]
   */
  open(name, {values = null, plan = null, later = false, problem} = {}) {
    const cron = this.state.cron(name);
    if (!cron) return;
    this.end();
    this.session = {cron, key: newKey(), later: false, sending: false, started: false, plan, timer: 0};
    setText(byId("trigger-title"), cron.description);
    setText(byId("trigger-name"), cron.cronName);
    this.showFacts(cron);
    this.form.show(cron.parameters ?? {}, values);
    byId("trigger-foot").hidden = false;
    this.hideNotice();
    if (plan) this.showNotice("", t("plan_changing", {when: timeInWords(new Date(plan.runAt))}));
    if (values && hasSecret(cron.parameters)) this.showNotice("", t("secret_again"));
    if (cron.running) this.showRunning(cron.running.id);
    this.setLater(later, plan ? new Date(plan.runAt) : undefined);
    if (!this.dialog.isOpen) this.address.enter(null);
    this.dialog.open(later ? this.at : this.form.first());
    if (problem) this.showRefusal(problem);
  }

  close() {
    this.dialog.close();
  }

  closed() {
    this.end();
    if (!this.followed) this.address.leave();
    this.followed = false;
  }

  end() {
    clearTimeout(this.session?.timer);
    this.session = null;
  }

  /** @param {number} id */
  follow(id) {
    this.followed = true;
    this.dialog.close();
    this.openRun(id);
  }

  /**
   * What was said of its running must not outlive it.
   * @param {Cron} cron
   */
  cronChanged(cron) {
    const {session} = this;
    if (session?.cron.cronName !== cron.cronName) return;
    session.cron = cron;
    this.showFacts(cron);
    if (session.started || session.sending) return;
    const saysRunning = byId("trigger-notice").textContent?.startsWith(t("already_running"));
    if (!cron.running && saysRunning) this.hideNotice();
    if (cron.running && byId("trigger-notice").hidden) this.showRunning(cron.running.id);
  }

  /** @param {Cron} cron */
  showFacts(cron) {
    const estimate = parseDuration(cron.estimatedDuration);
    const facts = [fact("estimated", duration(estimate))];
    if (knowsUsual(cron))
      facts.push(fact("usual", duration(cron.medianDurationMs), exactDuration(cron.medianDurationMs)));
    if (cron.lastRun)
      facts.push(fact("last_run", statusElement(cron.lastRun.status), outcome(cron.lastRun)));
    if (cron.schedule) facts.push(fact("schedule_fact", el("span", {class: "mono"}, cron.schedule)));
    replace(byId("trigger-facts"), ...facts);
  }

  // ---- later

  /**
   * @param {boolean} later
   * @param {Date} [at]
   */
  setLater(later, at) {
    if (!this.session) return;
    this.session.later = later;
    byId("plan").hidden = !later;
    setText(byId("plan-toggle"), t(later ? "plan_back" : "plan"));
    byId("plan-toggle").classList.toggle("quiet", later);
    this.nameSubmit();
    if (later) {
      const now = this.actions.server.now();
      this.at.min = localInput(new Date(now));
      if (at || !this.at.value || new Date(this.at.value).getTime() < now)
        this.at.value = isoWithOffset(at ?? nextHour(now)).slice(0, 19);
      this.plannedTime();
      this.at.focus();
      byId("plan").scrollIntoView({block: "nearest"});
    }
    this.showCommands();
  }

  nameSubmit() {
    const {sending = false, later = false} = this.session ?? {};
    this.submit.disabled = buttonById("plan-toggle").disabled = sending;
    setText(this.submit, t(sending ? "starting" : later ? "plan_send" : "run_now"));
  }

  /** The chosen time, or null after the reason was shown. */
  plannedTime() {
    const at = new Date(this.at.value);
    const now = this.actions.server.now();
    const missing = Number.isNaN(at.getTime());
    const past = !missing && at.getTime() <= now;
    this.at.setAttribute("aria-invalid", String(missing || past));
    const when = missing ? "" : timeInWords(at);
    const relative = missing ? "" : relativeTime(at.getTime(), now);
    const key = missing ? "plan_missing" : past ? "plan_past" : "plan_words";
    setText(byId("plan-words"), t(key, {when, relative}));
    return missing || past ? null : at;
  }

  // ---- sending

  async send() {
    const mine = this.session;
    if (!mine || mine.sending || mine.started) return; // the second click of a double click
    const params = this.form.read();
    const at = mine.later ? this.plannedTime() : null;
    if (!params || (mine.later && !at)) return;
    const body = bodyOf(mine.cron.cronName, params, at ? isoWithOffset(at) : undefined);
    this.setSending(true);
    try {
      const answer = mine.plan
        ? await this.actions.replacePlan(mine.plan, body, mine.key)
        : await this.actions.trigger(body, mine.key);
      if (this.session === mine) this.showStarted(mine, answer.runId ?? null, at);
    } catch (problem) {
      if (this.session === mine) this.refused(mine, problem);
    } finally {
      if (this.session === mine) this.setSending(false);
    }
  }

  /** @param {boolean} sending */
  setSending(sending) {
    if (!this.session) return;
    this.session.sending = sending;
    this.nameSubmit();
    if (sending) this.hideNotice();
  }

  /**
   * @param {Session} session
   * @param {number | null} runId
   * @param {Date | null} at
   */
  showStarted(session, runId, at) {
    session.started = true;
    const words = at ? t("scheduled", {when: timeInWords(at)}) : t("started");
    const link = runId ? this.linkTo(runId) : null;
    this.showNotice("ok", words, link);
    byId("trigger-foot").hidden = true;
    byId("trigger-title").focus();
    session.timer = window.setTimeout(() => this.dialog.close(), CLOSE_AFTER_MS);
  }

  /**
   * After a definite answer nothing was started, so another try is another request.  Without one
   * the key stays: the server will know it if the first did arrive.
   * @param {Session} session
   * @param {unknown} problem
   */
  refused(session, problem) {
    const lost = problem instanceof PlanLost;
    const reason = lost ? problem.reason : asServerError(problem);
    if (reason.isDefinite) session.key = newKey();
    const planOver = !lost && session.plan && [404, 409].includes(reason.status);
    if (lost || planOver) session.plan = null;
    if (this.secret.isAskedFor(reason)) return;
    this.setSending(false); // a disabled button could not take the focus
    this.submit.focus();
    if (planOver && reason.code !== "already_running") return this.showNotice("bad", t("plan_over"));
    this.showRefusal(reason);
    if (lost) byId("trigger-notice").prepend(el("p", {}, t("plan_lost")));
  }

  /** @param {ServerError} problem */
  showRefusal(problem) {
    if (problem.code === "already_running") return this.showRunning(problem.answer.runId ?? null);
    if (problem.code === "invalid_params") return this.showParameterErrors(problem);
    if (problem.code !== "launch_failed") return this.showNotice("bad", problemWords(problem));
    this.showNotice("bad", t("launch_failed"), el("small", {}, problemWords(problem)));
  }

  /**
   * The reasons, each beside its field; those without a field above the buttons.
   * @param {ServerError} problem
   */
  showParameterErrors(problem) {
    const schemas = this.session?.cron.parameters ?? {};
    const values = this.form.values();
    /** @type {Record<string, string>} */
    const reasons = {};
    for (const [name, why] of Object.entries(problem.answer.errors ?? {}))
      reasons[name] = reasonWords(schemas[name], values[name], String(why));
    const listed = Object.entries(reasons).map(([name, why]) =>
      name in schemas ? (schemas[name].title ?? name) : `${name} : ${why}`,
    );
    this.showNotice("bad", t("invalid"), el("small", {}, listed.join(" · ") || problem.message));
    this.form.showErrors(reasons);
  }

  // ---- notice

  hideNotice() {
    replace(byId("trigger-notice"));
    byId("trigger-notice").hidden = true;
  }

  /**
   * No announcement: the notice describes the dialog and its button, and a screen reader says it.
   * @param {string} tone
   * @param {string} text
   * @param {import("./dom.js").Child[]} more
   */
  showNotice(tone, text, ...more) {
    const notice = byId("trigger-notice");
    setAttributes(notice, {class: `notice ${tone}`});
    replace(notice, el("span", {id: "trigger-notice-text"}, text), ...more);
    notice.hidden = false;
  }

  /** @param {number | null} runId */
  showRunning(runId) {
    this.showNotice("bad", t("already_running"), runId ? this.linkTo(runId) : null);
  }

  /** @param {number} runId */
  linkTo(runId) {
    const label = {class: "link", "aria-describedby": "trigger-notice-text"};
    return button(t("see_run"), () => this.follow(runId), label);
  }

  // ---- the same by command line

  commands() {
    const {session} = this;
    if (!session) return {curl: "", client: ""};
    const params = this.form.values();
    for (const [name, schema] of Object.entries(session.cron.parameters ?? {}))
      if (schema.format === "password" && name in params) params[name] = "***";
    const at = new Date(this.at.value);
    const later = session.later && !Number.isNaN(at.getTime());
    const body = bodyOf(session.cron.cronName, params, later ? isoWithOffset(at) : undefined);
    const base = new URL(".", location.href).href;
    const curl = curlCommand(base, body, Boolean(this.actions.server.secret));
    return {curl, client: clientCommand(base, body)};
  }

  showCommands() {
    const {curl, client} = this.commands();
    setText(byId("command-curl"), curl);
    setText(byId("command-client"), client);
  }

  /** @param {string} id of the pressed button */
  async copy(id) {
    const {curl, client} = this.commands();
    const done = await copyText(id === "copy-curl" ? curl : client, this.dialog.element);
    setText(byId(id), t(done ? "copied" : "copy_failed"));
    setTimeout(() => setText(byId(id), t("copy")), CLOSE_AFTER_MS);
  }
}

/**
 * @param {string} key
 * @param {string | Node} value
 * @param {string | null} [title]
 */
function fact(key, value, title = null) {
  return el("div", {}, el("dt", {}, t(key)), el("dd", {title}, value));
}
