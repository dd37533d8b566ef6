/*
 * The SharedWorker: one event stream for all pages of this browser, hidden ones included, so
 * that a browser's six connections to a server are never used up by it.
 *
 * A page joins with its secret and is told `open`, `lost` and each `event`.  Pages with the same
 * secret share a stream; it is closed when the last of them has left.
 */

import {EventStream} from "./stream.js";

/**
 * @typedef {object} Shared
 * @property {EventStream} stream
 * @property {Set<MessagePort>} ports
 * @property {boolean} open
 * @property {number} status of the last loss
 */

/** @type {Map<string, Shared>} by secret */
const streams = new Map();

/**
 * @param {Shared} shared
 * @param {object} message
 */
function tell(shared, message) {
  for (const port of shared.ports) port.postMessage(message);
}

/**
 * @param {string} secret
 * @returns {Shared}
 */
function begin(secret) {
  const stream = new EventStream("events", secret, {
    opened: (hadFailed) => {
      shared.open = true;
      tell(shared, {kind: "open", hadFailed});
    },
    lost: (status) => {
      shared.open = false;
      shared.status = status;
      tell(shared, {kind: "lost", status});
    },
    event: (event) => tell(shared, {kind: "event", event}),
  });
  /** @type {Shared} */
  const shared = {stream, ports: new Set(), open: false, status: -1};
  streams.set(secret, shared);
  stream.run().then(() => {
    // The secret was refused: who comes later with it tries anew.
    if (streams.get(secret) === shared) streams.delete(secret);
  });
  return shared;
}

/**
 * @param {MessagePort} port
 * @param {string} secret
 */
function join(port, secret) {
  const shared = streams.get(secret) ?? begin(secret);
  shared.ports.add(port);
  port.postMessage({kind: "joined"});
  if (shared.open) port.postMessage({kind: "open", hadFailed: false});
  else if (shared.status >= 0) port.postMessage({kind: "lost", status: shared.status});
}

/** @param {MessagePort} port */
function leave(port) {
  for (const [secret, shared] of streams) {
    if (!shared.ports.delete(port) || shared.ports.size) continue;
    shared.stream.stop();
    streams.delete(secret);
  }
}

/** @param {MessagePort} port */
function serve(port) {
  port.onmessage = ({data}) => {
    if (data.kind === "join") join(port, data.secret);
    if (data.kind === "leave") leave(port);
    if (data.kind === "retry") for (const {stream, ports} of streams.values()) ports.has(port) && stream.retry();
  };
}

/** @type {any} */ (self).onconnect = (/** @type {MessageEvent} */ event) => serve(event.ports[0]);
