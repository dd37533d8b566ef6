/*
 * What a person can do, as requests: trigger, cancel, change a plan.  Without the event stream the
 * page would not hear what came of it, so these say it to the connection.  No DOM here.
 */

import {ServerError, newKey} from "./server.js";

/** @typedef {import("./types.js").Plan} Plan */
/** @typedef {import("./types.js").Run} Run */
/** @typedef {import("./command.js").Body} Body */

export class Actions {
  /**
   * @param {import("./server.js").Server} server
   * @param {import("./state.js").State} state
   * @param {(runId: number | null) => void} acted the run to be watched, or null for a plan
   */
  constructor(server, state, acted) {
    this.server = server;
    this.state = state;
    this.acted = acted;
  }

  /**
   * @param {Body} body
   * @param {string} [key] the same one makes another try safe
   * @returns {Promise<{runId?: number, scheduledId?: number}>}
   */
  async trigger(body, key = newKey()) {
    const answer = await this.server.sendJson("POST", "trigger", body, {"Idempotency-Key": key});
    this.acted(answer.runId ?? null);
    return answer;
  }

  /** @param {number} id */
  async cancelRun(id) {
    const answer = await this.server.sendJson("POST", `runs/${id}/cancel`);
    if (answer.run) this.state.putRun({...answer.run, stopping: true});
    this.acted(id);
  }

  /** @param {Plan} plan */
  async cancelPlan(plan) {
    const answer = await this.server.sendJson("DELETE", `scheduled/${plan.id}`);
    this.state.putPlan(answer.scheduled);
    this.state.tell("plans", null);
  }

  /**
   * Another trigger in the place of a planned one, which is cancelled first: both at once could
   * start.  Where it had started already, nothing is triggered.
   * @param {Plan} plan
   * @param {Body} body
   * @param {string} [key]
   * @throws {PlanLost} where the plan is gone, and the new trigger did not come about
   */
  async replacePlan(plan, body, key) {
    await this.cancelPlan(plan);
    try {
      return await this.trigger(body, key);
    } catch (problem) {
      throw new PlanLost(problem);
    }
  }
}

export class PlanLost extends Error {
  /** @param {unknown} reason */
  constructor(reason) {
    super("the plan is cancelled, but nothing is in its place");
    this.reason = reason instanceof ServerError ? reason : new ServerError(0);
  }
}

/**
 * @param {string} cronName
 * @param {Record<string, import("./types.js").ParameterValue> | null | undefined} params
 * @param {string} [runAt]
 * @returns {Body}
 */
export function bodyOf(cronName, params, runAt) {
  /** @type {Body} */
  const body = {cronName};
  if (params && Object.keys(params).length) body.params = params;
  if (runAt) body.runAt = runAt;
  return body;
}
