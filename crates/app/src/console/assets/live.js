// Live overviews as server-sent events, read with fetch because EventSource cannot send a token.
//
// The server sends a heartbeat every few seconds. Without one the connection counts as lost and is reopened.

import { headers } from "./api.js";

/** Milliseconds without a heartbeat after which the connection counts as lost: four missed. */
const TIMEOUT = 12_000;
const PAUSES = [500, 1_000, 2_000, 4_000];

export class Live {
  constructor({ onlook, onstate }) {
    this.onlook = onlook;
    this.onstate = onstate;
    this.attempt = 0;
    this.heard = 0;
    this.stopped = null;
    document.addEventListener("visibilitychange", () => {
      // A hidden tab disconnects, so that the server samples less often.
      if (document.hidden) this.stop();
      else this.start();
    });
  }

  start() {
    if (this.stopped) return;
    this.stopped = new AbortController();
    this.run(this.stopped.signal);
  }

  stop() {
    this.stopped?.abort();
    this.stopped = null;
  }

  /** Reconnects immediately: with a new token, or on request. */
  reconnect() {
    this.stop();
    this.attempt = 0;
    this.start();
  }

  async run(signal) {
    while (!signal.aborted) {
      const connection = new AbortController();
      const end = () => connection.abort();
      signal.addEventListener("abort", end);
      this.heard = Date.now();
      const watchdog = setInterval(() => Date.now() - this.heard > TIMEOUT && end(), 1_000);
      let rejected = null;
      try {
        rejected = await this.listen(connection.signal);
      } catch { /* connection lost: reopened below */ }
      clearInterval(watchdog);
      signal.removeEventListener("abort", end);
      if (signal.aborted) return;
      this.onstate(rejected === 401 ? "locked" : "lost");
      if (rejected === 401) return this.stop();
      const pause = PAUSES[Math.min(this.attempt, PAUSES.length - 1)];
      this.attempt += 1;
      await new Promise((done) => setTimeout(done, pause));
    }
  }

  /** Reads events until the connection ends; returns the status if it was rejected. */
  async listen(signal) {
    const response = await fetch("/api/events", { headers: headers(), signal, cache: "no-store", credentials: "omit" });
    if (!response.ok) return response.status;
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    let buffer = "";
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return null;
      this.heard = Date.now();
      buffer += value;
      const events = buffer.split("\n\n");
      buffer = events.pop();
      for (const event of events) this.take(event);
    }
  }

  take(event) {
    const data = event.split("\n").filter((line) => line.startsWith("data:")).map((line) => line.slice(5).trimStart());
    if (data.length === 0) return;
    this.attempt = 0;
    this.onstate("live");
    this.onlook(JSON.parse(data.join("\n")));
  }
}
