// The answer in one line, at the top of the overview.

import { attribute, h, icon, prose, redraw, setIcon, text } from "./dom.js";
import { ago, estimate } from "./format.js";

export const STATES = {
  right: { word: "Right", icon: "check", tone: "good" },
  differs: { word: "Differs", icon: "warn", tone: "warn" },
  behind: { word: "Behind", icon: "clock", tone: "warn" },
  broken: { word: "Broken", icon: "cross", tone: "bad" },
  unknown: { word: "Unknown", icon: "question", tone: "bad" },
  empty: { word: "Empty", icon: "question", tone: "idle" },
};

export class VerdictBanner {
  constructor() {
    this.icon = h("span", { class: "verdict-icon" });
    this.word = h("span", { class: "verdict-word" });
    this.summary = h("h1", { class: "verdict-summary" }, "Looking …");
    this.action = h("p", { class: "verdict-action" });
    this.eta = h("b");
    this.etaBox = h("p", { class: "verdict-eta", hidden: true }, this.eta, h("span", {}, "until caught up"));
    this.looked = h("span", { class: "muted verdict-looked" });
    this.root = h("section", { class: "verdict", "aria-label": "Is the index right?" },
      this.icon,
      h("div", { class: "verdict-text" }, h("p", { class: "verdict-head" }, this.word, this.looked), this.summary, this.action),
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
    const waiting = verdict.state === "behind" && verdict.eta_seconds !== null;
    this.etaBox.hidden = !waiting;
    text(this.eta, waiting ? estimate(verdict.eta_seconds) : "");
  }

  tick(lookedAt) {
    text(this.looked, lookedAt ? `looked ${ago(lookedAt)}` : "");
  }
}

/** A banner in the same form, for one document. */
export function banner(tone, picture, word, summary, ...more) {
  return h("section", { class: "verdict", "data-tone": tone }, h("span", { class: "verdict-icon" }, icon(picture)),
    h("div", { class: "verdict-text" }, h("p", { class: "verdict-head" }, h("span", { class: "verdict-word" }, word)),
      h("h2", { class: "verdict-summary" }, summary), ...more));
}
