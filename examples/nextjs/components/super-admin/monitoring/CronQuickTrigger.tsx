"use client";

// The grid of buttons, one for each cron, by server where there are several.

import { useState } from "react";
import type { AllCrons, Cron, OfServer, ServerState } from "@/lib/cron-trigger";
import { CronTriggerModal } from "./CronTriggerModal";
import { useAnswer, useLive, useNow } from "./live";
import type { Answered } from "./live";
import { routeTo } from "./routes";
import { duration, fullTime, shortTime, statusWords, usualMs } from "./words";
import styles from "./monitoring.module.css";

type ListedCron = AllCrons["crons"][number];

export type CronQuickTriggerProps = {
  /** What `useAnswer` gave to whoever shows more of it; by itself, it fetches its own. */
  crons?: Answered<AllCrons>;
  /** Called as soon as a cron was started or planned. */
  onTriggered?: () => void;
};

export function CronQuickTrigger({ crons: given, onTriggered }: CronQuickTriggerProps) {
  const own = useAnswer<AllCrons>(given ? null : routeTo("trigger"));
  useLive(own.refresh, !given);
  const { answer, problem, refresh } = given ?? own;
  const [chosen, setChosen] = useState<ListedCron | null>(null);
  const now = useNow(answer?.crons.some((cron) => cron.running) ?? false);

  if (!answer) {
    return problem ? <Failure problem={problem.message} onRetry={refresh} /> : <p>Chargement…</p>;
  }
  const several = answer.servers.length > 1;
  return (
    <div>
      {problem && <Failure problem={problem.message} onRetry={refresh} />}
      {answer.servers.map((server) => (
        <Group
          key={server.name}
          server={server}
          crons={answer.crons.filter((cron) => cron.server === server.name)}
          titled={several}
          now={now}
          onChoose={setChosen}
        />
      ))}
      {chosen && (
        <CronTriggerModal
          key={`${chosen.server}/${chosen.cronName}`}
          cron={current(answer, chosen)}
          onClose={() => setChosen(null)}
          onTriggered={() => {
            refresh();
            onTriggered?.();
          }}
        />
      )}
    </div>
  );
}

export default CronQuickTrigger;

/** Return the cron as it is now; it may have left the registry under an open dialog. */
function current(answer: AllCrons, chosen: ListedCron): ListedCron {
  const { server, cronName } = chosen;
  return (
    answer.crons.find((cron) => cron.server === server && cron.cronName === cronName) ?? chosen
  );
}

function Failure({ problem, onRetry }: { problem: string; onRetry: () => void }) {
  return (
    <p role="alert" className={styles.refusal}>
      {problem} <button onClick={onRetry}>Réessayer</button>
    </p>
  );
}

type GroupProps = {
  server: ServerState;
  crons: ListedCron[];
  titled: boolean;
  now: number | null;
  onChoose: (cron: ListedCron) => void;
};

function Group({ server, crons, titled, now, onChoose }: GroupProps) {
  const host = crons[0]?.host;
  return (
    <section aria-label={server.name} data-server={server.name}>
      {titled && (
        <h3>
          {server.name}
          {host && host !== server.name && <small className={styles.muted}> {host}</small>}
        </h3>
      )}
      {!server.reachable && (
        <p role="alert" className={styles.refusal}>
          {server.error}
        </p>
      )}
      {server.reachable && crons.length === 0 && <p>Aucun cron dans le registre de ce serveur.</p>}
      <ul className={styles.grid}>
        {crons.map((cron) => (
          <Card
            key={cron.cronName}
            cron={cron}
            heading={titled ? "h4" : "h3"}
            now={now}
            onChoose={() => onChoose(cron)}
          />
        ))}
      </ul>
    </section>
  );
}

type CardProps = {
  cron: ListedCron;
  heading: "h3" | "h4";
  now: number | null;
  onChoose: () => void;
};

function Card({ cron, heading: Heading, now, onChoose }: CardProps) {
  return (
    <li className={styles.card} data-cron={cron.cronName}>
      <Heading>{cron.cronName}</Heading>
      <p>{cron.description}</p>
      <State cron={cron} now={now} />
      <button className={styles.primary} onClick={onChoose} aria-label={`▶ Exécuter : ${cron.cronName}`}>
        ▶ Exécuter
      </button>
    </li>
  );
}

function State({ cron, now }: { cron: OfServer<Cron>; now: number | null }) {
  const { running, lastRun } = cron;
  return (
    <p className={styles.muted}>
      {running ? (
        <Running running={running} usual={usualMs(cron)} now={now} />
      ) : lastRun ? (
        <span title={fullTime(lastRun.startedAt)}>
          <span data-status={lastRun.status} className={styles.status}>
            {statusWords(lastRun)}
          </span>{" "}
          {shortTime(lastRun.startedAt)}
        </span>
      ) : (
        "Jamais exécuté"
      )}
      {cron.late && <strong className={styles.refusal}> En retard</strong>}
    </p>
  );
}

type RunningProps = {
  running: NonNullable<Cron["running"]>;
  usual: number | null;
  now: number | null;
};

function Running({ running, usual, now }: RunningProps) {
  const badge = (words: string) => (
    <span data-status="running" className={styles.status}>
      {words}
    </span>
  );
  if (running.id === null) return <>{badge("En cours")} hors du serveur</>;
  const elapsed = now === null ? null : Math.max(0, now - Date.parse(running.startedAt));
  return (
    <>
      {badge(statusWords(running))} {elapsed !== null && duration(elapsed)}
      {elapsed !== null && usual !== null && (
        <progress max={usual} value={Math.min(elapsed, usual)} aria-label="Avancement" />
      )}
    </>
  );
}
