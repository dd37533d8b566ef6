// What a run printed, as text: ?server=&tail=N, or ?server=&follow=true, which goes on until the
// run ends, over a restart of the cron server.

import { setTimeout as pause } from "node:timers/promises";
import { Fault, ask, chosenServer, chunksOf, open } from "@/lib/cron-trigger";
import type { CronServer, OneRun } from "@/lib/cron-trigger";
import { asAdmin, idOf, streamHeaders } from "../../guard";

type Context = { params: Promise<{ id: string }> };

const FIRST_PAUSE_MS = 500;
const LONGEST_PAUSE_MS = 10_000;

export async function GET(request: Request, { params }: Context): Promise<Response> {
  return asAdmin(request, async (_admin, query) => {
    const server = chosenServer(query.get("server"));
    const path = `runs/${idOf((await params).id)}`;
    const reader = new AbortController();
    request.signal.addEventListener("abort", () => reader.abort());
    const headers = { headers: streamHeaders("text/plain") };
    if (query.get("follow") !== "true") {
      const tail = query.get("tail");
      const log = `${path}/log${tail ? `?tail=${encodeURIComponent(tail)}` : ""}`;
      return new Response(await open(server, log, reader.signal), headers);
    }
    const first = await open(server, `${path}/log?follow=true`, reader.signal);
    return new Response(streamOf(follow(server, path, first, reader.signal), reader), headers);
  });
}

/**
 * Yield a run's output until it ends.  A stream that breaks, because the server restarts or
 * the script was silent for long, is opened again; what was passed on already is skipped.
 */
async function* follow(
  server: CronServer,
  path: string,
  first: ReadableStream<Uint8Array>,
  signal: AbortSignal,
): AsyncGenerator<Uint8Array, void, void> {
  let stream: ReadableStream<Uint8Array> | null = first;
  let passedOn = 0;
  while (stream) {
    let position = 0;
    let whole = false;
    try {
      for await (const chunk of chunksOf(stream)) {
        const fresh = chunk.subarray(Math.max(0, passedOn - position));
        position += chunk.length;
        passedOn = Math.max(passedOn, position);
        if (fresh.length > 0) yield fresh;
      }
      whole = true;
    } catch {
      // It broke; what is missing comes with the next.
    }
    stream = await openedAgain(server, path, whole, signal);
  }
}

/** Return the rest's stream, or null at the run's end; waits for a server that is away. */
async function openedAgain(
  server: CronServer,
  path: string,
  whole: boolean,
  signal: AbortSignal,
): Promise<ReadableStream<Uint8Array> | null> {
  let pauseMs = FIRST_PAUSE_MS;
  while (!signal.aborted) {
    try {
      const { run } = await ask<OneRun>(server, path);
      if (run.status !== "running" && whole) return null;
      return await open(server, `${path}/log?follow=true`, signal);
    } catch (error) {
      if (!(error instanceof Fault)) return null;
    }
    await pause(pauseMs, undefined, { signal }).catch(() => undefined);
    pauseMs = Math.min(pauseMs * 2, LONGEST_PAUSE_MS);
  }
  return null;
}

function streamOf(
  chunks: AsyncGenerator<Uint8Array, void, void>,
  reader: AbortController,
): ReadableStream<Uint8Array> {
  return new ReadableStream({
    async pull(controller) {
      const { done, value } = await chunks.next();
      if (done) controller.close();
      else controller.enqueue(value);
    },
    cancel() {
      reader.abort();
    },
  });
}
