// Shared state: session, latest overview, last hour. Pages read it and listen for changes.

import { get } from "./api.js";
import { Live } from "./live.js";

/** Length of the history in milliseconds, as on the server. */
const HOUR = 3_600_000;

class State extends EventTarget {
  /** The session: {version, actions, authorized, user, limits}. */
  session = null;
  /** The latest overview, and when it arrived. */
  overview = null;
  updatedAt = 0;
  /** "connecting", "live", "lost" or "locked" */
  connection = "connecting";
  /** {step_ms, names, points: [[time, value, …], …]} */
  history = { step_ms: 5_000, names: [], points: [] };

  live = new Live({
    onlook: ({ overview, sample, names }) => {
      this.overview = overview;
      this.updatedAt = Date.now();
      this.history.names = names;
      this.#add(sample);
      this.#emit("look");
    },
    onstate: (connection) => {
      if (this.connection === connection) return;
      const before = this.connection;
      this.connection = connection;
      this.#emit("connection");
      // The server has the history of the disconnected time.
      if (connection === "live" && before !== "connecting") this.loadHistory();
    },
  });

  async start() {
    await this.loadSession();
    await this.loadHistory();
    this.live.start();
  }

  async loadSession() {
    try {
      this.session = await get("/api/session");
    } catch (error) {
      if (error.status === 401) this.connection = "locked";
      else this.connection = "lost";
      this.#emit("connection");
    }
    this.#emit("session");
  }

  async loadHistory() {
    try {
      this.history = await get("/api/history");
      this.#emit("look");
    } catch { /* the live connection reports the error */ }
  }

  get mayAct() {
    return Boolean(this.session?.actions && this.session?.authorized);
  }

  #add(sample) {
    const points = this.history.points;
    const last = points.at(-1);
    if (last && last[0] >= sample[0]) points[points.length - 1] = sample;
    else points.push(sample);
    while (points.length > 0 && points[0][0] < sample[0] - HOUR) points.shift();
  }

  #emit(what) {
    this.dispatchEvent(new Event(what));
  }
}

export const state = new State();
