// One run: ?server=.

import { ask, chosenServer } from "@/lib/cron-trigger";
import type { OneRun } from "@/lib/cron-trigger";
import { answer, asAdmin, idOf } from "../guard";

type Context = { params: Promise<{ id: string }> };

export async function GET(request: Request, { params }: Context): Promise<Response> {
  return asAdmin(request, async (_admin, query) => {
    const server = chosenServer(query.get("server"));
    const { run } = await ask<OneRun>(server, `runs/${idOf((await params).id)}`);
    return answer({ success: true, run: { ...run, server: server.name } });
  });
}
