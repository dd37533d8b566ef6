// The one place that knows the cron servers: the shapes of their answers, their addresses and
// secrets, how long to wait for them, and in which words a refusal reaches an administrator.
// For the server side alone; components import its types, which vanish in the build.

import { readFile } from "node:fs/promises";

// ---- Types: the interface of cron-trigger-server, named as in its docs/openapi.json ----

export type RunStatus =
  | "running"
  | "completed"
  | "failed"
  | "cancelled"
  | "timed_out"
  | "interrupted";

export type ScheduledStatus = "pending" | "fired" | "cancelled" | "missed" | "skipped";

export type ParameterValue = string | number | boolean;

export type Parameter = {
  type: "string" | "integer" | "number" | "boolean";
  title?: string;
  description?: string;
  default?: ParameterValue;
  enum?: ParameterValue[];
  minimum?: number;
  maximum?: number;
  minLength?: number;
  maxLength?: number;
  pattern?: string;
  format?: "date" | "date-time" | "password";
  required?: true;
};

export type Run = {
  id: number;
  cronName: string;
  status: RunStatus;
  stopping: boolean;
  exitCode: number | null;
  signal: string | null;
  startedAt: string;
  completedAt: string | null;
  durationMs: number | null;
  trigger: "http" | "cli" | "schedule";
  requestedBy: string | null;
  client: string | null;
  pid: number | null;
  params: Record<string, ParameterValue>;
  logFile: string | null;
  cpuSeconds: number | null;
  maxRssBytes: number | null;
  cancelledBy: string | null;
  error: string | null;
};

/** Somebody outside the server, such as `flock` in a crontab, holds the cron's lock. */
export type ExternalRun = { id: null; trigger: "external" };

export type RecentRun = {
  id: number;
  status: Exclude<RunStatus, "running">;
  durationMs: number | null;
  startedAt: string;
};

export type Cron = {
  cronName: string;
  description: string;
  estimatedDuration: string | null;
  parameters: Record<string, Parameter>;
  logFile: string;
  user: string | null;
  running: Run | ExternalRun | null;
  lastRun: Run | null;
  schedule: string | null;
  nextRunAt: string | null;
  late: boolean;
  runs: number;
  successRate: number | null;
  medianDurationMs: number | null;
  recentRuns: RecentRun[];
};

export type ScheduledTrigger = {
  id: number;
  cronName: string;
  runAt: string;
  status: ScheduledStatus;
  params: Record<string, ParameterValue>;
  requestedBy: string | null;
  runId: number | null;
  reason: string | null;
  createdAt: string;
};

/** What `POST /trigger` answers: of a run that began, or of one that is planned. */
export type Triggered = {
  success: true;
  cronName: string;
  /** Null in a repeated answer, of a cron that has left the registry. */
  description: string | null;
  logFile: string | null;
} & (
  | {
      message: "Cron execution started in background";
      runId: number;
      pid: number | null;
      startedAt: string;
    }
  | { message: "Cron execution scheduled"; scheduledId: number; runAt: string }
);

export type CronList = { success: true; host: string; crons: Cron[] };
export type RunList = { success: true; runs: Run[]; next: number | null };
export type OneRun = { success: true; run: Run };
export type ScheduledList = { success: true; scheduled: ScheduledTrigger[] };
export type OneScheduled = { success: true; scheduled: ScheduledTrigger };

export type CronEventName =
  | "run.started"
  | "run.finished"
  | "schedule.created"
  | "schedule.cancelled"
  | "schedule.fired"
  | "schedule.skipped"
  | "schedule.missed"
  | "cron.late"
  | "registry.reloaded";

export type Problem = {
  success: false;
  error: string;
  code: string;
  /** `invalid_params`: parameter to reason. */
  errors?: Record<string, string>;
  /** `unknown_cron` */
  availableCrons?: string[];
  /** `already_running` */
  runId?: number | null;
  pid?: number | null;
  startedAt?: string | null;
};

// ---- Types: what this application's own routes answer ----

export type OfServer<T> = T & { server: string };

export type ServerState = { name: string; reachable: boolean; error?: string };

export type AllCrons = {
  success: true;
  servers: ServerState[];
  crons: (OfServer<Cron> & { host: string | null })[];
};
export type AllRuns = {
  success: true;
  servers: ServerState[];
  runs: OfServer<Run>[];
  /** The `before` of the next page; null too where several servers' runs are mixed. */
  next: number | null;
};
export type AllScheduled = {
  success: true;
  servers: ServerState[];
  scheduled: OfServer<ScheduledTrigger>[];
};

// ---- Time limits ----

/** A server that restarts under systemd answers after 10 s; until then the request waits. */
const CHANGE_MS = 30_000;
/** What only reads is asked again anyway. */
const READ_MS = 15_000;
/** One of several servers must not keep the others' answers waiting. */
const ONE_OF_MANY_MS = 4_000;

// ---- Two ways to fail: the user's own, and the infrastructure's, which is never theirs ----

/** What the user can do something about; `answer` is shown to them as it is. */
export class Refusal extends Error {
  constructor(
    readonly status: number,
    readonly answer: Problem & { servers?: string[] },
  ) {
    super(answer.error);
  }
}

const APOLOGIES = {
  misconfigured:
    "Cette application ne sait pas joindre le serveur de crons. Prévenez son administrateur.",
  unreachable: "Le serveur de crons ne répond pas. Réessayez dans un instant.",
  timeout:
    "Le serveur de crons n'a pas répondu à temps. Réessayer est sans risque : la même demande ne part qu'une fois.",
  wrong_secret:
    "Le serveur de crons refuse cette application. Prévenez son administrateur.",
  refused: "Le serveur de crons refuse cette application. Prévenez son administrateur.",
  busy: "Le serveur de crons est occupé. Réessayez dans un instant.",
  launch_failed:
    "Ce cron n'a pas pu démarrer ; rien n'a été lancé. Prévenez l'administrateur du serveur.",
  unexpected:
    "Le serveur de crons a répondu de façon inattendue. Prévenez son administrateur.",
} as const;

/** What went wrong behind the application: the user gets `apology`, the log `message`. */
export class Fault extends Error {
  /** With several servers: what is known of each. */
  servers?: ServerState[];

  constructor(
    readonly code: keyof typeof APOLOGIES,
    message: string,
  ) {
    super(message);
  }

  get apology(): string {
    return APOLOGIES[this.code];
  }
}

/** Write one line, so that nothing a server says can pass for another line. */
export function logFault(fault: Fault): void {
  console.error(`cron-trigger: ${fault.message.replace(/[\x00-\x1f\x7f]+/g, " ")}`);
}

/** The refusals that are the user's, in French; null: the server's own sentence is best. */
const REFUSALS: Record<string, string | null> = {
  already_running: "Ce cron est déjà en cours d'exécution. Attendez sa fin.",
  unknown_cron: "Ce cron n'existe pas, ou plus, sur ce serveur.",
  not_found: "Introuvable : cela n'existe pas, ou plus, sur ce serveur.",
  not_running: "Cette exécution est déjà terminée.",
  not_pending: "Ce déclenchement n'est plus en attente.",
  too_many_scheduled: "Trop de déclenchements sont déjà planifiés. Annulez-en un d'abord.",
  idempotency_mismatch:
    "Cette demande a déjà servi avec un autre contenu. Recommencez depuis le début.",
  invalid_params: "Certains paramètres sont à corriger.",
  invalid_request: null,
  body_too_large: null,
};

const CODES_OF_FAULTS: Record<number, Fault["code"]> = {
  401: "wrong_secret",
  403: "refused",
  421: "refused",
  429: "wrong_secret", // only wrong secrets are slowed down
  503: "busy",
};

const REMEDIES: Partial<Record<Fault["code"], string>> = {
  wrong_secret: " Set CRON_TRIGGER_SECRET or CRON_TRIGGER_SECRET_FILE to this server's secret.",
  refused: " See CRON_TRIGGER_ALLOW and CRON_TRIGGER_ALLOWED_HOSTS of the server.",
};

// ---- Addresses and secrets ----

export type CronServer = { name: string; address: string };

const DEFAULT_ADDRESS = "http://host.docker.internal:9998/trigger";
/** The name of the one server of an address without a list. */
const ONLY = "default";

/**
 * Read CRON_TRIGGER_SERVER_URL: one address, or a list `vps1=http://…/trigger,vps2=…`.
 * Read at each request, never at import: a wrong value must not stop the application.
 */
export function cronServers(): CronServer[] {
  const given = (process.env.CRON_TRIGGER_SERVER_URL ?? DEFAULT_ADDRESS).trim();
  if (!given)
    throw new Fault(
      "misconfigured",
      `CRON_TRIGGER_SERVER_URL is empty; set it to an address such as ${DEFAULT_ADDRESS}.`,
    );
  const isList = given.includes(",") || /^[^=:/]*=/.test(given);
  if (!isList) return [{ name: ONLY, address: given }];
  const servers = given.split(",").filter((item) => item.trim()).map(named);
  if (new Set(servers.map(({ name }) => name)).size < servers.length)
    throw new Fault("misconfigured", "CRON_TRIGGER_SERVER_URL names a server twice.");
  return servers;
}

function named(item: string): CronServer {
  const [, name, address] = /^\s*([A-Za-z0-9][A-Za-z0-9._-]{0,63})=(.*)$/.exec(item) ?? [];
  if (name && address?.trim()) return { name, address: address.trim() };
  throw new Fault(
    "misconfigured",
    "CRON_TRIGGER_SERVER_URL must be one address or a list such as " +
      "vps1=http://10.0.0.1:9998/trigger,vps2=http://10.0.0.2:9998/trigger; " +
      `${JSON.stringify(withoutPassword(item))} is neither.`,
  );
}

/** Return the server of that name, or the only one where none is named. */
export function chosenServer(name: unknown): CronServer {
  const servers = cronServers();
  const [only] = servers;
  if ((name === undefined || name === null) && servers.length === 1 && only) return only;
  const chosen = servers.find((server) => server.name === name);
  if (chosen) return chosen;
  const names = servers.map((server) => server.name);
  throw new Refusal(400, {
    success: false,
    error: `Choisissez le serveur : ${names.join(", ")}.`,
    code: "unknown_server",
    servers: names,
  });
}

/** Return the URL of a path; the address may end in `/trigger`, and have a path before it. */
function urlOf(server: CronServer, path: string): string {
  const base = URL.canParse(server.address) ? new URL(server.address) : null;
  const clean = base && !base.username && !base.password && !base.search && !base.hash;
  if (!clean || !["http:", "https:"].includes(base.protocol))
    throw new Fault(
      "misconfigured",
      "CRON_TRIGGER_SERVER_URL must begin with http:// or https:// and have no user, password, " +
        `query or fragment; ${JSON.stringify(withoutPassword(server.address))} is no such address.`,
    );
  return base.origin + base.pathname.replace(/\/+$/, "").replace(/\/trigger$/, "") + "/" + path;
}

function withoutPassword(address: string): string {
  return address.replace(/\/\/[^/@]*@/, "//…@");
}

/**
 * Return this server's secret, or null: CRON_TRIGGER_SECRET_FILE's first, else that of
 * CRON_TRIGGER_SECRET.  A server of a list, `vps-1`, may have its own in
 * CRON_TRIGGER_VPS_1_SECRET_FILE or CRON_TRIGGER_VPS_1_SECRET.
 */
async function secretOf(server: CronServer): Promise<string | null> {
  const own = `CRON_TRIGGER_${server.name.toUpperCase().replace(/[^A-Z0-9]/g, "_")}_SECRET`;
  const candidates = server.name === ONLY ? ["CRON_TRIGGER_SECRET"] : [own, "CRON_TRIGGER_SECRET"];
  for (const variable of candidates) {
    const file = process.env[`${variable}_FILE`];
    const secret = file
      ? await secretInFile(`${variable}_FILE`, file)
      : process.env[variable]?.trim();
    if (!secret) continue;
    if (/^[\x21-\x7e]+$/.test(secret)) return secret;
    throw new Fault(
      "misconfigured",
      `${variable} has characters that a secret can't have; only visible ASCII can be sent.`,
    );
  }
  return null;
}

/** Read it each time: a secret that was changed is in force at once. */
async function secretInFile(variable: string, path: string): Promise<string> {
  const text = await readFile(path, "utf8").catch((error: NodeJS.ErrnoException) => {
    throw new Fault(
      "misconfigured",
      `${variable}: ${JSON.stringify(path)} can't be read (${error.code ?? error.message}).`,
    );
  });
  if (text.trim()) return text.trim();
  throw new Fault("misconfigured", `${variable}: ${JSON.stringify(path)} is empty.`);
}

// ---- Requests ----

type Question = {
  method?: "GET" | "POST" | "DELETE";
  body?: object;
  headers?: Record<string, string>;
  limitMs?: number;
};

/** Ask one server and return its answer; raises Refusal or Fault. */
export async function ask<T>(server: CronServer, path: string, question: Question = {}): Promise<T> {
  const { method = "GET", limitMs = method === "GET" ? READ_MS : CHANGE_MS } = question;
  const signal = AbortSignal.timeout(limitMs);
  const response = await send(server, path, question, signal);
  const answer = await contentOf(response, server, signal);
  if (answer?.success === true) return answer as T;
  throw unexpected(server, response.status, "not an answer of cron-trigger-server");
}

/**
 * Open a stream: the limit is for its beginning, `signal` for the whole.
 * Raises Refusal or Fault, like `ask`.
 */
export async function open(
  server: CronServer,
  path: string,
  signal: AbortSignal,
  headers: Record<string, string> = {},
): Promise<ReadableStream<Uint8Array>> {
  const opening = new AbortController();
  const limit = setTimeout(() => opening.abort(timeoutError()), READ_MS);
  const stop = () => opening.abort(signal.reason);
  if (signal.aborted) stop();
  signal.addEventListener("abort", stop, { once: true });
  try {
    const response = await send(server, path, { headers }, opening.signal);
    if (response.body) return response.body;
    throw unexpected(server, response.status, "a stream without a body");
  } finally {
    clearTimeout(limit);
  }
}

/** Ask every server at once: one that is down hides no other.  Raises where all are. */
export async function askAll<T>(
  servers: CronServer[],
  path: string,
): Promise<{ states: ServerState[]; answers: { server: CronServer; answer: T }[] }> {
  const faults: Fault[] = [];
  const answers: { server: CronServer; answer: T }[] = [];
  const limitMs = servers.length > 1 ? ONE_OF_MANY_MS : READ_MS;
  const askOne = async (server: CronServer): Promise<ServerState> => {
    try {
      answers.push({ server, answer: await ask<T>(server, path, { limitMs }) });
      return { name: server.name, reachable: true };
    } catch (error) {
      if (!(error instanceof Fault)) throw error;
      faults.push(error);
      return { name: server.name, reachable: false, error: error.apology };
    }
  };
  const states = await Promise.all(servers.map(askOne));
  const [fault, ...others] = faults;
  if (fault && answers.length === 0) {
    others.forEach(logFault);
    fault.servers = states;
    throw fault;
  }
  faults.forEach(logFault);
  // In the order of the list, whoever was quickest.
  answers.sort((a, b) => servers.indexOf(a.server) - servers.indexOf(b.server));
  return { states, answers };
}

async function send(
  server: CronServer,
  path: string,
  question: Question,
  signal: AbortSignal,
): Promise<Response> {
  const url = urlOf(server, path);
  const secret = await secretOf(server);
  const init: RequestInit = {
    method: question.method ?? "GET",
    headers: {
      ...question.headers,
      ...(question.body && { "Content-Type": "application/json" }),
      ...(secret && { "X-Trigger-Secret": secret }),
    },
    body: question.body ? JSON.stringify(question.body) : null,
    cache: "no-store",
    redirect: "manual", // the secret goes nowhere else
    signal,
  };
  const response = await fetch(url, init).catch((error: unknown) => {
    throw silence(server, url, error);
  });
  if (response.ok) return response;
  const content = await contentOf(response, server, signal);
  throw refusalOrFault(server, path, response.status, content);
}

/** Return the JSON object of an answer, or null where it is something else. */
async function contentOf(
  response: Response,
  server: CronServer,
  signal: AbortSignal,
): Promise<{ success?: unknown } | null> {
  const text = await response.text().catch((error: unknown) => {
    throw silence(server, response.url, signal.aborted ? signal.reason : error);
  });
  try {
    const content: unknown = JSON.parse(text);
    return typeof content === "object" ? content : null;
  } catch {
    return null;
  }
}

function refusalOrFault(
  server: CronServer,
  path: string,
  status: number,
  content: { success?: unknown } | null,
): Refusal | Fault {
  if (content?.success !== false) return unexpected(server, status, "not JSON of cron-trigger-server");
  const problem = content as Problem;
  // A list is always there: without it, the address leads elsewhere.
  if (problem.code === "not_found" && !/^\w+\/\d/.test(path)) return unexpected(server, status, "not_found");
  const sentence = REFUSALS[problem.code];
  if (sentence !== undefined && status < 500)
    return new Refusal(status, { ...problem, error: sentence ?? problem.error });
  const code =
    problem.code === "launch_failed" ? "launch_failed" : (CODES_OF_FAULTS[status] ?? "unexpected");
  return new Fault(
    code,
    `${server.name} answered ${status} ${problem.code}: ${problem.error}${REMEDIES[code] ?? ""}`,
  );
}

function unexpected(server: CronServer, status: number, what: string): Fault {
  return new Fault(
    "unexpected",
    `${server.name} answered ${status}, ${what}; does ${withoutPassword(server.address)} lead to it?`,
  );
}

/** Return what a request without an answer means. */
function silence(server: CronServer, url: string, error: unknown): Fault {
  if (error instanceof Error && error.name === "TimeoutError")
    return new Fault("timeout", `${server.name} did not answer in time (${url}).`);
  const cause = error instanceof Error ? (error.cause ?? error) : error;
  const { code, message } = cause as { code?: string; message?: string };
  const unknownName = code === "ENOTFOUND" || code === "EAI_AGAIN";
  const remedy =
    unknownName && url.includes("//host.docker.internal")
      ? ' Give the container extra_hosts: ["host.docker.internal:host-gateway"].'
      : "";
  return new Fault(
    "unreachable",
    `${server.name} can't be reached at ${url}: ${message || code || String(cause)}.${remedy}`,
  );
}

function timeoutError(): DOMException {
  return new DOMException("The operation timed out.", "TimeoutError");
}

/** The pieces of a stream, as they come. */
export async function* chunksOf(
  stream: ReadableStream<Uint8Array>,
): AsyncGenerator<Uint8Array, void, void> {
  const reader = stream.getReader();
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      yield value;
    }
  } finally {
    await reader.cancel().catch(() => undefined);
  }
}
