/*
 * The page's end of the event stream: that of the SharedWorker, else one of its own.  A page with
 * a stream of its own gives it up while nobody sees it; a shared one goes on.
 */

import {EventStream} from "./stream.js";
import {SECOND_MS} from "./units.js";

/** @typedef {import("./stream.js").StreamListener} StreamListener */

const JOINED_MS = 3 * SECOND_MS;

export class Events {
  /** @param {StreamListener} listener */
  constructor(listener) {
    this.listener = listener;
    /** @type {MessagePort | null} */
    this.port = null;
    /** @type {EventStream | null} */
    this.own = null;
    this.secret = "";
  }

  /** @param {string} secret */
  start(secret) {
    this.stop();
    this.secret = secret;
    try {
      this.join();
    } catch {
      this.startOwn(); // there is none, or a browser refuses storage altogether
    }
  }

  stop() {
    this.port?.postMessage({kind: "leave"});
    this.port = null;
    this.own?.stop();
    this.own = null;
  }

  /** Try at once, where it waits for the next try. */
  retry() {
    this.port?.postMessage({kind: "retry"});
    this.own?.retry();
  }

  /** Whether a hidden page must give its stream up. */
  get isOwn() {
    return this.own !== null;
  }

  join() {
    const address = new URL("worker.js", import.meta.url);
    const worker = new SharedWorker(address, {type: "module", name: "cron-trigger-events"});
    const {port} = worker;
    this.port = port;
    const giveUp = () => {
      if (this.port !== port) return;
      this.stop();
      this.startOwn();
    };
    const silent = setTimeout(giveUp, JOINED_MS);
    worker.addEventListener("error", giveUp);
    port.onmessage = ({data}) => {
      clearTimeout(silent);
      if (this.port === port) this.heard(data);
    };
    port.postMessage({kind: "join", secret: this.secret});
  }

  /** @param {any} message */
  heard(message) {
    if (message.kind === "open") this.listener.opened(message.hadFailed);
    if (message.kind === "lost") this.listener.lost(message.status);
    if (message.kind === "event") this.listener.event(message.event);
  }

  startOwn() {
    this.own = new EventStream("events", this.secret, this.listener);
    this.own.run();
  }
}
