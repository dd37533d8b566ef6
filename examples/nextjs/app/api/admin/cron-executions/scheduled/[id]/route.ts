// Cancel a planned trigger: DELETE, ?server=.

import { ask, chosenServer } from "@/lib/cron-trigger";
import type { OneScheduled } from "@/lib/cron-trigger";
import { answer, asAdmin, idOf } from "../../guard";

type Context = { params: Promise<{ id: string }> };

export async function DELETE(request: Request, { params }: Context): Promise<Response> {
  // CSRF: a browser asks first whether another site may send DELETE, and hears no.
  return asAdmin(request, async (_admin, query) => {
    const server = chosenServer(query.get("server"));
    const { scheduled } = await ask<OneScheduled>(server, `scheduled/${idOf((await params).id)}`, {
      method: "DELETE",
    });
    return answer({ success: true, scheduled: { ...scheduled, server: server.name } });
  });
}
