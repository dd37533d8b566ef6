// Errors in the page's language; command lines; CSV.

import assert from "node:assert/strict";
import {test} from "node:test";

import {clientCommand, curlCommand, quoted} from "../../cron_trigger/dashboard/command.js";
import {csvOf} from "../../cron_trigger/dashboard/csv.js";
import {problemWords, reasonWords, serverWords} from "../../cron_trigger/dashboard/errors.js";
import {ServerError} from "../../cron_trigger/dashboard/server.js";
import {speak} from "../../cron_trigger/dashboard/words.js";

const refused = (status, code, error = "An English sentence.", more = {}) =>
  new ServerError(status, {code, error, ...more});

test("a French page has no English errors", () => {
  speak("fr", ["fr-FR"]);
  assert.match(problemWords(refused(403, "forbidden")), /^Le serveur refuse cette page/);
  assert.match(problemWords(refused(404, "unknown_cron")), /registre/);
  assert.match(problemWords(refused(409, "not_running")), /déjà terminée/);
  assert.match(problemWords(refused(500, "internal_error")), /^Le serveur a rencontré/);
  assert.match(problemWords(refused(504, "")), /^Le serveur est occupé/);
  assert.match(problemWords(refused(0, "")), /^Pas de réponse/);
});

test("what is not known stands as the server's own words", () => {
  speak("fr", ["fr-FR"]);
  assert.match(problemWords(refused(400, "new_code", "Something new.")), /Le serveur dit : Something new\./);
});

test("a parameter's reason is made from its definition", () => {
  speak("fr", ["fr-FR"]);
  const keep = {type: "integer", minimum: 1, maximum: 10};
  assert.equal(reasonWords(keep, 50, "must be at most 10, got 50"), "Au plus 10 ; reçu : 50.");
  assert.equal(reasonWords(keep, 1.5, "expected an integer"), "Un nombre entier est attendu.");
  assert.equal(reasonWords({type: "string", required: true}, undefined, "is required"), "Ce champ est obligatoire.");
  assert.equal(reasonWords({type: "string", maxLength: 2}, "aé𝒳", "x"), "Au plus 2 caractères ; reçu : 3.");
});

test("a reason that only the server can know is translated", () => {
  speak("fr", ["fr-FR"]);
  const word = {type: "string", pattern: "^[a-z]+$"};
  assert.equal(reasonWords(word, "A", "must match the pattern ^[a-z]+$"), "Doit correspondre au motif ^[a-z]+$.");
  assert.equal(reasonWords(undefined, 1, "is not a parameter of this cron"), "Ce cron n'a pas ce paramètre.");
});

test("why a script could not start stands in the page's language", () => {
  const sentence = 'Cron "x" could not be started: its script /opt/x.sh is missing: create it.';
  speak("fr", ["fr-FR"]);
  assert.equal(serverWords(sentence), "Le script /opt/x.sh est introuvable.");
  assert.match(serverWords('Not started: its program "foo" is not installed: it is …'), /programme foo/);
  assert.match(serverWords("Not started: its folder /opt/x is missing: create it."), /dossier \/opt\/x est/);
  assert.match(serverWords("Not started: its folder /opt/x cannot be reached (…): …"), /x est inaccessible/);
  assert.match(serverWords("the folder of its log is missing: mkdir -p /var/log/x"), /\/var\/log\/x est/);
  assert.match(serverWords("The host went down while it ran."), /machine s'est arrêté/);
  assert.equal(serverWords("its script /a b is odd"), "Le serveur dit : its script /a b is odd");
  speak("en");
  assert.equal(serverWords(sentence), sentence);
});

test("a shell takes the command lines word by word", () => {
  assert.equal(quoted("plain-word_1.2/x=y"), "plain-word_1.2/x=y");
  assert.equal(quoted("it's $HOME"), "'it'\\''s $HOME'");
  const body = {cronName: "a", params: {word: "l'été"}, runAt: "2026-11-24T12:00:00+01:00"};
  assert.equal(
    curlCommand("http://h/crons/", {cronName: "a"}, true),
    `curl -H 'Content-Type: application/json' -H "X-Trigger-Secret: $CRON_TRIGGER_SECRET" -d '{"cronName":"a"}' http://h/crons/trigger`,
  );
  assert.equal(
    clientCommand("http://h/", body),
    "cron-trigger trigger a --param 'word=l'\\''été' --at 2026-11-24T12:00:00+01:00 --url http://h/",
  );
});

test("a spreadsheet gets text, never a formula", () => {
  const run = {id: 1, cronName: "a", status: "failed", requestedBy: '=HYPERLINK("x")', params: {a: 1}};
  const [head, line] = csvOf([run]).split("\r\n");
  assert.match(head, /^\ufeffid,cronName,status,/);
  assert.match(line, /,"'=HYPERLINK\(""x""\)",/);
  assert.match(line, /,"\{""a"":1\}",/);
});
