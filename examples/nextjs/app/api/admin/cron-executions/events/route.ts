// Live events of all servers in one stream (server-sent events), each with its `server`.
//
//   cron server ──/events──┐
//   cron server ──/events──┴─> this route ──> EventSource
//
// A server that goes away ends its own stream only: it is asked again until it is back, and what
// came meanwhile follows (`Last-Event-ID`).  `event: server` tells { server, reachable }.  An id
// names a position in each server's events, so that a browser that comes back misses nothing.

import { setTimeout as pause } from "node:timers/promises";
import { Fault, chunksOf, cronServers, logFault, open } from "@/lib/cron-trigger";
import type { CronServer } from "@/lib/cron-trigger";
import { asAdmin, streamHeaders } from "../guard";

const FIRST_PAUSE_MS = 1_000;
const LONGEST_PAUSE_MS = 15_000;
/** The server writes at least a comment every 15 s. */
const SILENCE_MS = 45_000;
const PING_MS = 15_000;
/** The browser comes back, and its session is looked at again. */
const LIFE_MS = 15 * 60_000;
/** A reader that is this many pieces behind is dropped, and catches up when it comes back. */
const MOST_BEHIND = 500;

export async function GET(request: Request): Promise<Response> {
  return asAdmin(request, async () => {
    const servers = cronServers();
    const positions = positionsOf(request.headers.get("last-event-id"));
    const stream = new ReadableStream<Uint8Array>(new Relay(servers, positions, request.signal));
    return new Response(stream, { headers: streamHeaders("text/event-stream") });
  });
}

/** `vps1=12,vps2=40` -> each server's last id that the browser has. */
function positionsOf(lastEventId: string | null): Map<string, string> {
  const pairs = (lastEventId ?? "").matchAll(/([^=,\s]+)=(\d{1,15})(?=,|$)/g);
  return new Map([...pairs].map(([, name = "", id = ""]) => [name, id]));
}

/** One browser's stream, fed by a stream from each server. */
class Relay implements UnderlyingDefaultSource<Uint8Array> {
  private readonly encoder = new TextEncoder();
  private readonly end = new AbortController();

  constructor(
    private readonly servers: CronServer[],
    private readonly positions: Map<string, string>,
    private readonly reader: AbortSignal,
  ) {}

  start(controller: ReadableStreamDefaultController<Uint8Array>): void {
    const stop = () => {
      if (this.end.signal.aborted) return;
      this.end.abort();
      controller.close();
    };
    const send = (text: string) => {
      if (this.end.signal.aborted || !text) return;
      controller.enqueue(this.encoder.encode(text));
      if ((controller.desiredSize ?? 0) < -MOST_BEHIND) stop();
    };
    const ping = setInterval(() => send(": ping\n\n"), PING_MS);
    const life = setTimeout(stop, LIFE_MS);
    this.end.signal.addEventListener("abort", () => {
      clearInterval(ping);
      clearTimeout(life);
    });
    this.reader.addEventListener("abort", stop);
    send("retry: 2000\n\n");
    for (const server of this.servers) void this.follow(server, send);
  }

  cancel(): void {
    this.end.abort();
  }

  /** Pass a server's events on until the browser has gone. */
  private async follow(server: CronServer, send: (text: string) => void): Promise<void> {
    const { signal } = this.end;
    let told: boolean | null = null;
    let pauseMs = FIRST_PAUSE_MS;
    const tell = (reachable: boolean) => {
      if (told !== reachable) send(eventText("server", { server: server.name, reachable }));
      told = reachable;
    };
    while (!signal.aborted) {
      try {
        for await (const block of this.blocksOf(server)) {
          tell(true);
          pauseMs = FIRST_PAUSE_MS;
          send(this.passedOn(server, block));
        }
      } catch (error) {
        if (signal.aborted) return;
        // Said once, not at each of its tries.
        if (error instanceof Fault && told !== false) logFault(error);
      }
      tell(false);
      await pause(pauseMs, undefined, { signal }).catch(() => undefined);
      pauseMs = Math.min(pauseMs * 2, LONGEST_PAUSE_MS);
    }
  }

  /** Yield what stands between empty lines; the first comes as soon as the stream is open. */
  private async *blocksOf(server: CronServer): AsyncGenerator<string, void, void> {
    const connection = new AbortController();
    const drop = () => connection.abort();
    this.end.signal.addEventListener("abort", drop, { once: true });
    let silence = setTimeout(drop, SILENCE_MS);
    try {
      const position = this.positions.get(server.name);
      const headers: Record<string, string> = position ? { "Last-Event-ID": position } : {};
      const stream = await open(server, "events", connection.signal, headers);
      const decoder = new TextDecoder();
      let pending = "";
      for await (const chunk of chunksOf(stream)) {
        clearTimeout(silence);
        silence = setTimeout(drop, SILENCE_MS);
        const blocks = (pending + decoder.decode(chunk, { stream: true })).split("\n\n");
        pending = blocks.pop() ?? "";
        yield* blocks;
      }
    } finally {
      clearTimeout(silence);
      this.end.signal.removeEventListener("abort", drop);
      connection.abort();
    }
  }

  /** Return a server's event with the server's name and with all positions; else nothing. */
  private passedOn(server: CronServer, block: string): string {
    const fields = new Map<string, string>();
    for (const line of block.split("\n")) {
      const [, name, value] = /^(id|event|data): ?(.*)$/.exec(line) ?? [];
      if (name !== undefined && value !== undefined) fields.set(name, value);
    }
    const id = fields.get("id");
    const name = fields.get("event");
    if (id) this.positions.set(server.name, id);
    if (!name) return "";
    const data = { ...(JSON.parse(fields.get("data") ?? "{}") as object), server: server.name };
    return `id: ${this.position()}\n${eventText(name, data)}`;
  }

  private position(): string {
    return [...this.positions].map(([name, id]) => `${name}=${id}`).join(",");
  }
}

function eventText(name: string, data: object): string {
  return `event: ${name}\ndata: ${JSON.stringify(data)}\n\n`;
}
