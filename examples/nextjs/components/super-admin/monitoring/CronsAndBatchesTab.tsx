"use client";

// The whole: figures, the grid of buttons, planned triggers and the history, live.

import { useCallback, useState } from "react";
import type { AllCrons, AllRuns, AllScheduled, OfServer, Run, ScheduledTrigger } from "@/lib/cron-trigger";
import { CronQuickTrigger } from "./CronQuickTrigger";
import { CronRunModal } from "./CronRunModal";
import { useAnswer, useLive, useNow } from "./live";
import type { Live } from "./live";
import { RouteProblem, call, routeTo } from "./routes";
import {
  RUN_STATUS,
  SCHEDULED_STATUS,
  askedBy,
  duration,
  fullTime,
  outcome,
  percent,
  shortTime,
  statusWords,
  tookMs,
} from "./words";
import styles from "./monitoring.module.css";

const PAGE = 50;
/** What one answer of the cron server holds at most. */
const MOST = 500;

type Filter = { cron: string; server: string; status: string };

export function CronsAndBatchesTab() {
  const [filter, setFilter] = useState<Filter>({ cron: "", server: "", status: "" });
  const [limit, setLimit] = useState(PAGE);
  const crons = useAnswer<AllCrons>(routeTo("trigger"));
  const runs = useAnswer<AllRuns>(routeTo("", { ...filter, limit: String(limit) }));
  const plans = useAnswer<AllScheduled>(routeTo("scheduled"));
  const [refreshCrons, refreshRuns, refreshPlans] = [crons.refresh, runs.refresh, plans.refresh];
  const refresh = useCallback(() => {
    refreshCrons();
    refreshRuns();
    refreshPlans();
  }, [refreshCrons, refreshRuns, refreshPlans]);
  const live = useLive(refresh);
  const several = (crons.answer?.servers.length ?? 0) > 1;

  return (
    <div className={styles.tab}>
      <Connection live={live} />
      {crons.answer && <Figures crons={crons.answer.crons} />}
      <section aria-label="Déclenchement Manuel">
        <h2>Déclenchement Manuel</h2>
        <CronQuickTrigger crons={crons} onTriggered={refresh} />
      </section>
      {plans.answer && (
        <Planned plans={plans.answer.scheduled} several={several} onChanged={refresh} />
      )}
      <section aria-label="Historique">
        <h2>Historique</h2>
        <Filters
          crons={crons.answer?.crons ?? []}
          several={several}
          filter={filter}
          onChange={(changed) => {
            setFilter(changed);
            setLimit(PAGE);
          }}
        />
        {runs.problem && (
          <p role="alert" className={styles.refusal}>
            {runs.problem.message}
          </p>
        )}
        {runs.answer ? (
          <History runs={runs.answer.runs} several={several} onChanged={refresh} />
        ) : (
          !runs.problem && <p>Chargement…</p>
        )}
        {runs.answer && runs.answer.runs.length >= limit && limit < MOST && (
          <button onClick={() => setLimit(Math.min(limit + PAGE, MOST))}>Afficher plus</button>
        )}
      </section>
    </div>
  );
}

export default CronsAndBatchesTab;

function Connection({ live }: { live: Live }) {
  const words = {
    connecting: "Connexion…",
    live: "En direct",
    polling: "Actualisation toutes les 30 s (pas de flux d'événements)",
  };
  const { connection, ended } = live;
  return (
    <p role="status" className={styles.muted} data-connection={connection}>
      {words[connection]}
      {ended && ` · ${ended.cronName} : ${statusWords(ended)} après ${duration(ended.durationMs)}`}
    </p>
  );
}

function Figures({ crons }: { crons: AllCrons["crons"] }) {
  const runs = crons.reduce((sum, cron) => sum + cron.runs, 0);
  const good = crons.reduce((sum, cron) => sum + cron.runs * (cron.successRate ?? 0), 0);
  const durations = crons.flatMap((cron) => cron.recentRuns.map((run) => run.durationMs ?? []));
  const figures = {
    Exécutions: runs.toLocaleString("fr-FR"),
    "Taux de réussite": percent(runs > 0 ? good / runs : null),
    "En cours": crons.filter((cron) => cron.running).length,
    "Durée médiane": duration(medianOf(durations.flat())),
  };
  return (
    <dl className={styles.figures}>
      {Object.entries(figures).map(([name, figure]) => (
        <div key={name}>
          <dt>{name}</dt>
          <dd>{figure}</dd>
        </div>
      ))}
    </dl>
  );
}

function medianOf(numbers: number[]): number | null {
  const sorted = [...numbers].sort((a, b) => a - b);
  return sorted[Math.floor(sorted.length / 2)] ?? null;
}

type PlannedProps = {
  plans: OfServer<ScheduledTrigger>[];
  several: boolean;
  onChanged: () => void;
};

function Planned({ plans, several, onChanged }: PlannedProps) {
  const [problem, setProblem] = useState("");
  const shown = plans.filter((plan) => plan.status === "pending" || plan.reason);

  async function cancel({ id, server }: OfServer<ScheduledTrigger>) {
    try {
      await call(routeTo(`scheduled/${id}`, { server }), { method: "DELETE" });
      setProblem("");
    } catch (error) {
      if (!(error instanceof RouteProblem)) throw error;
      setProblem(error.message);
    }
    onChanged();
  }

  return (
    <section aria-label="Planifiés">
      <h2>Planifiés</h2>
      <p role="alert" className={styles.refusal}>
        {problem}
      </p>
      {shown.length === 0 && <p>Rien de prévu.</p>}
      <ul className={styles.plans}>
        {shown.slice(0, 20).map((plan) => (
          <li key={`${plan.server}/${plan.id}`} data-scheduled={plan.id}>
            {plan.cronName}
            {several && ` (${plan.server})`} :{" "}
            <time dateTime={plan.runAt} title={fullTime(plan.runAt)}>
              {shortTime(plan.runAt)}
            </time>{" "}
            <span data-status={plan.status} className={styles.status}>
              {SCHEDULED_STATUS[plan.status]}
            </span>{" "}
            {plan.status === "pending" ? (
              <button onClick={() => cancel(plan)} aria-label={`Annuler : ${plan.cronName}`}>
                Annuler
              </button>
            ) : (
              <small className={styles.muted}>{plan.reason}</small>
            )}
          </li>
        ))}
      </ul>
    </section>
  );
}

type FiltersProps = {
  crons: AllCrons["crons"];
  several: boolean;
  filter: Filter;
  onChange: (filter: Filter) => void;
};

function Filters({ crons, several, filter, onChange }: FiltersProps) {
  const nameOf = (cron: string, server: string) => (cron ? `${server}/${cron}` : "");
  return (
    <p className={styles.filters}>
      <select
        aria-label="Filtrer par cron"
        value={nameOf(filter.cron, filter.server)}
        onChange={(event) => {
          const [server = "", cron = ""] = event.target.value.split("/");
          onChange({ ...filter, cron, server });
        }}
      >
        <option value="">Tous les crons</option>
        {crons.map(({ cronName, server }) => (
          <option key={nameOf(cronName, server)} value={nameOf(cronName, server)}>
            {several ? `${cronName} (${server})` : cronName}
          </option>
        ))}
      </select>
      <select
        aria-label="Filtrer par état"
        value={filter.status}
        onChange={(event) => onChange({ ...filter, status: event.target.value })}
      >
        <option value="">Tous les états</option>
        {Object.entries(RUN_STATUS).map(([status, words]) => (
          <option key={status} value={status}>
            {words}
          </option>
        ))}
      </select>
    </p>
  );
}

type HistoryProps = { runs: OfServer<Run>[]; several: boolean; onChanged: () => void };

function History({ runs, several, onChanged }: HistoryProps) {
  const [opened, setOpened] = useState<OfServer<Run> | null>(null);
  const now = useNow(runs.some((run) => run.status === "running"));
  const isOpened = (run: OfServer<Run>) => run.id === opened?.id && run.server === opened.server;
  if (runs.length === 0 && !opened) return <p>Aucune exécution.</p>;
  return (
    <div className={styles.wide}>
      <table className={styles.history}>
        <thead>
          <tr>
            <th scope="col">Cron</th>
            {several && <th scope="col">Serveur</th>}
            <th scope="col">État</th>
            <th scope="col">Début</th>
            <th scope="col">Durée</th>
            <th scope="col">Demandé par</th>
            <th scope="col">
              <span className={styles.unseen}>Détails</span>
            </th>
          </tr>
        </thead>
        <tbody>
          {runs.map((run) => (
            <tr key={`${run.server}/${run.id}`} data-run={run.id}>
              <td>{run.cronName}</td>
              {several && <td>{run.server}</td>}
              <td title={outcome(run)}>
                <span data-status={run.status} className={styles.status}>
                  {statusWords(run)}
                </span>
              </td>
              <td title={fullTime(run.startedAt)}>{shortTime(run.startedAt)}</td>
              <td>{duration(tookMs(run, now))}</td>
              <td>{askedBy(run)}</td>
              <td>
                <button onClick={() => setOpened(run)} aria-label={`Journal : ${run.cronName} n° ${run.id}`}>
                  Journal
                </button>
              </td>
            </tr>
          ))}
        </tbody>
      </table>
      {opened && (
        <CronRunModal
          key={`${opened.server}/${opened.id}`}
          run={runs.find(isOpened) ?? opened}
          onClose={() => setOpened(null)}
          onChanged={onChanged}
        />
      )}
    </div>
  );
}
