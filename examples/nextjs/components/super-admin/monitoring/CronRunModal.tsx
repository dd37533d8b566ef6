"use client";

// The dialog of one run: what is known of it, its output as it comes, and how to end it.

import { useEffect, useId, useLayoutEffect, useRef, useState } from "react";
import type { OfServer, Run } from "@/lib/cron-trigger";
import { useAnswer, useNow } from "./live";
import { RouteProblem, routeTo, send } from "./routes";
import {
  askedBy,
  duration,
  fullTime,
  outcome,
  plainText,
  shortTime,
  statusWords,
  tookMs,
} from "./words";
import styles from "./monitoring.module.css";

/** What is shown at most; the whole can be downloaded. */
const MOST_SHOWN = 200_000;

export type CronRunModalProps = {
  /** As the history last told it. */
  run: OfServer<Run>;
  onClose: () => void;
  /** Called when something about it changed. */
  onChanged?: () => void;
};

export function CronRunModal({ run: listed, onClose, onChanged }: CronRunModalProps) {
  const dialog = useRef<HTMLDialogElement>(null);
  const title = useId();
  const place = { server: listed.server };
  const own = useAnswer<{ run: OfServer<Run> }>(routeTo(`${listed.id}`, place));
  // The history knows an end sooner than the answer that was fetched when the dialog opened.
  const known = own.answer?.run;
  const run = known && !(known.status === "running" && listed.status !== "running") ? known : listed;
  const now = useNow(run.status === "running");

  useEffect(() => {
    const shown = dialog.current;
    if (shown && !shown.open) shown.showModal();
  }, []);

  const settled = () => {
    own.refresh();
    onChanged?.();
  };
  return (
    <dialog ref={dialog} className={styles.dialog} aria-labelledby={title} onClose={onClose}>
      <header className={styles.dialogHead}>
        <h2 id={title}>
          {run.cronName} <small className={styles.muted}>n° {run.id}</small>
        </h2>
        <button type="button" aria-label="Fermer" onClick={() => dialog.current?.close()}>
          ✕
        </button>
      </header>
      <dl className={styles.facts}>
        <dt>État</dt>
        <dd>
          <span data-status={run.status} className={styles.status}>
            {statusWords(run)}
          </span>{" "}
          {outcome(run)}
        </dd>
        <dt>Début</dt>
        <dd title={fullTime(run.startedAt)}>{shortTime(run.startedAt)}</dd>
        <dt>Durée</dt>
        <dd>{duration(tookMs(run, now))}</dd>
        <dt>Demandé par</dt>
        <dd>{askedBy(run)}</dd>
        {run.cancelledBy && (
          <>
            <dt>Annulé par</dt>
            <dd>{run.cancelledBy}</dd>
          </>
        )}
        {Object.entries(run.params).map(([name, value]) => (
          <Parameter key={name} name={name} value={String(value)} />
        ))}
      </dl>
      <Log run={listed} onEnd={settled} />
      <footer className={styles.actions}>
        <a
          href={routeTo(`${run.id}/log`, place)}
          download={`${run.cronName}-${run.id}.log`}
        >
          Télécharger
        </a>
        {run.status === "running" && <Cancel run={run} onChanged={settled} />}
      </footer>
    </dialog>
  );
}

export default CronRunModal;

function Parameter({ name, value }: { name: string; value: string }) {
  return (
    <>
      <dt>{name}</dt>
      <dd>{value}</dd>
    </>
  );
}

/** What the run printed; while it runs, as it comes. */
function Log({ run, onEnd }: { run: OfServer<Run>; onEnd: () => void }) {
  const [text, setText] = useState("");
  const [state, setState] = useState<"reading" | "whole" | "failed">("reading");
  const box = useRef<HTMLPreElement>(null);
  const atEnd = useRef(true);
  const ended = useRef(onEnd);
  useEffect(() => {
    ended.current = onEnd;
  }, [onEnd]);

  const { id, server } = run;
  useEffect(() => {
    const reading = new AbortController();
    const url = routeTo(`${id}/log`, { server, follow: "true" });
    const take = (piece: string) =>
      setText((known) => (known + plainText(piece)).slice(-MOST_SHOWN));
    const done = (state: "whole" | "failed") => {
      if (reading.signal.aborted) return;
      setState(state);
      ended.current();
    };
    readText(url, reading.signal, take).then(
      () => done("whole"),
      () => done("failed"),
    );
    return () => {
      reading.abort();
      setText("");
    };
  }, [id, server]);

  // It stays at the end unless somebody scrolled up.
  useLayoutEffect(() => {
    if (box.current && atEnd.current) box.current.scrollTop = box.current.scrollHeight;
  }, [text]);
  const watch = () => {
    const { scrollTop, clientHeight, scrollHeight } = box.current ?? document.body;
    atEnd.current = scrollTop + clientHeight >= scrollHeight - 20;
  };

  return (
    <section aria-label="Journal">
      <pre ref={box} className={styles.log} tabIndex={0} onScroll={watch}>
        {text || (state === "reading" ? "Rien d'écrit pour l'instant…" : "")}
      </pre>
      {state === "failed" && (
        <p role="alert" className={styles.refusal}>
          Le journal n&apos;a pas pu être lu jusqu&apos;au bout.
        </p>
      )}
      {state === "whole" && !text && <p>Cette exécution n&apos;a rien écrit.</p>}
    </section>
  );
}

async function readText(url: string, signal: AbortSignal, take: (piece: string) => void) {
  const response = await fetch(url, { signal, cache: "no-store" });
  if (!response.ok || !response.body) throw new RouteProblem(response.status, "");
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    take(value);
  }
}

/** Two presses: the first asks. */
function Cancel({ run, onChanged }: { run: OfServer<Run>; onChanged: () => void }) {
  const [state, setState] = useState<"idle" | "armed" | "sent">("idle");
  const [problem, setProblem] = useState("");
  const words = {
    idle: "Annuler l'exécution",
    armed: "Confirmer l'annulation ?",
    sent: "Annulation…",
  };

  async function press() {
    if (state === "idle") return setState("armed");
    setState("sent");
    try {
      await send(routeTo(`${run.id}/cancel`, { server: run.server }), {});
    } catch (error) {
      if (!(error instanceof RouteProblem)) throw error;
      setProblem(error.message);
      setState("idle");
    }
    onChanged();
  }

  return (
    <>
      <span role="alert" className={styles.refusal}>
        {problem}
      </span>
      <button type="button" disabled={state === "sent" || run.stopping} onClick={press}>
        {words[run.stopping ? "sent" : state]}
      </button>
    </>
  );
}
