// What the whole console knows: the session, the last look, the last hour. Pages read it and are told when it changes.

import { get } from "./api.js";
import { Live } from "./live.js";

/** The history that is kept: as long as the server's. */
const HOUR = 3_600_000;

class State extends EventTarget {
  /** What this console may do: {actions, authorized, reads_need_token, version, limits, collections}. */
  session = null;
  /** The last look, and when it came. */
  overview = null;
  lookedAt = 0;
  /** "connecting", "live", "lost" or "locked" */
  connection = "connecting";
  /** {step_ms, names, points: [[time, value, …], …]} */
  history = { step_ms: 5_000, names: [], points: [] };

  live = new Live({
    onlook: ({ overview, sample, names }) => {
      this.overview = overview;
      this.lookedAt = Date.now();
      this.history.names = names;
      this.#add(sample);
      this.#tell("look");
    },
    onstate: (connection) => {
      if (this.connection === connection) return;
      const before = this.connection;
      this.connection = connection;
      this.#tell("connection");
      // What happened while nobody listened is known to the server.
      if (connection === "live" && before !== "connecting") this.loadHistory();
    },
  });

  async begin() {
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
      this.#tell("connection");
    }
    this.#tell("session");
  }

  async loadHistory() {
    try {
      this.history = await get("/api/history");
      this.#tell("look");
    } catch { /* the live connection tells what is wrong */ }
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

  #tell(what) {
    this.dispatchEvent(new Event(what));
  }
}

export const state = new State();
