// Dead letters: reasons, retry and drop.

import { get, post } from "../api.js";
import { confirm, empty, failure, login, toast } from "../dialog.js";
import { h, icon, json } from "../dom.js";
import { clock, count, duration, number } from "../format.js";
import { indexLink, indexOptions, inspectLink } from "../links.js";
import { state } from "../state.js";

export const title = "Dead letters";

const STAGE = { raw: "1 (embed)", embedded: "2 (write)" };
const AGES = [["any age", ""], ["younger than 1 hour", "new:1h"], ["younger than 1 day", "new:1d"], ["older than 1 hour", "old:1h"], ["older than 1 day", "old:1d"]];
const LIMIT = 200;

export function open(main, params) {
  const stage = h("select", { id: "f-stage" }, [["both stages", ""], ["stage 1 (embed)", "raw"], ["stage 2 (write)", "embedded"]].map(([label, value]) => h("option", { value }, label)));
  const age = h("select", { id: "f-age" }, AGES.map(([label, value]) => h("option", { value }, label)));
  const index = h("select", { id: "f-index" });
  const indexField = h("div", { class: "field" }, h("label", { for: "f-index" }, "Index"), index);
  const reason = h("input", { type: "search", id: "f-reason", placeholder: "part of the reason" });
  const id = h("input", { type: "search", id: "f-id", placeholder: "_id or dead letter id" });
  const result = h("div", { class: "result", "aria-live": "polite" });
  const actions = h("div", { class: "actions" });
  const chosen = new Map();
  let listing = { letters: [], matching: 0 };
  let asked = 0;
  let parked = null;

  const field = (label, control) => h("div", { class: "field" }, h("label", { for: control.id }, label), control);
  main.append(
    h("div", { class: "page-head" }, h("h1", {}, title), h("p", { class: "muted" }, "Changes parked after every attempt failed. All other changes continue.")),
    h("form", { class: "filters card", role: "search", "aria-label": "Filter", onsubmit: (event) => { event.preventDefault(); load(); } },
      indexField, field("Stage", stage), field("Reason", reason), field("Document", id), field("Age", age),
      h("button", { type: "submit", class: "button primary" }, "Filter")),
    actions, result);
  indexOptions(index, "all indexes", params.get("index") ?? "");
  indexField.hidden = index.options.length < 3 && !index.value;
  for (const control of [stage, age, index]) control.addEventListener("change", () => load());

  const filter = () => {
    const [which, span] = age.value.split(":");
    return { stage: stage.value, index: index.value, reason: reason.value.trim(), id: id.value.trim(),
      older_than: which === "old" ? span : "", newer_than: which === "new" ? span : "" };
  };

  async function load() {
    asked += 1;
    const mine = asked;
    result.setAttribute("aria-busy", "true");
    try {
      const answer = await get("/api/dead-letters", { ...filter(), limit: LIMIT });
      if (mine !== asked) return;
      listing = answer;
      const there = new Set(listing.letters.map(name));
      for (const key of chosen.keys()) if (!there.has(key)) chosen.delete(key);
      draw();
    } catch (error) {
      if (mine === asked) result.replaceChildren(failure(error));
    } finally {
      result.removeAttribute("aria-busy");
    }
  }

  function draw() {
    drawActions();
    if (listing.matching === 0) {
      const filtered = Object.values(filter()).some(Boolean);
      result.replaceChildren(empty("letters", filtered ? "No dead letter matches" : "No dead letters",
        h("p", { class: "muted" }, filtered ? "Relax the filter to see more." : "Every change was processed.")));
      return;
    }
    const heads = [state.mayAct ? selectAll() : null, "Reason", "Document", "Stage", "Attempts", "Parked", "Actions"].filter(Boolean);
    const table = h("table", { class: "rows letters" },
      h("caption", { class: "sr" }, "Dead letters"),
      h("thead", {}, h("tr", {}, heads.map((head) => h("th", { scope: "col", class: typeof head === "string" ? null : "tick-cell" },
        head === "Actions" ? h("span", { class: "sr" }, head) : head)))),
      h("tbody", {}, listing.letters.map(row)));
    const more = listing.matching - listing.letters.length;
    result.replaceChildren(h("div", { class: "card flush" }, table), more > 0 ? h("p", { class: "muted" }, `… and ${count(more, "more")}`.replace("mores", "more")) : "");
  }

  function selectAll() {
    const all = listing.letters.length > 0 && listing.letters.every((letter) => chosen.has(name(letter)));
    return h("input", { type: "checkbox", checked: all, "aria-label": "Select all shown", onchange: (event) => {
      chosen.clear();
      if (event.currentTarget.checked) for (const letter of listing.letters) chosen.set(name(letter), letter);
      draw();
    } });
  }

  function row(letter) {
    const details = h("tr", { class: "details", hidden: true });
    const toggle = h("button", { type: "button", class: "link reason", "aria-expanded": "false", onclick: () => show(letter, details, toggle) }, letter.reason || "no reason given");
    const act = (verb, label, picture) => h("button", { type: "button", class: "button small", "aria-label": `${label} the dead letter of ${about(letter)}`, onclick: () => run(verb, { letters: [key(letter)] }, 1) }, icon(picture), label);
    const cells = [
      state.mayAct ? h("td", { class: "tick-cell" }, h("input", { type: "checkbox", checked: chosen.has(name(letter)), "aria-label": `Select the dead letter of ${about(letter)}`, onchange: (event) => {
        if (event.currentTarget.checked) chosen.set(name(letter), letter);
        else chosen.delete(name(letter));
        drawActions();
      } })) : null,
      h("td", { "data-label": "Reason", class: "wide" }, toggle),
      h("td", { "data-label": "Document" }, letter.unreadable !== undefined ? h("span", { class: "badge", "data-tone": "bad" }, "unreadable")
        : h("div", {}, letter.document_id ? h("a", { href: inspectLink(letter.key, letter.namespace), class: "mono" }, letter.document_id) : h("span", {}, letter.operation),
          h("div", { class: "muted" }, `${letter.document_id ? `${letter.operation} in ` : ""}${letter.namespace}`),
          letter.index ? h("div", { class: "muted" }, letter.index.map((name, i) => [i ? ", " : "", h("a", { href: indexLink(name) }, name)])) : null)),
      h("td", { "data-label": "Stage" }, STAGE[letter.stage]),
      h("td", { "data-label": "Attempts" }, number(letter.attempts)),
      h("td", { "data-label": "Parked", title: clock(Date.parse(letter.parked_at)) }, `${duration(letter.age_ms / 1000)} ago`),
      h("td", { class: "row-actions" }, state.mayAct ? [letter.unreadable === undefined ? act("retry", "Retry", "replay") : null, act("drop", "Drop", "trash")] : null),
    ];
    return [h("tr", {}, cells), details];
  }

  async function show(letter, details, toggle) {
    const opening = details.hidden;
    toggle.setAttribute("aria-expanded", String(opening));
    details.hidden = !opening;
    if (!opening || details.dataset.loaded) return;
    details.dataset.loaded = "yes";
    const cell = h("td", { colspan: "7" }, h("p", { class: "muted" }, "Reading it …"));
    details.replaceChildren(cell);
    try {
      cell.replaceChildren(whole(await get(`/api/dead-letters/${letter.stage}/${encodeURIComponent(letter.id)}`)));
    } catch (error) {
      delete details.dataset.loaded;
      cell.replaceChildren(failure(error));
    }
  }

  function drawActions() {
    if (!listing.matching) return actions.replaceChildren();
    if (!state.session?.actions) {
      return actions.replaceChildren(h("p", { class: "note" }, icon("lock"), h("span", {}, "This console is read-only. Set ", h("code", {}, "console.token"), " to enable actions here, or run ", h("code", {}, "tidewheel dead-letters retry --all"), ".")));
    }
    if (!state.mayAct) {
      return actions.replaceChildren(h("p", { class: "note" }, icon("lock"), h("span", {}, "To retry or drop dead letters, "), h("button", { type: "button", class: "button small", onclick: login }, "unlock with the token")));
    }
    const some = chosen.size;
    const which = some ? { letters: [...chosen.values()].map(key) } : { filter: filter() };
    const many = some || listing.matching;
    const words = some ? `the ${number(some)} selected` : `all ${number(many)} matching`;
    actions.replaceChildren(h("p", { class: "count" }, count(listing.matching, "dead letter")),
      h("button", { type: "button", class: "button primary", onclick: () => run("retry", which, many) }, icon("replay"), `Retry ${words}`),
      h("button", { type: "button", class: "button danger-quiet", onclick: () => run("drop", which, many) }, icon("trash"), `Drop ${words}`));
  }

  async function run(verb, which, many) {
    const agreed = await confirm(verb === "retry" ? {
      title: `Retry ${count(many, "dead letter")}?`, action: "Retry",
      text: ["They return to their stage with their original version. A newer version of a document wins.", "Unreadable dead letters stay in the queue."],
    } : {
      title: `Drop ${count(many, "dead letter")}?`, action: "Drop", danger: true,
      text: ["They are deleted permanently. Their documents stay missing or stale in the index until they change."],
    });
    if (!agreed) return;
    try {
      const { done, unreadable, gone } = await post(`/api/dead-letters/${verb}`, which);
      const rest = [unreadable ? `${number(unreadable)} unreadable, kept` : null, gone ? `${number(gone)} already gone` : null].filter(Boolean);
      toast([`${count(done, "dead letter")} ${verb === "retry" ? "requeued" : "dropped"}`, ...rest].join("; "), rest.length ? "warn" : "good");
      chosen.clear();
    } catch (error) {
      toast(error.message, "bad");
      if (error.status === 401) await state.loadSession();
    }
    load();
  }

  const onsession = () => draw();
  state.addEventListener("session", onsession);
  load();
  return {
    update() {
      indexOptions(index, "all indexes");
      indexField.hidden = index.options.length < 3 && !index.value;
      // Reload only if the count changed: a list must not move under the pointer.
      const now = state.overview?.stages.map((one) => one.dead_letters).join();
      if (parked !== null && now !== undefined && now !== parked) load();
      parked = now ?? parked;
    },
    close: () => state.removeEventListener("session", onsession),
  };
}

const key = ({ stage, id }) => ({ stage, id });
const name = ({ stage, id }) => `${stage} ${id}`;
const about = (letter) => letter.document_id || letter.namespace || letter.id;

function whole(letter) {
  const facts = [
    ["Reason", letter.reason], ["Dead letter", `${letter.id}, entry ${letter.entry} of stage ${STAGE[letter.stage]}`],
    ["Parked", `${letter.parked_at}, after ${count(letter.attempts, "attempt")}`],
    ["Unreadable", letter.unreadable],
    ["Change", letter.operation ? `${letter.operation}, committed ${letter.committed_at}` : null], ["Version", letter.version], ["Key", letter.key],
    ["Vectors", letter.embedding ? `${count(letter.embedding.chunks.length, "chunk")} of ${letter.embedding.dimension} dimensions, by ${letter.embedding.model}` : null],
  ].filter(([, value]) => value);
  return h("div", { class: "letter" },
    h("dl", { class: "facts" }, facts.map(([label, value]) => h("div", {}, h("dt", {}, label), h("dd", {}, value)))),
    letter.document === undefined ? null : [h("h3", {}, "Document"), json(letter.document)]);
}
