// What keeps the components up to date: answers that are fetched again, and the live events.

import { useCallback, useEffect, useRef, useState } from "react";
import type { CronEventName, OfServer, Run } from "@/lib/cron-trigger";
import { RouteProblem, call, routeTo } from "./routes";

const REFRESH_MS = 30_000;
/** Events that come together cost one refresh. */
const TOGETHER_MS = 150;
/** The browser gives up on a stream that is refused (a proxy's 502, a session that ended). */
const REOPEN_MS = 10_000;

const EVENTS: (CronEventName | "server")[] = [
  "run.started",
  "run.finished",
  "schedule.created",
  "schedule.cancelled",
  "schedule.fired",
  "schedule.skipped",
  "schedule.missed",
  "cron.late",
  "registry.reloaded",
  "server",
];

export type Answered<T> = {
  /** The last good answer, kept while the next is fetched and where that fails. */
  answer: T | null;
  problem: RouteProblem | null;
  refresh: () => void;
};

/** Fetch a route's answer; null fetches nothing. */
export function useAnswer<T>(url: string | null): Answered<T> {
  const [state, setState] = useState<{ answer: T | null; problem: RouteProblem | null }>({
    answer: null,
    problem: null,
  });
  // An answer that comes after a later one's is old, and dropped.
  const asked = useRef(0);
  const shown = useRef(0);
  const refresh = useCallback(() => {
    if (url === null) return;
    const mine = ++asked.current;
    const isNews = () => mine >= shown.current && !!(shown.current = mine);
    call<T>(url).then(
      (answer) => isNews() && setState({ answer, problem: null }),
      (problem: RouteProblem) => isNews() && setState(({ answer }) => ({ answer, problem })),
    );
  }, [url]);
  useEffect(() => {
    refresh();
    return () => {
      shown.current = ++asked.current;
    };
  }, [refresh]);
  return { ...state, refresh };
}

export type Live = {
  /** "polling": no stream for now; it is refreshed every 30 s all the same. */
  connection: "connecting" | "live" | "polling";
  /** The run whose end was told last. */
  ended: OfServer<Run> | null;
};

/**
 * Call `refresh` on each live event, every 30 s, and when the page is looked at again.
 * A hidden page has no stream: browsers allow six connections, over all tabs.
 */
export function useLive(refresh: () => void, enabled = true): Live {
  const [live, setLive] = useState<Live>({ connection: "connecting", ended: null });
  const newest = useRef(refresh);
  useEffect(() => {
    newest.current = refresh;
  }, [refresh]);

  useEffect(() => {
    if (!enabled) return;
    let source: EventSource | null = null;
    let soon: ReturnType<typeof setTimeout> | undefined;
    let reopen: ReturnType<typeof setTimeout> | undefined;
    const say = (connection: Live["connection"]) => setLive((known) => ({ ...known, connection }));
    const refreshSoon = () => {
      clearTimeout(soon);
      soon = setTimeout(() => newest.current(), TOGETHER_MS);
    };
    const take = (event: MessageEvent<string>) => {
      refreshSoon();
      if (event.type !== "run.finished") return;
      const { run, server } = JSON.parse(event.data) as { run: Run; server: string };
      setLive({ connection: "live", ended: { ...run, server } });
    };
    const close = () => {
      clearTimeout(reopen);
      source?.close();
      source = null;
    };
    const start = () => {
      close();
      const opened = new EventSource(routeTo("events"));
      source = opened;
      opened.onopen = () => say("live");
      opened.onerror = () => {
        say("polling");
        if (opened.readyState === EventSource.CLOSED) reopen = setTimeout(start, REOPEN_MS);
      };
      for (const name of EVENTS) opened.addEventListener(name, take);
    };
    const look = () => {
      if (document.hidden) return close();
      start();
      refreshSoon();
    };
    const ticking = setInterval(() => !document.hidden && newest.current(), REFRESH_MS);
    document.addEventListener("visibilitychange", look);
    if (!document.hidden) start();
    return () => {
      close();
      clearTimeout(soon);
      clearInterval(ticking);
      document.removeEventListener("visibilitychange", look);
    };
  }, [enabled]);
  return live;
}

/** The time, each second while `ticking`; null before the first. */
export function useNow(ticking: boolean): number | null {
  const [now, setNow] = useState<number | null>(null);
  useEffect(() => {
    if (!ticking) return;
    const tick = () => setNow(Date.now());
    const first = setTimeout(tick);
    const timer = setInterval(tick, 1000);
    return () => {
      clearTimeout(first);
      clearInterval(timer);
    };
  }, [ticking]);
  return now;
}
