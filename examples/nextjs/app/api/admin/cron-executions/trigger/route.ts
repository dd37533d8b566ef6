// GET lists what can be triggered, on every server; POST triggers one cron, now or later:
// { cronName, params?, runAt?, server? }, with an Idempotency-Key if it may be sent again.

import { ask, askAll, chosenServer, cronServers } from "@/lib/cron-trigger";
import type { AllCrons, CronList, Triggered } from "@/lib/cron-trigger";
import { answer, asAdmin, jsonOf, nameOf } from "../guard";

export async function GET(request: Request): Promise<Response> {
  return asAdmin(request, async () => {
    const { states, answers } = await askAll<CronList>(cronServers(), "crons");
    const crons = answers.flatMap(({ server, answer: { host, crons } }) =>
      crons.map((cron) => ({ ...cron, server: server.name, host: host ?? null })),
    );
    return answer({ success: true, servers: states, crons } satisfies AllCrons);
  });
}

export async function POST(request: Request): Promise<Response> {
  return asAdmin(request, async (admin) => {
    const { server: name, ...wanted } = await jsonOf(request);
    const server = chosenServer(name);
    const key = request.headers.get("idempotency-key");
    const triggered = await ask<Triggered>(server, "trigger", {
      method: "POST",
      // The session, not the browser, says who asked.
      body: { ...wanted, requestedBy: nameOf(admin) },
      headers: key ? { "Idempotency-Key": key } : {},
    });
    return answer({ ...triggered, server: server.name }, 202);
  });
}
