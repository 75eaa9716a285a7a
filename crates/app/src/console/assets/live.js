// What the server sees, as it sees it: server-sent events, read with fetch because EventSource cannot carry a token.
//
// Every few seconds the server sends a sign of life. Without one for a while the connection counts as lost, whatever the
// network says, and a new one is opened.

import { headers } from "./api.js";

/** Milliseconds without a sign of life after which the connection counts as lost: four of them missed. */
const PATIENCE = 12_000;
const PAUSES = [500, 1_000, 2_000, 4_000];

export class Live {
  constructor({ onlook, onstate }) {
    this.onlook = onlook;
    this.onstate = onstate;
    this.attempt = 0;
    this.heard = 0;
    this.stopped = null;
    document.addEventListener("visibilitychange", () => {
      // A tab that nobody sees asks for nothing: the server then looks less often.
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

  /** Opens a new connection at once: with another token, or because somebody asked to. */
  again() {
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
      const watchdog = setInterval(() => Date.now() - this.heard > PATIENCE && end(), 1_000);
      let refused = null;
      try {
        refused = await this.listen(connection.signal);
      } catch { /* it broke: another one is opened below */ }
      clearInterval(watchdog);
      signal.removeEventListener("abort", end);
      if (signal.aborted) return;
      this.onstate(refused === 401 ? "locked" : "lost");
      if (refused === 401) return this.stop();
      const pause = PAUSES[Math.min(this.attempt, PAUSES.length - 1)];
      this.attempt += 1;
      await new Promise((done) => setTimeout(done, pause));
    }
  }

  /** Reads events until the connection ends; says the status if it was refused. */
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
