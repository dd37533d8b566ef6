// How the components call this application's own routes; the cron servers are behind them.

import type { ParameterValue, Problem, Triggered } from "@/lib/cron-trigger";

/** With a `basePath` in next.config.ts, put it in front. */
const ROUTES = "/api/admin/cron-executions";
/** A little longer than the routes wait for a cron server. */
const LIMIT_MS = 35_000;

/** An answer that is a refusal, or none at all (`status` 0). */
export class RouteProblem extends Error {
  constructor(
    readonly status: number,
    message: string,
    readonly answer: Partial<Problem> = {},
  ) {
    super(message);
  }

  /** True where nobody knows whether the request was carried out. */
  get isUncertain(): boolean {
    return this.status === 0 || this.status >= 500;
  }
}

export function routeTo(path: string, query: Record<string, string | undefined> = {}): string {
  const given = Object.entries(query).filter((pair): pair is [string, string] => !!pair[1]);
  const search = new URLSearchParams(given).toString();
  return `${ROUTES}${path && `/${path}`}${search && `?${search}`}`;
}

/** Call a route and return its answer; raises RouteProblem. */
export async function call<T>(url: string, init: RequestInit = {}): Promise<T> {
  const signal = AbortSignal.timeout(LIMIT_MS);
  const response = await fetch(url, { cache: "no-store", signal, ...init }).catch(() => null);
  if (!response) throw new RouteProblem(0, "L'application ne répond pas. Réessayez dans un instant.");
  const answer = (await response.json().catch(() => null)) as (T & Partial<Problem>) | null;
  if (response.ok && answer?.success) return answer;
  throw new RouteProblem(
    response.status,
    answer?.error ?? `L'application a répondu ${response.status}.`,
    answer ?? {},
  );
}

/** Send JSON. */
export function send<T>(url: string, body: object, headers: Record<string, string> = {}): Promise<T> {
  return call<T>(url, {
    method: "POST",
    headers: { "Content-Type": "application/json", ...headers },
    body: JSON.stringify(body),
  });
}

export type Wanted = {
  cronName: string;
  server: string;
  params?: Record<string, ParameterValue>;
  runAt?: string;
};

/** Trigger a cron; the same key with the same contents is carried out only once. */
export function trigger(wanted: Wanted, key: string): Promise<Triggered> {
  return send<Triggered>(routeTo("trigger"), wanted, { "Idempotency-Key": key });
}

/** A key for one request and its repetitions (`crypto.randomUUID` exists only under https). */
export function newKey(): string {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return [...bytes].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}
