// The planned triggers of every server, the pending ones first.

import { askAll, cronServers } from "@/lib/cron-trigger";
import type { AllScheduled, ScheduledList } from "@/lib/cron-trigger";
import { answer, asAdmin } from "../guard";

export async function GET(request: Request): Promise<Response> {
  return asAdmin(request, async () => {
    const { states, answers } = await askAll<ScheduledList>(cronServers(), "scheduled");
    const scheduled = answers.flatMap(({ server, answer: { scheduled } }) =>
      scheduled.map((planned) => ({ ...planned, server: server.name })),
    );
    return answer({ success: true, servers: states, scheduled } satisfies AllScheduled);
  });
}
