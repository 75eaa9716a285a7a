// The overview: sync state, problems, pipeline, charts and services.

import { Chart } from "../chart.js";
import { attribute, h, icon, prose, redraw, text } from "../dom.js";
import { bytes, duration, number, rate } from "../format.js";
import { indexLink } from "../links.js";
import { Pipeline } from "../pipeline.js";
import { state } from "../state.js";
import { VerdictBanner } from "../verdict.js";

const SPANS = [["5 min", 300_000], ["15 min", 900_000], ["1 h", 3_600_000]];
let span = 3_600_000;

export const title = "Overview";

export function open(main) {
  const verdict = new VerdictBanner();
  const pipeline = new Pipeline(state.session?.limits);
  const problems = h("section", { class: "problems", "aria-label": "Problems" });
  const tiles = new Tiles();
  const charts = makeCharts();
  const services = h("section", { class: "card services", "aria-label": "Services" });
  const choices = SPANS.map(([label, value]) => h("button", {
    type: "button", class: "choice", "aria-pressed": String(value === span),
    onclick: (event) => {
      span = value;
      for (const button of event.currentTarget.parentNode.children) attribute(button, "aria-pressed", String(button === event.currentTarget));
      draw();
    },
  }, label));
  main.append(verdict.root, problems,
    h("section", { class: "card", "aria-label": "Pipeline" }, h("h2", {}, "Pipeline"), pipeline.root),
    tiles.root,
    h("div", { class: "section-head" }, h("h2", {}, "History"), h("div", { class: "choices", role: "group", "aria-label": "Time range" }, choices)),
    h("div", { class: "charts" }, charts.map((chart) => chart.root)),
    services);

  function draw() {
    for (const chart of charts) chart.set(state.history, span);
  }

  return {
    update() {
      const { overview } = state;
      draw();
      if (!overview) return;
      verdict.update(overview);
      // Skip the problem that the verdict already states.
      const others = overview.problems.filter((one) => !overview.verdict.summary.includes(one.message));
      redraw(problems, others, (list) => list.map(problem));
      pipeline.update(overview);
      tiles.update(overview);
      redraw(services, overview.services.map(withoutTimes), () => serviceTable(overview.services));
    },
    tick: () => verdict.tick(state.updatedAt),
    close: () => charts.forEach((chart) => chart.destroy()),
  };
}

function makeCharts() {
  return [
    new Chart({ title: "Throughput", note: "changes/s", show: rate, series: [
      { name: "in_1", label: "read", tone: "a" }, { name: "out_1", label: "embedded", tone: "b" }, { name: "out_2", label: "written", tone: "c" }] }),
    new Chart({ title: "Backlog", note: "changes that wait", show: number, series: [
      { name: "backlog_1", label: "stage 1", tone: "a" }, { name: "backlog_2", label: "stage 2", tone: "b" }] }),
    new Chart({ title: "Commit to searchable", note: "over the last minute", show: duration, area: false, series: [
      { name: "latency_p50", label: "p50", tone: "a" }, { name: "latency_p95", label: "p95", tone: "b" }] }),
    new Chart({ title: "Embedding", note: "tokens/s", show: rate, series: [{ name: "tokens", label: "embedded", tone: "c" }] }),
  ];
}

function problem({ severity, code, message, action, index }) {
  return h("article", { class: "problem", "data-tone": severity === "critical" ? "bad" : "warn" },
    icon(severity === "critical" ? "cross" : "warn"),
    h("div", {},
      h("p", { class: "problem-message" }, prose(upper(message)), " ", h("code", { class: "tag" }, code)),
      h("p", { class: "problem-action" }, prose(upper(action)), code === "dead-letters" ? [" ", h("a", { href: "#/dead-letters" }, "Show them")] : null,
        index && state.overview.indexes.length > 1 ? [" ", h("a", { href: indexLink(index) }, "Show the index")] : null)));
}

function upper(sentence) {
  return sentence.charAt(0).toUpperCase() + sentence.slice(1);
}

class Tiles {
  constructor() {
    this.tiles = Object.fromEntries([
      ["latency", "Latency p95"], ["backlog", "Backlog"], ["flow", "Throughput"],
      ["tokens", "Tokens saved"], ["points", "Points"], ["memory", "Redis memory"],
    ].map(([name, label]) => {
      const tile = { value: h("dd", {}, "–"), note: h("dd", { class: "muted" }) };
      tile.root = h("div", { class: "tile card" }, h("dt", {}, label), tile.value, tile.note);
      return [name, tile];
    }));
    this.root = h("dl", { class: "tiles", "aria-label": "Metrics" }, Object.values(this.tiles).map((tile) => tile.root));
  }

  set(name, value, note = "") {
    text(this.tiles[name].value, value);
    text(this.tiles[name].note, note);
  }

  update({ stages, latency, tokens, collection, redis, indexes }) {
    const both = stages.every((stage) => !stage.error) ? stages : null;
    const known = (value) => value !== null && value !== undefined;
    this.set("latency", latency ? duration(latency.p95_seconds) : "–",
      latency ? `p50 ${duration(latency.p50_seconds)}` : "no changes in the last minute");
    this.set("backlog", both ? number(both[0].backlog + both[1].backlog) : "–",
      both ? `${number(both[0].backlog)} to embed, ${number(both[1].backlog)} to write` : "Redis is unreachable");
    this.set("flow", both && known(both[1].out_per_second) ? `${rate(both[1].out_per_second)}/s` : "–",
      both && known(both[0].in_per_second) ? `${rate(both[0].in_per_second)}/s in` : "");
    const all = tokens ? tokens.embedded + tokens.saved : 0;
    this.set("tokens", all ? `${Math.round((tokens.saved / all) * 100)} %` : "–",
      all ? `${number(tokens.saved)} of ${number(all)}` : "nothing embedded yet");
    const several = indexes.length > 1;
    const points = several ? indexes.reduce((sum, index) => sum + (index.points ?? 0), 0) : collection.points;
    this.set("points", collection.error || !known(points) ? "–" : number(points),
      collection.error ? "Qdrant is unreachable" : several ? `${number(indexes.length)} indexes` : collection.name);
    const limit = redis.memory_limit_bytes;
    this.set("memory", redis.error ? "–" : bytes(redis.memory_bytes),
      redis.error ? "Redis is unreachable" : limit ? `${Math.round((redis.memory_bytes / limit) * 100)} % of ${bytes(limit)}` : "no limit");
  }
}

/** A row's data; times are rounded, so that the row is not redrawn with every overview. */
function withoutTimes(service) {
  const { silent_seconds: silent, up_seconds: up, ...rest } = service;
  return { ...rest, silent: silent > 10 ? Math.round(silent / 5) : 0, up: Math.round(up / 60) };
}

function serviceTable(services) {
  if (!services.length) return [h("h2", {}, "Services"), h("p", { class: "muted" }, "No process is reporting. ", h("code", {}, "tidewheel run"), " starts all services in one process.")];
  const rows = services.map((service) => {
    const silent = service.silent_seconds > 15;
    const young = !service.ready && service.up_seconds < 15;
    const tone = silent ? "warn" : young ? "idle" : service.ready ? "good" : "bad";
    const said = silent ? `silent for ${duration(service.silent_seconds)}` : young ? "starting" : service.ready ? "ready" : "not ready";
    const foreign = service.foreign_version ? [h("div", { class: "muted" }, `version ${service.foreign_version}, figures unknown`)] : [];
    return h("tr", {},
      h("td", { "data-label": "Service" }, h("b", {}, service.service), foreign),
      h("td", { "data-label": "State" }, h("div", {}, h("span", { class: "badge", "data-tone": tone }, said), service.reasons.map((reason) => h("div", { class: "muted" }, reason)))),
      h("td", { "data-label": "Up for" }, duration(service.up_seconds)),
      h("td", { "data-label": "Process", class: "mono" }, service.process));
  });
  return [h("h2", {}, "Services"),
    h("table", { class: "rows" }, h("thead", {}, h("tr", {}, ["Service", "State", "Up for", "Process"].map((name) => h("th", { scope: "col" }, name)))), h("tbody", {}, rows))];
}
