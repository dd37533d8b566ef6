// The words and numbers that people read, in French.

import type { Cron, Parameter, Run, RunStatus, ScheduledStatus } from "@/lib/cron-trigger";

export const ALREADY_RUNNING = "Ce cron est déjà en cours d'exécution. Attendez sa fin.";

export const RUN_STATUS: Record<RunStatus, string> = {
  running: "En cours",
  completed: "Réussi",
  failed: "Échec",
  cancelled: "Annulé",
  timed_out: "Délai dépassé",
  interrupted: "Interrompu",
};

export const SCHEDULED_STATUS: Record<ScheduledStatus, string> = {
  pending: "Prévu",
  fired: "Démarré",
  cancelled: "Annulé",
  missed: "Manqué",
  skipped: "Sauté",
};

const TRIGGERS: Record<Run["trigger"], string> = {
  http: "par HTTP",
  cli: "en ligne de commande",
  schedule: "planifié",
};

export function statusWords(run: Pick<Run, "status" | "stopping">): string {
  return run.stopping ? "Annulation…" : RUN_STATUS[run.status];
}

/** Who asked for a run, or else by which way it came. */
export function askedBy(run: Run): string {
  return run.requestedBy ?? TRIGGERS[run.trigger] ?? run.trigger;
}

/** Why a run ended as it did: `exit 2`, `SIGTERM`. */
export function outcome(run: Run): string {
  if (run.error) return run.error;
  if (run.signal) return `tué par ${run.signal}`;
  return run.exitCode ? `exit ${run.exitCode}` : "";
}

/** 840 ms · 2,1 s · 1 min 30 s · 2 h 05 min · 3 j 4 h */
export function duration(ms: number | null | undefined): string {
  if (ms === null || ms === undefined) return "–";
  if (ms < 1000) return `${Math.round(ms)} ms`;
  if (ms < 9_950) return `${decimal(ms / 1000)} s`;
  const seconds = Math.round(ms / 1000);
  const minutes = Math.floor(seconds / 60);
  const hours = Math.floor(minutes / 60);
  if (minutes < 1) return `${seconds} s`;
  if (hours < 1) return `${minutes} min${seconds % 60 ? ` ${two(seconds % 60)} s` : ""}`;
  if (hours < 24) return `${hours} h${minutes % 60 ? ` ${two(minutes % 60)} min` : ""}`;
  return `${Math.floor(hours / 24)} j ${hours % 24} h`;
}

function two(number: number): string {
  return String(number).padStart(2, "0");
}

function decimal(number: number): string {
  return number.toLocaleString("fr-FR", { maximumFractionDigits: 1 });
}

/** The registry's `1m30s` in milliseconds; null where there is none. */
function registryMs(text: string | null): number | null {
  const units: Record<string, number> = { ms: 1, s: 1e3, m: 6e4, h: 36e5, d: 864e5 };
  const parts = [...(text ?? "").matchAll(/([\d.]+)\s*(ms|[dhms])/g)];
  if (parts.length === 0) return null;
  return parts.reduce((sum, [, amount, unit]) => sum + Number(amount) * (units[unit ?? ""] ?? 0), 0);
}

/** What its runs usually take, else what the registry says; null: nobody knows. */
export function usualMs(cron: Cron): number | null {
  return cron.medianDurationMs ?? registryMs(cron.estimatedDuration);
}

export function estimatedWords(cron: Cron): string {
  return duration(registryMs(cron.estimatedDuration) ?? cron.medianDurationMs);
}

export function percent(share: number | null): string {
  return share === null ? "–" : `${decimal(share * 100)} %`;
}

/** What a run took, or what it has taken by now. */
export function tookMs(run: Run, now: number | null): number | null {
  if (run.status !== "running" || now === null) return run.durationMs;
  return Math.max(0, now - Date.parse(run.startedAt));
}

/** In the browser's time zone. */
export function shortTime(text: string): string {
  const date = new Date(text);
  const today = new Date();
  const sameDay = date.toDateString() === today.toDateString();
  const sameYear = date.getFullYear() === today.getFullYear();
  return date.toLocaleString("fr-FR", {
    ...(!sameDay && { day: "numeric", month: "short" }),
    ...(!sameYear && { year: "numeric" }),
    hour: "2-digit",
    minute: "2-digit",
    second: "2-digit",
  });
}

/** With the time zone, for tooltips. */
export function fullTime(text: string): string {
  return new Date(text).toLocaleString("fr-FR", { dateStyle: "full", timeStyle: "long" });
}

/** What a parameter admits: `nombre entier, de 1 à 30`. */
export function admits(parameter: Parameter): string {
  const { type, format, minimum, maximum, minLength, maxLength, pattern } = parameter;
  const kinds = {
    string: "",
    integer: "nombre entier",
    number: "nombre",
    boolean: "",
  };
  return [
    format ? "" : kinds[type],
    range(minimum, maximum),
    range(minLength, maxLength, " caractères"),
    pattern ? `de la forme ${pattern}` : "",
    parameter.required ? "" : "facultatif",
  ]
    .filter(Boolean)
    .join(", ");
}

function range(least?: number, most?: number, unit = ""): string {
  if (least !== undefined && most !== undefined) return `de ${least} à ${most}${unit}`;
  if (least !== undefined) return `au moins ${least}${unit}`;
  return most !== undefined ? `au plus ${most}${unit}` : "";
}

/** What a script printed, without the escapes that would colour a terminal. */
export function plainText(output: string): string {
  return output.replace(/\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|[ -/]*[0-~])|[\x00-\x08\x0b-\x1f\x7f]/g, "");
}
