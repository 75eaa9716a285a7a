// One document across every hop from MongoDB to Qdrant.

import { get } from "../api.js";
import { empty, failure } from "../dialog.js";
import { h, icon } from "../dom.js";
import { ago, clock, count, duration, number } from "../format.js";
import { stringify } from "../json.js";
import { inspectLink } from "../links.js";
import { banner } from "../verdict.js";

export const title = "Inspect a document";

const STATES = {
  searchable: ["good", "check", "Searchable"], deleted: ["good", "check", "Deleted"], excluded: ["good", "check", "Left out"], on_its_way: ["warn", "clock", "On its way"],
  parked: ["bad", "cross", "Parked"], missing: ["bad", "cross", "Missing"], stale: ["bad", "cross", "Stale"],
  unheard: ["idle", "question", "Not known"], unknown: ["warn", "question", "Unknown"],
};

export function open(main, params) {
  const id = h("input", { type: "search", id: "id", value: params.get("id") ?? "", required: true, autocomplete: "off", placeholder: "_id: 65f0…, 42, order-7, {\"$oid\": …}" });
  const namespace = h("input", { type: "search", id: "namespace", value: params.get("namespace") ?? "", autocomplete: "off", placeholder: "all collections" });
  const result = h("div", { class: "result", "aria-live": "polite" });
  const again = h("button", { type: "button", class: "button", hidden: true, onclick: () => load() }, icon("replay"), "Refresh");
  let closed = false;
  main.append(
    h("div", { class: "page-head" }, h("h1", {}, title), again),
    h("form", { class: "filters card", role: "search", onsubmit: (event) => {
      event.preventDefault();
      const wanted = inspectLink(id.value.trim(), namespace.value.trim());
      if (location.hash === wanted) load();
      else location.hash = wanted;
    } },
    h("div", { class: "field grow" }, h("label", { for: "id" }, "_id of the document"), id),
    h("div", { class: "field" }, h("label", { for: "namespace" }, "Collection"), namespace),
    h("button", { type: "submit", class: "button primary" }, "Inspect")),
    result);

  async function load() {
    result.setAttribute("aria-busy", "true");
    try {
      const found = await get("/api/inspect", { id: id.value.trim(), namespace: namespace.value.trim() });
      if (!closed) result.replaceChildren(...draw(found));
    } catch (error) {
      result.replaceChildren(failure(error));
    } finally {
      result.removeAttribute("aria-busy");
      again.hidden = false;
    }
  }

  if (id.value) {
    result.replaceChildren(h("p", { class: "muted" }, "Querying MongoDB, Redis and Qdrant …"));
    load();
  } else {
    result.replaceChildren(empty("document", "Where is my document?", h("p", { class: "muted" }, "Shows its state in MongoDB, its entries in both streams, its points in Qdrant and its dead letters.")));
  }
  return { close: () => { closed = true; }, focus: () => id.focus() };
}

function draw(found) {
  if (!found.documents.length) {
    return [empty("question", `No record of ${found.asked}`,
      h("p", { class: "muted" }, `Searched as ${found.read_as.join(", ")} in ${found.namespaces.join(", ")}.`),
      h("p", { class: "muted" }, "Its _id may have another type. Specify the type in extended JSON, such as ", h("code", {}, '{"$numberDecimal": "7"}'), "."))];
  }
  return found.documents.map(one);
}

function one(doc) {
  const [tone, picture, word] = STATES[doc.verdict.state] ?? STATES.unknown;
  // The word is already shown above.
  const said = doc.verdict.text.replace(new RegExp(`^${word}: `, "i"), "");
  const summary = said.charAt(0).toUpperCase() + said.slice(1);
  const name = h("p", { class: "verdict-action mono" }, `${doc.namespace}  ${doc.key}${doc.target ? `  ${doc.target}` : ""}`);
  return h("article", { class: "inspection" }, banner(tone, picture, word, summary, name), took(doc.hops),
    h("ol", { class: "hops" },
      hop("MongoDB", "database", ...source(doc.source)),
      hop("Stage 1", "stream", ...stage(doc.raw)),
      hop("Stage 2", "stream", ...stage(doc.embedded)),
      hop("Qdrant", "points", ...index(doc.index)),
      deletions(doc.deleted), letters(doc.dead_letters)),
    h("p", { class: "muted" }, "Point identity: ", h("span", { class: "mono" }, doc.document)));
}

/** Time that its newest change spent at each hop, as a bar. */
function took(hops) {
  const all = hops.reduce((sum, { took_ms: ms }) => sum + ms, 0);
  if (!hops.length) return null;
  return h("section", { class: "card took", "aria-label": "Time spent at each hop" },
    h("div", { class: "took-bar", "aria-hidden": "true" }, hops.map(({ took_ms: ms }, i) => {
      const piece = h("i", { class: `tone-${"abc"[i % 3]}` });
      piece.style.setProperty("flex-grow", String(Math.max(ms, all / 50, 1)));
      return piece;
    })),
    h("ul", { class: "legend" }, hops.map(({ name, took_ms: ms }, i) => h("li", { class: `tone-${"abc"[i % 3]}` }, h("i"), `${name} `, h("b", {}, duration(ms / 1000)))),
      hops.length > 1 ? h("li", {}, "total ", h("b", {}, duration(all / 1000))) : null));
}

function hop(name, picture, tone, head, ...more) {
  return h("li", { class: "hop", "data-tone": tone }, h("span", { class: "hop-icon" }, icon(picture)),
    h("div", { class: "hop-body" }, h("h3", {}, name), h("p", {}, head), ...more));
}

const facts = (rows) => h("dl", { class: "facts" }, rows.filter(([, value]) => value !== undefined && value !== null && value !== "").map(([label, value]) => h("div", {}, h("dt", {}, label), h("dd", {}, value))));

function source(data) {
  if (data.error) return ["bad", data.error];
  return data.exists ? ["good", "Present.", facts([["digest", data.digest], ["length", data.bytes ? `${number(data.bytes)} characters of extended JSON` : null]])] : ["idle", "Not found."];
}

function stage(data) {
  if (data.error) return ["bad", data.error];
  const scanned = data.complete ? `all ${number(data.looked_at)} entries scanned` : `only the newest ${number(data.looked_at)} entries scanned`;
  if (!data.entries.length) return ["idle", `No changes; ${scanned}.`];
  const waits = data.entries.some((entry) => entry.state.state !== "confirmed");
  return [waits ? "warn" : "good", `${count(data.entries.length, "change")}; ${scanned}.`,
    h("ul", { class: "entries" }, data.entries.slice(0, 5).map(entry)),
    data.entries.length > 5 ? h("p", { class: "muted" }, `… and ${number(data.entries.length - 5)} older`) : null];
}

function entry(data) {
  const { state } = data;
  const [tone, word] = { waiting: ["warn", "waiting"], pending: ["warn", "in flight"], confirmed: ["good", "done"] }[state.state];
  const added = Date.parse(data.added_at);
  return h("li", {},
    h("p", {}, h("span", { class: "badge", "data-tone": tone }, word), " ", h("b", {}, data.operation ?? ""), data.unreadable ? h("span", { class: "wrong" }, data.unreadable) : null,
      " ", h("time", { datetime: data.added_at, title: data.added_at }, `${clock(added)}, ${ago(added)}`)),
    facts([
      ["entry", data.id], ["version", data.version],
      ["committed", data.committed_at ? clock(data.committed_at) : null], ["digest", data.digest],
      ["consumer", state.consumer ? `${state.consumer} for ${duration(state.idle_ms / 1000)}, delivered ${count(state.deliveries, "time")}` : null],
      ...Object.entries(data.embedding ?? {}).map(([label, value]) => [label, typeof value === "string" ? value : stringify(value)]),
    ]));
}

function index(data) {
  if (data === null) return ["idle", "Not found."];
  if (data.error) return ["bad", data.error];
  const complete = data.present === data.chunks && data.surplus === 0;
  return [complete ? "good" : "bad", `${number(data.present)} of ${count(data.chunks, "chunk")} present${data.surplus ? `, ${number(data.surplus)} surplus` : ""}.`,
    facts([["version", data.version], ["digest", data.digest], ["first point", data.point], ...Object.entries(data.made ?? {}).map(([label, value]) => [label, typeof value === "string" ? value : stringify(value)])])];
}

function deletions(data) {
  if (data.error) return hop("Tombstones", "trash", "bad", data.error);
  if (!data.document && !data.collection) return null;
  return hop("Tombstones", "trash", "idle", "Deleted.", facts([["document, at version", data.document], ["collection, at version", data.collection]]));
}

function letters(data) {
  if (data.error) return hop("Dead letters", "letters", "bad", data.error);
  if (!data.length) return null;
  return hop("Dead letters", "letters", "bad", `${count(data.length, "change")} parked.`,
    h("ul", { class: "entries" }, data.map((letter) => h("li", {}, h("p", {}, letter.reason), facts([["dead letter", `${letter.id} of stage ${letter.stage}`], ["version", letter.version], ["parked", letter.parked_at]])))),
    h("p", {}, h("a", { href: "#/dead-letters" }, "Show the dead letters")));
}
