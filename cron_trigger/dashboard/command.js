/*
 * The command lines of what one is about to do, to copy: `curl` and `cron-trigger`.  No DOM here.
 */

/** @typedef {import("./types.js").ParameterValue} ParameterValue */
/** @typedef {{cronName: string, params?: Record<string, ParameterValue>, runAt?: string}} Body */

/**
 * One word of a POSIX shell.
 * @param {string} text
 */
export function quoted(text) {
  return /^[\w@%+=:,./-]+$/.test(text) ? text : `'${text.replaceAll("'", "'\\''")}'`;
}

/**
 * @param {string} base the server's address, with the proxy's path, ending in a slash
 * @param {Body} body
 * @param {boolean} withSecret
 */
export function curlCommand(base, body, withSecret) {
  const parts = ["curl", "-H", "'Content-Type: application/json'"];
  if (withSecret) parts.push("-H", '"X-Trigger-Secret: $CRON_TRIGGER_SECRET"');
  return [...parts, "-d", quoted(JSON.stringify(body)), quoted(`${base}trigger`)].join(" ");
}

/**
 * @param {string} base
 * @param {Body} body
 */
export function clientCommand(base, {cronName, params = {}, runAt}) {
  const parts = ["cron-trigger", "trigger", quoted(cronName)];
  for (const [name, value] of Object.entries(params)) parts.push("--param", quoted(`${name}=${value}`));
  if (runAt) parts.push("--at", quoted(runAt));
  return [...parts, "--url", quoted(base)].join(" ");
}
