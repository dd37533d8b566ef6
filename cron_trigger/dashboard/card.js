/*
 * One cron's card.  Its name, words and button are always there, so that they can be found and
 * reached; plot, state and progress are drawn once it comes near the view, and kept true then.
 */

import {el, setAttributes, setText, button, replace} from "./dom.js";
import {Spark} from "./plots.js";
import {knowsUsual, usualMs} from "./state.js";
import {outcome, runStatusElement, statusElement} from "./status.js";
import {duration, foreignTime, parseDuration, relativeTime, timeInWords} from "./times.js";
import {SECOND_MS} from "./units.js";
import {t} from "./words.js";

/** @typedef {import("./types.js").Cron} Cron */

/**
 * @typedef {object} CardWays
 * @property {(name: string) => void} trigger
 * @property {(id: number) => void} run
 * @property {(name: string) => void} history
 */

export class Card {
  /**
   * @param {Cron} cron
   * @param {import("./status.js").LiveTimes} times
   * @param {CardWays} ways
   */
  constructor(cron, times, ways) {
    this.cron = cron;
    this.times = times;
    this.ways = ways;
    this.seen = false;
    this.title = el("h3", {id: `cron-${cron.cronName}`});
    this.name = el("p", {class: "name mono clip"}, cron.cronName);
    this.run = button("", () => ways.trigger(this.cron.cronName), {class: "button card-run"});
    this.article = el("article", {class: "card", "aria-labelledby": this.title.id}, this.title, this.name, this.run);
    this.item = el("li", {"data-key": cron.cronName}, this.article);
    /** @type {Details | null} */
    this.details = null;
    this.update(cron);
  }

  /** The one stop of Tab, and what the arrow keys go on to. */
  controls() {
    return this.details ? [this.run, this.details.state, this.details.history] : [this.run];
  }

  /** @param {Cron} cron */
  update(cron) {
    this.cron = cron;
    setText(this.title, cron.description);
    this.title.title = cron.description.length > 60 ? cron.description : "";
    setText(this.run, t("run"));
    this.run.setAttribute("aria-label", t("run_label", {cron: cron.description}));
    if (this.seen) this.draw();
  }

  /** @param {boolean} seen */
  see(seen) {
    this.seen = seen;
    if (seen) this.draw();
  }

  draw() {
    this.details ??= this.addDetails();
    this.details.draw(this.cron);
  }

  addDetails() {
    const details = new Details(this.times, this.ways);
    this.name.after(details.next, details.spark.element, details.bar, details.foot);
    details.foot.append(this.run);
    return details;
  }

  /** Once a second while it runs and is seen. */
  tick() {
    if (this.seen) this.details?.showProgress(this.cron);
  }
}

/** What is drawn when the card comes into view. */
class Details {
  /**
   * @param {import("./status.js").LiveTimes} times
   * @param {CardWays} ways
   */
  constructor(times, ways) {
    this.times = times;
    /** @type {Cron | null} */
    this.cron = null;
    this.next = el("p", {class: "card-next"});
    this.spark = new Spark(ways.run);
    this.fill = el("span");
    this.bar = el("div", {class: "progress"}, this.fill);
    this.expected = el("small", {class: "expected"});
    this.state = el("button", {type: "button", class: "link card-state", tabindex: -1});
    this.state.addEventListener("click", () => {
      const run = this.cron?.running ?? this.cron?.lastRun;
      if (run?.id) ways.run(run.id);
    });
    this.history = button("", () => this.cron && ways.history(this.cron.cronName), {
      class: "link card-history",
      tabindex: -1,
    });
    this.foot = el("div", {class: "card-foot"}, el("div", {class: "card-words"}, this.state, this.history));
  }

  /** @param {Cron} cron */
  draw(cron) {
    this.cron = cron;
    this.spark.draw(cron.recentRuns, this.times.now());
    setText(this.history, t("open_history"));
    this.history.setAttribute("aria-label", t("open_history_label", {cron: cron.description}));
    this.showNext(cron);
    this.showState(cron);
    this.showProgress(cron);
  }

  /**
   * The next time by the schedule, and that a time has passed without a run.
   * @param {Cron} cron
   */
  showNext(cron) {
    const late = cron.late === true && el("span", {class: "status timed_out"}, t("late"));
    const at = cron.nextRunAt ? Date.parse(cron.nextRunAt) : NaN;
    const known = Number.isFinite(at);
    const relative = known ? relativeTime(at, this.times.now()) : "";
    replace(this.next, late, late && known && " · ", known && t("next_run", {relative}));
    this.next.title = known ? nextInFull(cron.nextRunAt ?? "", cron.schedule) : "";
    this.next.hidden = !late && !known;
  }

  /** @param {Cron} cron */
  showState(cron) {
    const run = cron.running ?? cron.lastRun;
    this.state.disabled = !run?.id;
    if (cron.running?.startedAt) return this.showRunning(cron.running);
    if (cron.running) return replace(this.state, statusElement("running"), el("small", {}, t("external")));
    if (!cron.lastRun) return this.showNever(cron);
    const {lastRun} = cron;
    const words = outcome(lastRun);
    const line = el("small", {class: "clip"}, words && `${words} · `, this.times.relative(lastRun.startedAt), " · ", this.times.duration(lastRun));
    setAttributes(this.state, {title: words || null});
    replace(this.state, statusElement(lastRun.status), line);
  }

  /** @param {Cron} cron */
  showNever(cron) {
    const estimate = parseDuration(cron.estimatedDuration);
    const words = estimate ? t("about", {duration: duration(estimate)}) : t("never_hint");
    replace(this.state, statusElement("never"), el("small", {}, words));
  }

  /** @param {import("./types.js").Run} run */
  showRunning(run) {
    const line = runStatusElement(run);
    line.append(this.times.elapsed(run.startedAt));
    replace(this.state, line, this.expected);
  }

  /**
   * Only texts and one width change while a cron runs.
   * @param {Cron} cron
   */
  showProgress(cron) {
    const usual = usualMs(cron);
    const {startedAt} = cron.running ?? {};
    const elapsed = startedAt ? Math.max(0, this.times.now() - Date.parse(startedAt)) : 0;
    const known = Boolean(startedAt && usual);
    const share = known && usual ? Math.min(1, elapsed / usual) : 0;
    this.bar.classList.toggle("unknown", cron.running !== null && !known);
    this.fill.style.setProperty("--share", `${(share * 100).toFixed(1)}%`);
    setAttributes(this.bar, {
      role: cron.running && "progressbar",
      "aria-label": cron.running && t("progress", {cron: cron.description}),
      "aria-valuenow": cron.running && known ? Math.round(share * 100) : null,
    });
    setText(this.expected, usual ? expectedWords(cron, usual, elapsed) : "");
  }
}

/**
 * @param {Cron} cron
 * @param {number} usual
 * @param {number} elapsed
 */
function expectedWords(cron, usual, elapsed) {
  const values = {duration: duration(usual)};
  if (elapsed > usual * 1.2 + SECOND_MS) return t("longer", values);
  return t(knowsUsual(cron) ? "usually" : "about", values);
}

/**
 * @param {string} iso
 * @param {string | null | undefined} schedule
 */
function nextInFull(iso, schedule) {
  const when = t("next_run_exact", {when: timeInWords(new Date(iso))});
  const there = foreignTime(iso);
  return [when, there && t("host_zone", {time: there}), schedule].filter(Boolean).join("\n");
}
