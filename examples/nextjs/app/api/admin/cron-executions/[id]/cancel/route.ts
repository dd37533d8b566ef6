// End a run: POST {} as JSON, ?server=.

import { ask, chosenServer } from "@/lib/cron-trigger";
import type { OneRun } from "@/lib/cron-trigger";
import { answer, asAdmin, idOf, jsonOf, nameOf } from "../../guard";

type Context = { params: Promise<{ id: string }> };

export async function POST(request: Request, { params }: Context): Promise<Response> {
  return asAdmin(request, async (admin, query) => {
    await jsonOf(request);
    const server = chosenServer(query.get("server"));
    const { run } = await ask<OneRun>(server, `runs/${idOf((await params).id)}/cancel`, {
      method: "POST",
      body: { requestedBy: nameOf(admin) },
    });
    return answer({ success: true, run: { ...run, server: server.name } }, 202);
  });
}
