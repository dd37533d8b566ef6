// A log: its escapes, its carriage returns, its lines, search and layout.

import assert from "node:assert/strict";
import {test} from "node:test";

import {LogLines, Rows, matchesIn} from "../../cron_trigger/dashboard/log-lines.js";
import {AnsiReader, textOf} from "../../cron_trigger/dashboard/log-text.js";

const classesOf = (line) => (typeof line === "string" ? [] : line.spans.map(([, , classes]) => classes));

test("a line without escapes is its text, without control characters", () => {
  assert.equal(new AnsiReader().read("plain\x07 text\x00"), "plain text");
});

test("colours become classes, other escapes nothing", () => {
  const line = new AnsiReader().read("\x1b[31mred\x1b[0m plain \x1b[2K\x1b]0;title\x07end");
  assert.equal(textOf(line), "red plain end");
  assert.deepEqual(line.spans, [[0, 3, "ansi-red"]]);
});

test("a colour goes on over several lines", () => {
  const reader = new AnsiReader();
  reader.read("\x1b[1;92mbegins");
  assert.deepEqual(classesOf(reader.read("goes on")), ["ansi-bold ansi-green"]);
  assert.deepEqual(classesOf(reader.read("\x1b[mends")), []);
});

test("backgrounds and reverse video are kept", () => {
  const read = (line) => classesOf(new AnsiReader().read(line));
  assert.deepEqual(read("\x1b[41mx"), ["ansi-on-red"]);
  assert.deepEqual(read("\x1b[37;104mx"), ["ansi-white ansi-on-blue"]);
  assert.deepEqual(read("\x1b[7mx"), ["ansi-ground ansi-on-text"]);
  assert.deepEqual(read("\x1b[32;7mx\x1b[27my"), ["ansi-ground ansi-on-green", "ansi-green"]);
  assert.deepEqual(read("\x1b[43;49mx"), []);
});

test("256 and 24-bit colours become the nearest of the eight", () => {
  const read = (line) => classesOf(new AnsiReader().read(line));
  assert.deepEqual(read("\x1b[38;5;9mx"), ["ansi-red"]);
  assert.deepEqual(read("\x1b[38;5;46mx"), ["ansi-green"]);
  assert.deepEqual(read("\x1b[48;5;250mx"), ["ansi-on-white"]);
  assert.deepEqual(read("\x1b[38;2;250;10;200;4mx"), ["ansi-underline ansi-magenta"]);
  assert.deepEqual(read("\x1b[38;5;999mx"), []);
});

test("of a progress line its last state is seen", () => {
  assert.equal(new AnsiReader().read("10%\r50%\r100%"), "100%");
  assert.equal(new AnsiReader().read("10%\r50%\r"), "50%");
  assert.equal(new AnsiReader().read("dos line\r"), "dos line");
});

test("progress without a line feed is seen while it is written", () => {
  const log = new LogLines();
  log.append("begin\n10%\r");
  assert.equal(log.length, 2);
  assert.equal(log.line(1), "10%");
  log.append("90%");
  assert.equal(log.line(1), "90%");
  log.append("\r\x1b[31m100%\ndone");
  assert.equal(textOf(log.line(1)), "100%");
  log.end();
  assert.equal(log.text(), "begin\n100%\ndone\n");
  assert.deepEqual(classesOf(log.line(2)), ["ansi-red"]);
});

test("what is not whole yet does not change the colour of what follows", () => {
  const log = new LogLines();
  log.append("\x1b[31mre");
  assert.deepEqual(classesOf(log.line(0)), ["ansi-red"]);
  log.append("d\x1b[0m\nplain\n");
  assert.equal(log.line(1), "plain");
});

test("a search finds all, also in what comes later, and goes round", () => {
  const log = new LogLines();
  log.append("Error one\nfine\nerror two\n");
  log.setQuery("ERROR");
  assert.deepEqual(log.hits, [0, 2]);
  log.append("last error\n");
  assert.deepEqual([log.step(1), log.step(1), log.step(1), log.step(1)], [0, 2, 3, 0]);
  assert.equal(log.step(-1), 3);
  log.setQuery("nowhere");
  assert.equal(log.step(1), null);
  assert.deepEqual(matchesIn("aAbaa", "a"), [[0, 1], [1, 2], [3, 4], [4, 5]]);
});

test("the oldest lines go where there are too many, and are counted", () => {
  const log = new LogLines(100);
  log.append(Array.from({length: 130}, (_, i) => `line ${i}\n`).join(""));
  assert.equal(log.dropped + log.lines.length, 130);
  assert.ok(log.lines.length <= 100 && log.dropped >= 30);
  assert.equal(log.line(log.length - 1), "line 129");
});

test("300,000 lines are kept and searched whole", () => {
  const log = new LogLines();
  log.append(Array.from({length: 300000}, (_, i) => `line ${i}\n`).join(""));
  log.setQuery("line 7 ".trim());
  assert.equal(log.dropped, 0);
  assert.equal(log.hits[0], 7);
});

test("when a line arrived is known for those that came while one looked", () => {
  const log = new LogLines();
  log.append("old\nold\n");
  log.append("new\n", 1000);
  log.append("newer\n", 2000);
  assert.deepEqual([0, 1, 2, 3].map((place) => log.arrivedAt(place)), [null, null, 1000, 2000]);
});

test("wrapped lines take as many rows as they need", () => {
  const log = new LogLines();
  log.append(`${"x".repeat(25)}\n\nshort\n`);
  const rows = new Rows(10);
  rows.update(log);
  assert.equal(rows.count, 5);
  assert.deepEqual([0, 2, 3, 4].map((row) => rows.lineAt(row)), [0, 0, 1, 2]);
  assert.equal(rows.rowOf(2), 4);
  log.append("y".repeat(11));
  rows.update(log);
  assert.equal(rows.count, 7);
  log.append("y".repeat(10));
  rows.update(log);
  assert.equal(rows.count, 8);
});

test("without wrapping a line is a row", () => {
  const log = new LogLines();
  log.append("a\nb\n");
  const rows = new Rows(0);
  rows.update(log);
  assert.deepEqual([rows.count, rows.lineAt(1), rows.rowOf(1)], [2, 1, 1]);
});
