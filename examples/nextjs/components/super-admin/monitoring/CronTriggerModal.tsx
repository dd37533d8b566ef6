"use client";

// The dialog of one cron: what it is, its parameters, start it now or plan it.

import { useEffect, useId, useRef, useState } from "react";
import type { FormEvent } from "react";
import type { Cron, OfServer, Parameter, ParameterValue, Triggered } from "@/lib/cron-trigger";
import { RouteProblem, newKey, trigger } from "./routes";
import type { Wanted } from "./routes";
import { ALREADY_RUNNING, admits, duration, estimatedWords, fullTime, shortTime } from "./words";
import styles from "./monitoring.module.css";

/** How long its success is shown before the dialog closes by itself. */
const CLOSES_AFTER_MS = 2_000;

type Values = Record<string, string | boolean>;

type Phase =
  | { name: "form" }
  | { name: "starting" }
  | { name: "refused"; problem: RouteProblem }
  | { name: "started"; words: string };

export type CronTriggerModalProps = {
  cron: OfServer<Cron>;
  onClose: () => void;
  /** Called as soon as the cron runs, or is planned. */
  onTriggered?: (triggered: Triggered) => void;
};

export function CronTriggerModal({ cron, onClose, onTriggered }: CronTriggerModalProps) {
  const dialog = useRef<HTMLDialogElement>(null);
  const title = useId();
  const [values, setValues] = useState<Values>(() => defaultsOf(cron.parameters));
  const [planning, setPlanning] = useState(false);
  const [runAt, setRunAt] = useState("");
  const [phase, setPhase] = useState<Phase>({ name: "form" });
  // The last request whose outcome nobody knows: sent again, it keeps its key.
  const uncertain = useRef<{ contents: string; key: string } | null>(null);

  useEffect(() => {
    const shown = dialog.current;
    if (shown && !shown.open) shown.showModal();
  }, []);

  useEffect(() => {
    if (phase.name !== "started") return;
    const timer = setTimeout(() => dialog.current?.close(), CLOSES_AFTER_MS);
    return () => clearTimeout(timer);
  }, [phase.name]);

  async function submit(event: FormEvent) {
    event.preventDefault();
    const wanted: Wanted = {
      cronName: cron.cronName,
      server: cron.server,
      params: paramsOf(cron.parameters, values),
      ...(planning && { runAt: new Date(runAt).toISOString() }),
    };
    const contents = JSON.stringify(wanted);
    const key = uncertain.current?.contents === contents ? uncertain.current.key : newKey();
    setPhase({ name: "starting" });
    try {
      const triggered = await trigger(wanted, key);
      uncertain.current = null;
      setPhase({ name: "started", words: successWords(triggered) });
      onTriggered?.(triggered);
    } catch (error) {
      if (!(error instanceof RouteProblem)) throw error;
      uncertain.current = error.isUncertain ? { contents, key } : null;
      setPhase({ name: "refused", problem: error });
    }
  }

  const busy = phase.name === "starting" || phase.name === "started";
  const errors = phase.name === "refused" ? phase.problem.answer.errors : undefined;
  const parameters = Object.entries(cron.parameters);

  return (
    <dialog ref={dialog} className={styles.dialog} aria-labelledby={title} onClose={onClose}>
      <form onSubmit={submit}>
        <header className={styles.dialogHead}>
          <h2 id={title}>{cron.cronName}</h2>
          <button type="button" aria-label="Fermer" onClick={() => dialog.current?.close()}>
            ✕
          </button>
        </header>
        <p>{cron.description}</p>
        <dl className={styles.facts}>
          <dt>Durée estimée</dt>
          <dd>{estimatedWords(cron)}</dd>
          {cron.medianDurationMs !== null && (
            <>
              <dt>Durée habituelle</dt>
              <dd>{duration(cron.medianDurationMs)}</dd>
            </>
          )}
          {cron.nextRunAt && (
            <>
              <dt>Prochaine exécution</dt>
              <dd title={fullTime(cron.nextRunAt)}>{shortTime(cron.nextRunAt)}</dd>
            </>
          )}
        </dl>
        {cron.running && <p className={styles.note}>En cours</p>}

        <fieldset className={styles.fields} disabled={busy}>
          {parameters.map(([name, parameter]) => (
            <Field
              key={name}
              name={name}
              parameter={parameter}
              value={values[name] ?? ""}
              refused={errors?.[name]}
              onChange={(value) => setValues((known) => ({ ...known, [name]: value }))}
            />
          ))}
          {planning && (
            <label className={styles.field}>
              <span>Date et heure ({Intl.DateTimeFormat().resolvedOptions().timeZone})</span>
              <input
                type="datetime-local"
                name="runAt"
                required
                value={runAt}
                onChange={(event) => setRunAt(event.target.value)}
              />
            </label>
          )}
        </fieldset>

        <p role="status" className={styles.success}>
          {phase.name === "started" && phase.words}
        </p>
        <p role="alert" className={styles.refusal}>
          {phase.name === "refused" && refusalWords(phase.problem)}
        </p>

        <footer className={styles.actions}>
          <button type="button" disabled={busy} onClick={() => setPlanning(!planning)}>
            {planning ? "Retour" : "Planifier…"}
          </button>
          <button type="submit" className={styles.primary} disabled={busy}>
            {phase.name === "starting" ? "Démarrage…" : planning ? "Planifier" : "Exécuter maintenant"}
          </button>
        </footer>
      </form>
    </dialog>
  );
}

export default CronTriggerModal;

type FieldProps = {
  name: string;
  parameter: Parameter;
  value: string | boolean;
  refused: string | undefined;
  onChange: (value: string | boolean) => void;
};

function Field({ name, parameter, value, refused, onChange }: FieldProps) {
  const hint = useId();
  const shared = {
    name,
    required: parameter.required === true && parameter.type !== "boolean",
    "aria-describedby": hint,
    "aria-invalid": refused !== undefined,
  };
  const text = String(value);
  return (
    <label className={styles.field}>
      <span>{parameter.title ?? name}</span>
      {parameter.type === "boolean" ? (
        <input
          {...shared}
          type="checkbox"
          checked={value === true}
          onChange={(event) => onChange(event.target.checked)}
        />
      ) : parameter.enum ? (
        <select {...shared} value={text} onChange={(event) => onChange(event.target.value)}>
          {(!shared.required || parameter.default === undefined) && <option value="">—</option>}
          {parameter.enum.map((choice) => (
            <option key={String(choice)}>{String(choice)}</option>
          ))}
        </select>
      ) : (
        <input
          {...shared}
          {...boundsOf(parameter)}
          type={inputType(parameter)}
          autoComplete={parameter.format === "password" ? "new-password" : "off"}
          value={text}
          onChange={(event) => onChange(event.target.value)}
        />
      )}
      <small id={hint}>
        {[parameter.description, admits(parameter)].filter(Boolean).join(" — ")}
        {refused !== undefined && <span className={styles.refusal}> Refusé : {refused}</span>}
      </small>
    </label>
  );
}

function inputType({ type, format }: Parameter): string {
  if (format === "date-time") return "datetime-local";
  if (format) return format;
  return type === "string" ? "text" : "number";
}

function boundsOf(parameter: Parameter) {
  const { type, minimum, maximum, minLength, maxLength } = parameter;
  if (type === "string") return { minLength, maxLength };
  return { min: minimum, max: maximum, step: type === "integer" ? 1 : "any" };
}

function defaultsOf(parameters: Record<string, Parameter>): Values {
  const values: Values = {};
  for (const [name, { type, format, default: usual }] of Object.entries(parameters)) {
    const text = String(usual ?? "");
    if (type === "boolean") values[name] = usual === true;
    else values[name] = text && format === "date-time" ? localTime(text) : text;
  }
  return values;
}

/** As a field for date and time wants it: without an offset, in the browser's time zone. */
function localTime(text: string): string {
  const date = new Date(text);
  const shifted = new Date(date.getTime() - date.getTimezoneOffset() * 60_000);
  return Number.isNaN(date.getTime()) ? "" : shifted.toISOString().slice(0, 16);
}

/** Return what is filled in, each value in its type. */
function paramsOf(parameters: Record<string, Parameter>, values: Values) {
  const params: Record<string, ParameterValue> = {};
  for (const [name, parameter] of Object.entries(parameters)) {
    const value = values[name] ?? "";
    if (typeof value === "boolean") {
      // Not ticked means no, unless nobody asked for an answer.
      if (value || parameter.required || parameter.default !== undefined) params[name] = value;
    } else if (value !== "") params[name] = valueOf(parameter, value);
  }
  return params;
}

function valueOf({ type, format }: Parameter, text: string): ParameterValue {
  if (format === "date-time" && !Number.isNaN(Date.parse(text))) return new Date(text).toISOString();
  return type === "string" ? text : Number(text);
}

function successWords(triggered: Triggered): string {
  if ("runAt" in triggered) return `✅ Déclenchement planifié : ${shortTime(triggered.runAt)}`;
  return "✅ Cron démarré avec succès !";
}

function refusalWords({ message, answer }: RouteProblem): string {
  return answer.code === "already_running" ? ALREADY_RUNNING : message;
}
