/*
 * Planned triggers: what is to come, with its parameters, and the last that came or did not.  One
 * can be run now, changed, or cancelled.
 */

import {PlanLost, bodyOf} from "./actions.js";
import {ArmedButton} from "./dialogs.js";
import {button, byId, el} from "./dom.js";
import {problemWords, serverWords} from "./errors.js";
import {hasSecret} from "./fields.js";
import {asServerError} from "./server.js";
import {statusElement} from "./status.js";
import {shortTime} from "./times.js";
import {t} from "./words.js";

/** @typedef {import("./types.js").Plan} Plan */
/** @typedef {import("./trigger.js").Opening} Opening */

const ENDED_SHOWN = 5;

export class Plans {
  /**
   * @param {import("./state.js").State} state
   * @param {import("./actions.js").Actions} actions
   * @param {import("./status.js").LiveTimes} times
   * @param {import("./toasts.js").Toasts} toasts
   * @param {import("./secret.js").Secret} secret
   * @param {{run: (id: number) => void, trigger: (name: string, opening: Opening) => void}} ways
   */
  constructor(state, actions, times, toasts, secret, ways) {
    this.state = state;
    this.actions = actions;
    this.times = times;
    this.toasts = toasts;
    this.secret = secret;
    this.ways = ways;
    state.on("plans", () => this.render());
    state.on("all", () => this.render());
  }

  render() {
    const byTime = (/** @type {Plan} */ a, /** @type {Plan} */ b) => Date.parse(a.runAt) - Date.parse(b.runAt);
    const {plans} = this.state;
    const pending = plans.filter((plan) => plan.status === "pending").sort(byTime);
    const ended = plans.filter((plan) => plan.status !== "pending").sort((a, b) => byTime(b, a));
    const shown = [...pending, ...ended.slice(0, ENDED_SHOWN)];
    const focused = byId("planned").contains(document.activeElement);
    byId("planned").replaceChildren(...shown.map((plan) => this.row(plan)));
    if (focused) byId("planned-title").focus();
    byId("planned-empty").hidden = this.state.crons === null || shown.length > 0;
  }

  /** @param {Plan} plan */
  row(plan) {
    const title = el("span", {class: "clip", title: plan.cronName}, this.state.titleOf(plan.cronName));
    const when = el("small", {}, this.times.short(plan.runAt), " · ", this.times.relative(plan.runAt));
    const what = el("div", {class: "what"}, title, when);
    const params = Object.entries(plan.params ?? {}).map(([name, value]) => `${name} = ${value}`);
    if (params.length) what.append(el("small", {class: "mono plan-params"}, params.join(" · ")));
    if (plan.requestedBy) what.append(el("small", {class: "clip"}, plan.requestedBy));
    if (plan.reason) what.append(el("small", {}, serverWords(plan.reason)));
    const row = el("div", {class: "row plan-row"}, what, this.statusOf(plan));
    if (plan.status === "pending") row.append(this.buttons(plan));
    return el("li", {"data-key": plan.id}, row);
  }

  /** @param {Plan} plan */
  statusOf(plan) {
    const status = statusElement(plan.status);
    if (!plan.runId) return status;
    const {runId} = plan;
    const link = el("button", {type: "button", class: "link"}, status);
    link.addEventListener("click", () => this.ways.run(runId));
    return link;
  }

  /** @param {Plan} plan */
  buttons(plan) {
    const time = shortTime(new Date(plan.runAt), this.times.now());
    const values = {cron: this.state.titleOf(plan.cronName), time};
    const make = (/** @type {string} */ key, /** @type {() => void} */ action) =>
      button(t(key), action, {class: "button small", "aria-label": t(`${key}_label`, values)});
    const nothing = () => {};
    const cancel = make("plan_cancel", nothing);
    new ArmedButton(cancel, "plan_confirm", () => this.cancel(plan, cancel));
    const place = el("div", {class: "plan-buttons"}, cancel);
    if (!this.state.cron(plan.cronName)) return place;
    const now = make("plan_now", nothing);
    new ArmedButton(now, "plan_confirm", () => this.runNow(plan, now));
    place.prepend(now, make("plan_change", () => this.change(plan)));
    return place;
  }

  /** @param {Plan} plan */
  change(plan) {
    this.ways.trigger(plan.cronName, {values: plan.params ?? {}, plan, later: true});
  }

  /**
   * @param {Plan} plan
   * @param {HTMLButtonElement} pressed
   */
  async runNow(plan, pressed) {
    const opening = {values: plan.params ?? {}, plan};
    if (hasSecret(this.state.cron(plan.cronName)?.parameters)) return this.ways.trigger(plan.cronName, opening);
    pressed.disabled = true;
    try {
      const answer = await this.actions.replacePlan(plan, bodyOf(plan.cronName, plan.params));
      this.toasts.show("running", t("started"), this.state.titleOf(plan.cronName), () =>
        this.ways.run(answer.runId ?? 0),
      );
    } catch (problem) {
      pressed.disabled = false;
      if (!(problem instanceof PlanLost)) return this.failed(problem);
      // It can be planned again from what is still known of it.
      this.ways.trigger(plan.cronName, {values: plan.params ?? {}, problem: problem.reason});
    }
  }

  /**
   * @param {Plan} plan
   * @param {HTMLButtonElement} pressed
   */
  async cancel(plan, pressed) {
    pressed.disabled = true;
    try {
      await this.actions.cancelPlan(plan);
      this.toasts.announce(t("plan_cancelled", {cron: this.state.titleOf(plan.cronName)}));
      byId("planned-title").focus();
    } catch (problem) {
      pressed.disabled = false;
      this.failed(problem);
    }
  }

  /** @param {unknown} problem */
  failed(problem) {
    const reason = asServerError(problem);
    if (this.secret.isAskedFor(reason)) return;
    const over = [404, 409].includes(reason.status);
    this.toasts.show("failed", over ? t("plan_over") : problemWords(reason));
  }
}
