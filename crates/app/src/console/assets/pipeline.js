// The pipeline diagram: each server, service and stream with its health, numbers and problems.

import { attribute, h, icon, text } from "./dom.js";
import { duration, estimate, number, rate } from "./format.js";

/** Parts affected by a problem, by its subject and code. */
const SUBJECTS = {
  mongodb: ["mongodb"], redis: ["stage1", "stage2"], qdrant: ["qdrant"], embedder: ["embedder"],
  raw_document_changes: ["stage1"], embedded_documents: ["stage2"],
  producer: ["producer"], processor: ["processor"], upserter: ["upserter"],
};
const CULPRIT = { "no-consumer": { raw_document_changes: "processor", embedded_documents: "upserter" } };

/** Seconds without a report after which a service does not count; it reports every few seconds. */
const SILENT = 15;
/** Grace period in seconds for a starting service. */
const YOUNG = 15;

export class Pipeline {
  constructor(limits) {
    this.limits = limits ?? {};
    this.parts = {
      mongodb: new Part("MongoDB", "database", "server"),
      producer: new Part("producer", "service", "service"),
      stage1: new Part("stage 1", "stream", "stream"),
      processor: new Part("processor", "service", "service"),
      embedder: new Part("embedder", "model", "service"),
      stage2: new Part("stage 2", "stream", "stream"),
      upserter: new Part("upserter", "service", "service"),
      qdrant: new Part("Qdrant", "points", "server"),
    };
    const flow = ["mongodb", "producer", "stage1", "processor", "stage2", "upserter", "qdrant"];
    this.edges = flow.slice(1).map(() => new Edge());
    const items = flow.map((name, i) => {
      const part = this.parts[name].root;
      const body = name === "processor" ? h("div", { class: "with-embedder" }, part, this.parts.embedder.root) : part;
      return h("li", { class: `step step-${name}` }, i ? this.edges[i - 1].root : null, body);
    });
    this.root = h("ol", { class: "flow", "aria-label": "The pipeline, from MongoDB to Qdrant" }, items);
  }

  update(overview) {
    const worst = worstByPart(overview.problems);
    const { parts } = this;
    this.source(overview.source, worst);
    const stages = overview.stages.map((stage) => (stage.error ? null : stage));
    this.stage(parts.stage1, stages[0], overview.stages[0].error, this.limits.stage_1, worst.stage1);
    this.stage(parts.stage2, stages[1], overview.stages[1].error, this.limits.stage_2, worst.stage2);
    // A killed service stays listed for a while, without reports.
    const of = (name) => overview.services.filter((service) => service.service === name && service.silent_seconds < SILENT);
    const saving = overview.source.checkpoint_age_seconds;
    this.service(parts.producer, of("producer"), worst.producer, null, [
      ["reads", per(stages[0]?.in_per_second)],
      ["checkpoint", saving === null || saving === undefined ? null : `${duration(saving)} ago`.replace(/^\d+ ms ago$/, "just now")],
    ]);
    this.service(parts.processor, of("processor"), worst.processor, stages[0]?.alive, [
      ["embeds", per(stages[0]?.out_per_second)],
      ["in flight", stages[0] ? number(stages[0].pending) : null],
    ]);
    this.service(parts.upserter, of("upserter"), worst.upserter, stages[1]?.alive, [
      ["writes", per(stages[1]?.out_per_second)],
      ["in flight", stages[1] ? number(stages[1].pending) : null],
    ]);
    this.embedder(overview, worst.embedder);
    this.collection(overview.collection, overview.indexes, worst.qdrant);
    const [one, two] = stages;
    [one?.in_per_second, one?.in_per_second, one?.out_per_second, two?.in_per_second, two?.out_per_second, two?.out_per_second]
      .forEach((flowing, i) => this.edges[i].set(flowing));
  }

  source(source, worst) {
    const part = this.parts.mongodb;
    const lost = source.oplog_time_to_loss_seconds;
    const snapshot = source.snapshot && source.snapshot.state !== "done" ? source.snapshot : null;
    const error = source.error;
    part.state(worst.mongodb, error ? "bad" : source.read_until || source.oplog_window_seconds ? "good" : "idle");
    part.caption(source.database ?? "");
    part.rows([
      error ? ["", error] : null,
      ["oplog", source.oplog_window_seconds ? duration(source.oplog_window_seconds) : null],
      ["headroom", lost === null || lost === undefined ? null : estimate(lost)],
      snapshot ? [snapshot.state === "running" ? "snapshot" : "sweeping", progress(snapshot)] : null,
    ]);
    const share = snapshot?.of ? Math.min(1, snapshot.rows / snapshot.of) : null;
    part.gauge(share, "info", snapshot ? `snapshot: ${progress(snapshot)}` : "");
  }

  stage(part, stage, error, limit, worst) {
    if (!stage) {
      part.state("bad", "bad");
      part.caption("unknown");
      part.rows([["", error ?? "Redis is unreachable"]]);
      part.gauge(null);
      return;
    }
    const behind = limit && stage.backlog > limit;
    part.state(worst, behind ? "warn" : "good");
    part.caption(stage.stream);
    part.big(number(stage.backlog), "waiting");
    part.rows([
      ["oldest", stage.backlog > 0 && stage.oldest_age_ms !== null ? duration(stage.oldest_age_ms / 1000) : null],
      stage.backlog > 0 && stage.eta_seconds === null && stage.out_per_second !== null ? ["", "not shrinking", "warn"] : ["ETA", stage.backlog > 0 ? estimate(stage.eta_seconds) : null],
      ["parked", stage.dead_letters > 0 ? number(stage.dead_letters) : null, "warn"],
    ]);
    part.gauge(limit ? Math.min(1, stage.backlog / limit) : null, behind ? "warn" : "info",
      limit ? `backlog ${number(stage.backlog)}, limit ${number(limit)}` : "");
  }

  service(part, reporting, worst, alive, rows) {
    const ready = reporting.filter((service) => service.ready).length;
    const late = reporting.filter((service) => !service.ready && service.up_seconds >= YOUNG);
    const some = reporting.length || alive;
    part.state(worst, reporting.length ? (late.length ? "warn" : "good") : alive ? "good" : "idle");
    part.caption(reporting.length ? `${ready} of ${reporting.length} ready` : alive ? `${alive} running` : alive === 0 ? "none running" : "not reporting");
    const reason = late[0]?.reasons?.[0];
    part.rows([reason ? ["", reason, "bad"] : null, ...(some || alive === null ? rows : [])]);
  }

  embedder(overview, worst) {
    const part = this.parts.embedder;
    const embedder = overview.embedder;
    if (embedder.error) {
      part.state(worst ?? "warn", "warn");
      part.caption("unreachable");
      part.rows([["", embedder.error]]);
      return;
    }
    part.state(worst, "good");
    part.caption(embedder.model.split("/").at(-1));
    part.rows([
      ["tokens", embedder.tokens_per_second === null ? null : `${rate(embedder.tokens_per_second)}/s`],
      ["queued", embedder.queued_tokens === null ? null : number(embedder.queued_tokens)],
      ["vector", number(embedder.dimension)],
    ]);
  }

  collection(collection, indexes, worst) {
    const part = this.parts.qdrant;
    if (collection.error) {
      part.state("bad", "bad");
      part.caption("unreachable");
      part.big(null);
      part.rows([["", collection.error]]);
      return;
    }
    const colour = { green: "good", yellow: "good", grey: "idle", red: "bad" }[collection.status];
    part.state(worst, collection.exists ? colour ?? "good" : "idle");
    if (indexes.length > 1) {
      part.caption(`${number(indexes.length)} indexes`);
      part.big(number(indexes.reduce((sum, index) => sum + (index.points ?? 0), 0)), "points");
      part.rows([]);
      return;
    }
    part.caption(collection.name);
    part.big(collection.points === null ? null : number(collection.points), collection.points === 1 ? "point" : "points");
    part.rows([
      collection.exists ? null : ["", "not created yet"],
      ["status", collection.status],
      ["vector", collection.dimension ? number(collection.dimension) : null],
    ]);
  }
}

function per(value) {
  return value === null || value === undefined ? null : `${rate(value)}/s`;
}

function progress(snapshot) {
  const of = snapshot.of ? ` of ${number(snapshot.of)}` : "";
  const eta = snapshot.eta_seconds === null ? "" : `, ETA ${estimate(snapshot.eta_seconds)}`;
  return `${number(snapshot.rows)}${of}${eta}`;
}

/** The worst severity of each part: "bad" or "warn". */
function worstByPart(problems) {
  const worst = {};
  for (const problem of problems) {
    const culprit = CULPRIT[problem.code]?.[problem.subject];
    for (const part of [...(SUBJECTS[problem.subject] ?? []), ...(culprit ? [culprit] : [])]) {
      const now = problem.severity === "critical" ? "bad" : "warn";
      if (worst[part] !== "bad") worst[part] = now;
    }
  }
  return worst;
}

const WORDS = { good: "healthy", warn: "warning", bad: "failing", idle: "idle" };

class Part {
  constructor(name, picture, kind) {
    this.dot = h("span", { class: "dot" });
    this.word = h("span", { class: "sr" });
    this.subtitle = h("span", { class: "part-sub" });
    this.number = h("b");
    this.unit = h("span");
    this.bigBox = h("p", { class: "part-big", hidden: true }, this.number, " ", this.unit);
    this.bar = h("i");
    this.meter = h("div", { class: "gauge", role: "img", hidden: true }, this.bar);
    this.list = h("dl", { class: "part-rows" });
    this.root = h("section", { class: `part part-${kind}`, "aria-label": name },
      h("h3", {}, icon(picture), h("span", {}, name), this.dot, this.word), this.subtitle, this.bigBox, this.meter, this.list);
    this.slots = [];
  }

  state(worst, otherwise) {
    const now = worst ?? otherwise;
    attribute(this.root, "data-state", now);
    text(this.word, `: ${WORDS[now]}`);
  }

  caption(subtitle) {
    text(this.subtitle, subtitle);
    attribute(this.subtitle, "title", subtitle);
  }

  big(value, unit) {
    this.bigBox.hidden = value === null || value === undefined;
    text(this.number, value);
    text(this.unit, unit);
  }

  gauge(share, tone, label) {
    this.meter.hidden = share === null || share === undefined;
    if (this.meter.hidden) return;
    this.bar.style.setProperty("width", `${(share * 100).toFixed(1)}%`);
    attribute(this.meter, "data-tone", tone);
    attribute(this.meter, "aria-label", label);
  }

  rows(rows) {
    const shown = rows.filter((row) => row && row[1] !== null && row[1] !== undefined && row[1] !== "");
    while (this.slots.length < shown.length) {
      const slot = { name: h("dt"), value: h("dd") };
      slot.root = h("div", {}, slot.name, slot.value);
      this.slots.push(slot);
      this.list.append(slot.root);
    }
    this.slots.forEach((slot, i) => {
      slot.root.hidden = i >= shown.length;
      if (slot.root.hidden) return;
      const [name, value, tone] = shown[i];
      text(slot.name, name);
      slot.name.hidden = name === "";
      text(slot.value, value);
      attribute(slot.root, "data-tone", tone);
      attribute(slot.root, "title", name === "" ? value : null);
    });
  }
}

class Edge {
  constructor() {
    this.label = h("span", { class: "edge-rate" });
    this.root = h("div", { class: "edge", "aria-hidden": "true" }, h("span", { class: "edge-line" }), this.label);
  }

  set(flowing) {
    const moves = flowing !== null && flowing !== undefined && flowing >= 0.05;
    attribute(this.root, "data-moves", moves ? "yes" : "no");
    text(this.label, moves ? `${rate(flowing)}/s` : "");
  }
}

