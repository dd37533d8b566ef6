// What each route does around its work: the session first, then faults become answers.

import { Fault, Refusal, logFault } from "@/lib/cron-trigger";
// Yours: the administrator who is logged in, or null.
import { currentAdmin } from "@/lib/session";

export type Admin = { email: string };

/** Do the work for an administrator; nobody else gets past here. */
export async function asAdmin(
  request: Request,
  work: (admin: Admin, query: URLSearchParams) => Promise<Response>,
): Promise<Response> {
  // Reading the request also keeps Next from answering once and for all when it builds
  // (`export const dynamic` would too, but is refused where cacheComponents is on).
  const query = new URL(request.url).searchParams;
  const admin = await currentAdmin();
  if (!admin) return refuse(401, "unauthorized", "Connectez-vous en tant qu'administrateur.");
  try {
    return await work(admin, query);
  } catch (error) {
    if (error instanceof Refusal) return answer(error.answer, error.status);
    if (error instanceof Fault) return apologize(error);
    throw error;
  }
}

/** Return an answer that no cache keeps. */
export function answer(content: object, status = 200): Response {
  return Response.json(content, { status, headers: { "Cache-Control": "no-store" } });
}

function refuse(status: number, code: string, error: string): Response {
  return answer({ success: false, error, code }, status);
}

/** The details are for the log: the user can't help it. */
function apologize(fault: Fault): Response {
  logFault(fault);
  const { apology: error, code, servers } = fault;
  return answer({ success: false, error, code, ...(servers && { servers }) }, 502);
}

/** Return the object that was sent; raises Refusal. */
export async function jsonOf(request: Request): Promise<Record<string, unknown>> {
  // CSRF: a form on another site can't send this type, so it can't use this session.
  const type = request.headers.get("content-type")?.split(";")[0]?.trim().toLowerCase();
  if (type !== "application/json")
    throw refusal(415, "unsupported_media_type", "Envoyez du JSON (Content-Type: application/json).");
  const content: unknown = await request.json().catch(() => null);
  if (typeof content !== "object" || content === null || Array.isArray(content))
    throw refusal(400, "invalid_request", "Envoyez un objet JSON.");
  return content as Record<string, unknown>;
}

/** Return the id in an address; raises Refusal where it is none. */
export function idOf(text: string): number {
  if (/^[1-9]\d{0,14}$/.test(text)) return Number(text);
  throw refusal(404, "not_found", `« ${text.slice(0, 40)} » n'est pas un numéro.`);
}

function refusal(status: number, code: string, error: string): Refusal {
  return new Refusal(status, { success: false, error, code });
}

/** What the cron server keeps for the audit: at most 200 characters. */
export function nameOf(admin: Admin): string {
  return admin.email.slice(0, 200);
}

/** Headers of a stream: no proxy may gather, compress or keep it. */
export function streamHeaders(type: string): Record<string, string> {
  return {
    "Content-Type": `${type}; charset=utf-8`,
    "Cache-Control": "no-store, no-transform",
    "X-Accel-Buffering": "no",
    // What a script printed is never a page of this application.
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": "default-src 'none'; sandbox",
  };
}
