// Running replays, and those that ended within the last hour.

import { get } from "../api.js";
import { empty, failure } from "../dialog.js";
import { attribute, h, redraw, text } from "../dom.js";
import { clock, duration, number, rate } from "../format.js";

export const title = "Replays";

const STATES = { running: ["info", "running"], done: ["good", "done"], interrupted: ["warn", "interrupted"], failed: ["bad", "failed"] };
/** Seconds without a report after which a replay counts as killed; it reports every two seconds. */
const SILENT = 20;
const EVERY = 2_000;

export function open(main) {
  const list = h("div", { class: "result" });
  const cards = new Map();
  main.append(h("div", { class: "page-head" }, h("h1", {}, title), h("p", { class: "muted" }, "A replay sends the retained entries of a stage, or the whole source, through the pipeline again.")), list);
  let closed = false;

  async function load() {
    try {
      draw(await get("/api/replays"));
    } catch (error) {
      if (error.status !== 0) list.replaceChildren(failure(error));
    }
  }

  function draw(replays) {
    if (closed) return;
    if (!replays.length) {
      cards.clear();
      redraw(list, "none", () => empty("replay", "No replay running", h("p", { class: "muted" }, "Start one in a terminal:"), h("pre", { class: "command" }, "tidewheel replay source --yes")));
      return;
    }
    delete list.shownData;
    const there = new Set(replays.map((replay) => replay.id));
    for (const id of cards.keys()) if (!there.has(id)) cards.delete(id);
    for (const replay of replays) {
      if (!cards.has(replay.id)) cards.set(replay.id, new Card());
      cards.get(replay.id).update(replay);
    }
    const wanted = replays.map((replay) => cards.get(replay.id).root);
    if (wanted.length !== list.children.length || wanted.some((root, i) => list.children[i] !== root)) list.replaceChildren(...wanted);
  }

  load();
  const timer = setInterval(() => !document.hidden && load(), EVERY);
  return { close: () => { closed = true; clearInterval(timer); } };
}

class Card {
  constructor() {
    this.badge = h("span", { class: "badge" });
    this.from = h("h2");
    this.where = h("p", { class: "muted" });
    this.bar = h("i");
    this.meter = h("div", { class: "gauge tall", role: "progressbar", "aria-valuemin": "0", "aria-valuemax": "100" }, this.bar);
    this.head = h("b");
    this.rest = h("span", { class: "muted" });
    this.list = h("dl", { class: "facts wide-facts" });
    this.root = h("article", { class: "card replay" }, h("div", { class: "hit-head" }, this.from, this.badge), this.where, this.meter, h("p", { class: "replay-line" }, this.head, this.rest), this.list);
  }

  update({ from, into, process, state, progress, began_ms: began, seconds, per_second: speed, silent_seconds: silent, problem }) {
    const lost = state === "running" && silent > SILENT;
    const [tone, word] = lost ? ["bad", `silent for ${duration(silent)}`] : STATES[state] ?? ["idle", state];
    attribute(this.badge, "data-tone", tone);
    text(this.badge, word);
    text(this.from, from);
    text(this.where, `into ${into}`);
    const share = progress.of ? Math.min(1, progress.read / progress.of) : null;
    const done = state === "done";
    attribute(this.meter, "data-tone", tone === "info" ? "info" : tone);
    attribute(this.meter, "data-unsure", share === null && state === "running" && !lost ? "yes" : null);
    const percent = done ? 100 : share === null ? null : Math.floor(share * 100);
    attribute(this.meter, "aria-valuenow", percent);
    attribute(this.meter, "aria-label", `Progress of the replay of ${from}`);
    this.bar.style.setProperty("width", `${done ? 100 : (share ?? 0) * 100}%`);
    text(this.head, percent === null ? `${number(progress.read)} read` : `${percent} %`);
    const left = state === "running" && !lost && progress.of && speed > 0 ? `, ${duration((progress.of - progress.read) / speed)} left` : "";
    text(this.rest, percent === null ? "" : ` ${number(progress.read)}${progress.of ? ` of ${number(progress.of)}` : ""} read${left}`);
    redraw(this.list, [progress, speed, Math.round(seconds), problem], () => [
      ["replayed", number(progress.replayed)], ["skipped", number(progress.skipped)], ["rate", `${rate(speed)}/s`],
      ["started", clock(began)], ["duration", duration(seconds)], ["process", process], ["problem", problem],
    ].filter(([, value]) => value).map(([label, value]) => h("div", {}, h("dt", {}, label), h("dd", {}, value))));
  }
}
