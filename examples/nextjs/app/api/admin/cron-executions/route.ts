// The history, newest first: ?server=&cron=&status=&since=&until=&limit=&before=.
// Without a server, that of all of them; their pages can't be turned, so `next` is null then.

import { ask, askAll, chosenServer, cronServers } from "@/lib/cron-trigger";
import type { AllRuns, OfServer, Run, RunList } from "@/lib/cron-trigger";
import { answer, asAdmin } from "./guard";

const FILTERS = ["cron", "status", "since", "until", "limit", "before"];
const USUAL_LIMIT = 50;

export async function GET(request: Request): Promise<Response> {
  return asAdmin(request, async (_admin, query) => {
    const servers = cronServers();
    const path = `runs?${filtersOf(query)}`;
    if (servers.length > 1 && !query.get("server"))
      return answer(await mixed(path, Number(query.get("limit")) || USUAL_LIMIT));
    const server = chosenServer(query.get("server"));
    const { runs, next } = await ask<RunList>(server, path);
    return answer({
      success: true,
      servers: [{ name: server.name, reachable: true }],
      runs: runs.map((run) => ({ ...run, server: server.name })),
      next,
    } satisfies AllRuns);
  });
}

function filtersOf(query: URLSearchParams): URLSearchParams {
  const filters = new URLSearchParams({ limit: String(USUAL_LIMIT) });
  for (const name of FILTERS) {
    const value = query.get(name);
    if (value) filters.set(name, value);
  }
  return filters;
}

async function mixed(path: string, limit: number): Promise<AllRuns> {
  const { states, answers } = await askAll<RunList>(cronServers(), path);
  const runs = answers.flatMap(({ server, answer: { runs } }) =>
    runs.map((run) => ({ ...run, server: server.name })),
  );
  runs.sort((a: OfServer<Run>, b: OfServer<Run>) => Date.parse(b.startedAt) - Date.parse(a.startedAt));
  return { success: true, servers: states, runs: runs.slice(0, limit), next: null };
}
