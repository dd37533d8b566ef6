// What the server said, and how events and answers change it; the stream's text; filters.

import assert from "node:assert/strict";
import {test} from "node:test";

import {fragmentOf, placeOf} from "../../cron_trigger/dashboard/address.js";
import {grouped, matches} from "../../cron_trigger/dashboard/filters.js";
import {Past, isAskedBy, momentsOf} from "../../cron_trigger/dashboard/past.js";
import {axisSteps} from "../../cron_trigger/dashboard/plots.js";
import {State, quantile} from "../../cron_trigger/dashboard/state.js";
import {EventReader} from "../../cron_trigger/dashboard/stream.js";

const cron = (cronName, more = {}) => ({
  cronName,
  description: `About ${cronName}`,
  running: null,
  lastRun: null,
  runs: 0,
  successRate: null,
  medianDurationMs: null,
  recentRuns: [],
  ...more,
});
const run = (id, status = "running", more = {}) => ({
  id,
  cronName: "a",
  status,
  startedAt: "2026-11-24T10:00:00+00:00",
  durationMs: status === "running" ? null : 1000,
  ...more,
});
const event = (name, data, id = "1") => ({id, name, data});

function loaded(...crons) {
  const state = new State();
  state.beginLoad();
  state.load({crons});
  state.loadRest({scheduled: []}, {});
  return state;
}

test("a start and an end change the cron, and are told", () => {
  const state = loaded(cron("a"));
  const told = [];
  for (const kind of ["started", "ended", "run"]) state.on(kind, ({id}) => told.push([kind, id]));
  state.take(event("run.started", {run: run(1)}));
  assert.equal(state.cron("a").running.id, 1);
  state.take(event("run.finished", {run: run(1, "failed")}));
  assert.equal(state.cron("a").running, null);
  assert.equal(state.cron("a").runs, 1);
  assert.equal(state.cron("a").successRate, 0);
  assert.deepEqual(told, [["run", 1], ["started", 1], ["run", 1], ["ended", 1]]);
});

test("that a cron became late is told once, by an event or by an answer after a gap", () => {
  const state = loaded(cron("a"), cron("b"), cron("c", {late: true}));
  const told = [];
  state.on("late", ({cronName}) => told.push(cronName));
  state.take(event("cron.late", {cron: {cronName: "a", dueAt: "2026-11-24T10:00:00+00:00", missed: 1}}));
  state.take(event("cron.late", {cron: {cronName: "a", dueAt: "2026-11-24T11:00:00+00:00", missed: 1}}));
  assert.deepEqual(told, ["a"]);
  state.beginLoad();
  state.load({crons: [cron("a", {late: true}), cron("b", {late: true}), cron("c", {late: true})]});
  assert.deepEqual(told, ["a", "b"]);
});

test("the figures that came with an end are taken as they are", () => {
  const state = loaded(cron("a"));
  const entry = cron("a", {runs: 500, late: false, lastRun: run(1, "completed")});
  state.take(event("run.finished", {run: run(1, "completed"), cron: entry}));
  assert.equal(state.cron("a"), entry);
});

test("an event that comes twice changes nothing", () => {
  const state = loaded(cron("a"));
  for (const _ of [1, 2]) state.take(event("run.finished", {run: run(1, "completed")}));
  assert.equal(state.cron("a").runs, 1);
  state.take(event("run.started", {run: run(1)}));
  assert.equal(state.cron("a").running, null);
});

test("an event during a load is not undone by its older answer", () => {
  const state = loaded(cron("a"));
  state.beginLoad();
  state.take(event("run.started", {run: run(7)}));
  state.take(event("schedule.created", {scheduled: {id: 3, status: "pending"}}));
  state.load({crons: [cron("a")]});
  state.loadRest({scheduled: []}, {});
  assert.equal(state.cron("a").running.id, 7);
  assert.deepEqual(state.plans.map(({id}) => id), [3]);
});

test("an event is not undone by the older answer about its cron alone", () => {
  const state = loaded(cron("a"), cron("b"));
  state.take(event("run.started", {run: run(7)}));
  const since = state.follow();
  state.take(event("run.finished", {run: run(7, "failed")}));
  state.take(event("run.started", {run: run(8, "running", {cronName: "b"})}));
  state.put(cron("b"), []); // a newer answer about another cron stays
  state.put(cron("a", {running: run(7)}), since);
  state.forget(since);
  assert.equal(state.cron("a").running, null);
  assert.equal(state.cron("a").lastRun.id, 7);
  assert.equal(state.cron("b").running, null);
  state.take(event("run.started", {run: run(9)}));
  assert.equal(since.length, 2);
});

test("without events, what was running and is not any more has ended", () => {
  const state = loaded(cron("a", {running: run(4)}));
  const ended = [];
  state.on("ended", ({id}) => ended.push(id));
  state.load({crons: [cron("a", {lastRun: run(4, "failed")})]});
  assert.deepEqual(ended, [4]);
});

test("a cron that is late says so until its entry says otherwise", () => {
  const state = loaded(cron("a"));
  state.take(event("cron.late", {cron: {cronName: "a", dueAt: "", missed: 1}}));
  assert.equal(state.cron("a").late, true);
});

test("what was missed is known from the newest runs", () => {
  const state = loaded(
    cron("a", {lastRun: run(1, "completed")}),
    cron("b", {running: run(2, "running", {cronName: "b"})}),
    cron("c", {lastRun: run(3, "completed", {cronName: "c"})}),
  );
  const runs = [
    run(4, "running"),
    run(3, "completed", {cronName: "c"}),
    run(2, "failed", {cronName: "b"}),
    run(1, "completed"),
  ];
  assert.deepEqual([...state.staleAgainst(runs)].sort(), ["a", "b"]);
});

test("quantiles lie between the values", () => {
  assert.equal(quantile([], 0.5), null);
  assert.equal(quantile([3, 1, 2], 0.5), 2);
  assert.equal(quantile([1, 2], 0.5), 1.5);
  assert.equal(quantile([...Array(101).keys()], 0.95), 95);
});

test("the stream's text is read in any pieces", () => {
  const text = ': joined\n\nid: 5\r\nevent: run.started\r\ndata: {"run": 1}\r\n\r\n:\n\nid: 6\ndata: {"x":\ndata: 2}\n\n';
  const reader = new EventReader();
  const events = [...text].flatMap((letter) => reader.read(letter));
  assert.deepEqual(events, [
    {id: "5", name: "run.started", data: {run: 1}},
    {id: "6", name: "", data: {x: 2}},
  ]);
  assert.equal(reader.id, "6");
});

test("many crons stand in groups by the first part of their name", () => {
  const names = [...Array(10).keys()].flatMap((i) => [`db.${i}`, `web-${i}`]);
  const crons = [...names, "alone", "single-one"].map((name) => cron(name));
  const groups = grouped(crons).map(([name, members]) => [name, members.length]);
  assert.deepEqual(groups, [["db", 10], ["web", 10], ["", 2]]);
  assert.deepEqual(grouped(crons.slice(0, 20)).map(([name]) => name), [null]);
});

test("crons are found by text and by what they are", () => {
  const failed = cron("backup", {description: "Sauvegarde de l'été", lastRun: run(1, "failed")});
  const none = new Set();
  assert.ok(matches(failed, "ete BACK", none));
  assert.ok(!matches(failed, "hiver", none));
  assert.ok(matches(failed, "", new Set(["failed"])));
  assert.ok(!matches(failed, "", new Set(["running", "late"])));
  assert.ok(!matches({...failed, running: run(2)}, "", new Set(["failed"])));
});

test("the address holds filters and the open run, and nothing else", () => {
  const place = placeOf("#cron=a&status=failed&since=2026-11-01&run=12&x=1");
  assert.equal(fragmentOf(place), "cron=a&status=failed&since=2026-11-01&run=12");
  assert.equal(fragmentOf(placeOf("#run=12x&since=yesterday&status=<b>")), "");
});

test("a day that no calendar has is no filter", () => {
  const place = placeOf("#since=2026-13-45&until=2026-00-10");
  assert.deepEqual(momentsOf(place), ["", ""]);
});

test("days are whole days of the viewer, the last one included", () => {
  const [since, until] = momentsOf({since: "2026-11-24", until: "2026-11-24"});
  assert.equal(Date.parse(until) - Date.parse(since), 86400000);
  assert.deepEqual(momentsOf({since: "", until: ""}), ["", ""]);
});

test("a person is found by who asked or from where", () => {
  const asked = {requestedBy: "Amina@example.org", client: "172.18.0.5"};
  assert.ok(isAskedBy(asked, "amina") && isAskedBy(asked, "172.18"));
  assert.ok(!isAskedBy(asked, "bob"));
});

test("an event during a load of the history is not undone by its older answer", async () => {
  const place = {cron: "", status: "", since: "", until: "", who: ""};
  const answers = [];
  const getJson = () => new Promise((resolve) => answers.push(resolve));
  const past = new Past({getJson}, place);
  const statuses = () => past.runs.map(({id, status}) => `${id} ${status}`);
  const loading = past.load();
  past.put(run(7, "failed"));
  answers.pop()({runs: [run(7), run(6)], next: 6});
  await loading;
  assert.deepEqual(statuses(), ["7 failed", "6 running"]);
  const more = past.loadMore();
  past.put(run(5, "failed"));
  past.put(run(4, "failed"));
  answers.pop()({runs: [run(5)], next: 5});
  await more;
  assert.deepEqual(statuses(), ["7 failed", "6 running", "5 failed"]);
});

test("what was searched further by person is still shown after a refresh", async () => {
  const place = {cron: "", status: "", since: "", until: "", who: "ann"};
  const getJson = async (address) => {
    const before = Number(new URLSearchParams(address.split("?")[1]).get("before") ?? 41);
    const runs = Array.from({length: 10}, (_, n) => run(before - 1 - n, "failed", {requestedBy: "ann"}));
    return {runs, next: before > 11 ? before - 10 : null};
  };
  const past = new Past({getJson}, place);
  await past.load();
  const first = past.runs.length;
  await past.loadMore();
  const more = past.runs.length;
  await past.load();
  assert.ok(first < more);
  assert.equal(past.runs.length, more);
});

test("a file of the history has all of it, or says that it ends before", async () => {
  const place = {cron: "", status: "", since: "", until: "", who: ""};
  const serverOf = (count) => ({
    getJson: async (address) => {
      const before = Number(new URLSearchParams(address.split("?")[1]).get("before") ?? count + 1);
      const runs = Array.from({length: Math.min(500, before - 1)}, (_, n) => run(before - 1 - n));
      return {runs, next: before > 501 ? before - 500 : null};
    },
  });
  const few = await new Past(serverOf(1200), place).all();
  assert.deepEqual([few.runs.length, few.runs.at(-1).id, few.whole], [1200, 1, true]);
  const many = await new Past(serverOf(100_700), place).all();
  assert.deepEqual([many.runs.length, many.whole], [100_000, false]);
});

test("an axis has few, round steps", () => {
  assert.deepEqual(axisSteps(3500), [0, 1000, 2000, 3000, 4000]);
  assert.deepEqual(axisSteps(200000), [0, 60000, 120000, 180000, 240000]);
});
