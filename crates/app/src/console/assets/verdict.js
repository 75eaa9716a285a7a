// The verdict banner at the top of the overview.

import { attribute, h, icon, prose, redraw, setIcon, text } from "./dom.js";
import { ago, estimate } from "./format.js";

export const STATES = {
  in_sync: { word: "In sync", icon: "check", tone: "good" },
  drifted: { word: "Drifted", icon: "warn", tone: "warn" },
  syncing: { word: "Syncing", icon: "clock", tone: "warn" },
  stalled: { word: "Stalled", icon: "cross", tone: "bad" },
  unknown: { word: "Unknown", icon: "question", tone: "bad" },
  empty: { word: "Empty", icon: "question", tone: "idle" },
};

export class VerdictBanner {
  constructor() {
    this.icon = h("span", { class: "verdict-icon" });
    this.word = h("span", { class: "verdict-word" });
    this.summary = h("h1", { class: "verdict-summary" }, "Loading …");
    this.action = h("p", { class: "verdict-action" });
    this.eta = h("b");
    this.etaBox = h("p", { class: "verdict-eta", hidden: true }, this.eta, h("span", {}, "until in sync"));
    this.updated = h("span", { class: "muted verdict-updated" });
    this.root = h("section", { class: "verdict", "aria-label": "Sync state" },
      this.icon,
      h("div", { class: "verdict-text" }, h("p", { class: "verdict-head" }, this.word, this.updated), this.summary, this.action),
      this.etaBox);
  }

  update({ verdict }) {
    const state = STATES[verdict.state] ?? STATES.unknown;
    attribute(this.root, "data-tone", state.tone);
    attribute(this.root, "data-state", verdict.state);
    setIcon(this.icon, state.icon);
    text(this.word, state.word);
    text(this.summary, verdict.summary);
    this.action.hidden = !verdict.action;
    redraw(this.action, verdict.action, (action) => (action ? prose(`What to do: ${action}`) : ""));
    const waiting = verdict.state === "syncing" && verdict.eta_seconds !== null;
    this.etaBox.hidden = !waiting;
    text(this.eta, waiting ? estimate(verdict.eta_seconds) : "");
  }

  tick(updatedAt) {
    text(this.updated, updatedAt ? `updated ${ago(updatedAt)}` : "");
  }
}

/** The same banner for a single document. */
export function banner(tone, picture, word, summary, ...more) {
  return h("section", { class: "verdict", "data-tone": tone }, h("span", { class: "verdict-icon" }, icon(picture)),
    h("div", { class: "verdict-text" }, h("p", { class: "verdict-head" }, h("span", { class: "verdict-word" }, word)),
      h("h2", { class: "verdict-summary" }, summary), ...more));
}
