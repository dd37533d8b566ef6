/*
 * The page at a glance: figures, what the server calls problems, the connection, and the tab's
 * title and icon.
 */

import {byId, setText} from "./dom.js";
import {IS} from "./filters.js";
import {durationsOf, quantile} from "./state.js";
import {duration, exactDuration, shortTime} from "./times.js";
import {number, t} from "./words.js";

const FAILED_DOT = "#d2443f";
const RUNNING_DOT = "#3f6ce0";

export class Summary {
  /** @param {import("./state.js").State} state */
  constructor(state) {
    this.state = state;
    this.frame = 0;
    for (const kind of /** @type {const} */ (["all", "cron"])) state.on(kind, () => this.renderSoon());
    state.on("connection", () => this.renderConnection());
    state.on("problems", () => this.renderProblems());
  }

  renderSoon() {
    if (this.frame) return;
    this.frame = requestAnimationFrame(() => {
      this.frame = 0;
      this.render();
    });
    if (document.hidden) this.renderTitle(); // a hidden tab has no frames, but its title is seen
  }

  render() {
    this.renderFigures();
    this.renderTitle();
    this.renderProblems();
    this.renderConnection();
  }

  renderFigures() {
    const crons = this.state.list();
    if (!this.state.crons) return;
    const runs = crons.reduce((sum, cron) => sum + cron.runs, 0);
    const good = Math.round(crons.reduce((sum, cron) => sum + cron.runs * (cron.successRate ?? 0), 0));
    const running = this.state.running();
    const middle = quantile(crons.flatMap((cron) => durationsOf(cron.recentRuns)), 0.5);
    const notation = runs >= 100000 ? "compact" : "standard";
    setFigure("figure-runs", number(runs, {notation}), number(runs));
    setFigure("figure-rate", runs ? percent(good / runs) : "–", runs ? t("figure_rate_exact", {good, n: runs}) : "");
    setFigure("figure-running", number(running.length), running.map((cron) => cron.description).join("\n"));
    setFigure("figure-median", duration(middle), middle === null ? "" : t("figure_median_exact", {ms: exactDuration(middle)}));
  }

  /** The tab tells what a glance needs: does something run, did the last run of a cron fail. */
  renderTitle() {
    const running = this.state.running().length;
    const failed = this.state.list().filter(IS.failed).length;
    let title = this.state.host ? `${t("title")} · ${this.state.host}` : t("title");
    if (failed) title = t("title_failed", {n: failed, title});
    if (running) title = t("title_running", {n: running, title});
    document.title = title;
    setIcon(failed ? FAILED_DOT : running ? RUNNING_DOT : null);
    setText(byId("host"), this.state.host);
  }

  renderProblems() {
    const {problems} = this.state;
    byId("problems").hidden = !problems.length;
    setText(byId("problems-text"), t("problems", {problems: problems.join(" · ")}));
  }

  renderConnection() {
    const {connection} = this.state;
    byId("connection").setAttribute("data-connection", connection);
    setText(byId("connection-text"), t(connection));
    if (connection === "live" || connection === "polling") byId("offline").hidden = true;
  }

  /**
   * With a state to show: a line above it.
   * @param {string} next when it is tried again
   */
  showOffline(next) {
    const {crons, loadedAtMs, failure} = this.state;
    setText(byId("connection-text"), crons ? t("offline") : `${t("offline")} · ${next}`);
    byId("offline").hidden = crons === null;
    if (crons === null) return;
    const values = {status: String(failure?.status ?? 0), error: failure?.message ?? ""};
    const refused = failure?.status ? `${t("failed_hint", values)} ` : "";
    const since = t("offline_since", {time: shortTime(new Date(loadedAtMs), Date.now())});
    setText(byId("offline-text"), `${refused}${since} ${next}`);
  }
}

/**
 * 99.96 % is not 100 %.
 * @param {number} share
 */
function percent(share) {
  return number(Math.floor(share * 1000) / 1000, {style: "percent", maximumFractionDigits: 1});
}

/**
 * @param {string} id
 * @param {string} text
 * @param {string} exact
 */
function setFigure(id, text, exact) {
  setText(byId(id), text);
  byId(id).title = exact;
}

/**
 * Drawn here: a play mark, and a dot for trouble or work.
 * @param {string | null} dot its colour
 */
function setIcon(dot) {
  const mark =
    "<rect width='28' height='28' rx='8' fill='#1b1b1a'/><path d='M10.5 8.2v11.6l9.3-5.8z' fill='#fff'/>";
  const circle = dot ? `<circle cx='21' cy='7' r='7' fill='${dot}'/>` : "";
  const picture = `<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 28 28'>${mark}${circle}</svg>`;
  const icon = document.querySelector("link[rel=icon]");
  icon?.setAttribute("href", `data:image/svg+xml,${encodeURIComponent(picture)}`);
}
