/*
 * What the server says, as types.  Nothing here runs and no module loads it: the other modules
 * name these types in their comments, and `tsc --checkJs` checks them.
 */

export {};

/**
 * @typedef {"running" | "completed" | "failed" | "cancelled" | "timed_out" | "interrupted"} RunStatus
 * @typedef {string | number | boolean} ParameterValue
 */

/**
 * One execution of a cron, as GET /runs/ID has it.
 * @typedef {object} Run
 * @property {number} id
 * @property {string} cronName
 * @property {RunStatus} status
 * @property {boolean} [stopping] it is being cancelled, and some process of it still lives
 * @property {number | null} exitCode
 * @property {string | null} signal
 * @property {string} startedAt
 * @property {string | null} completedAt
 * @property {number | null} durationMs
 * @property {string} trigger
 * @property {string | null} requestedBy
 * @property {string | null} client
 * @property {number | null} pid
 * @property {Record<string, ParameterValue> | null} params
 * @property {number | null} [cpuSeconds]
 * @property {number | null} [maxRssBytes]
 * @property {string | null} [cancelledBy]
 * @property {string | null} [error]
 */

/**
 * What a plot needs of a run.
 * @typedef {Pick<Run, "id" | "status" | "startedAt" | "durationMs">} RecentRun
 */

/**
 * Somebody else holds the cron's lock: a crontab's line with `flock`.
 * @typedef {{id: null, trigger: "external", startedAt?: undefined}} ExternalRun
 */

/**
 * A parameter's definition in JSON Schema's words.
 * @typedef {object} Parameter
 * @property {"string" | "integer" | "number" | "boolean"} type
 * @property {string} [title]
 * @property {string} [description]
 * @property {ParameterValue | null} [default]
 * @property {ParameterValue[]} [enum]
 * @property {number} [minimum]
 * @property {number} [maximum]
 * @property {number} [minLength]
 * @property {number} [maxLength]
 * @property {string} [pattern]
 * @property {string} [format]
 * @property {boolean} [required]
 */

/**
 * An entry of GET /crons.  What an older server does not send is optional here.
 * @typedef {object} Cron
 * @property {string} cronName
 * @property {string} description
 * @property {string | null} [estimatedDuration]
 * @property {Record<string, Parameter>} [parameters]
 * @property {Run | ExternalRun | null} running
 * @property {Run | null} lastRun
 * @property {string | null} [schedule]
 * @property {string | null} [nextRunAt]
 * @property {boolean} [late]
 * @property {number} runs
 * @property {number | null} successRate
 * @property {number | null} medianDurationMs
 * @property {RecentRun[]} recentRuns
 */

/**
 * A planned trigger, as GET /scheduled has it.
 * @typedef {object} Plan
 * @property {number} id
 * @property {string} cronName
 * @property {string} runAt
 * @property {"pending" | "fired" | "cancelled" | "missed" | "skipped"} status
 * @property {number | null} [runId]
 * @property {string | null} [reason]
 * @property {string | null} [requestedBy]
 * @property {Record<string, ParameterValue> | null} [params]
 */

/**
 * One Server-Sent Event.
 * @typedef {{id: string, name: string, data: any}} ServerEvent
 */
