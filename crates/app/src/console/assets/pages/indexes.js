// The indexes, and a page about each: state, problems, generations, declaration, rollback.

import { get, post } from "../api.js";
import { confirm, empty, failure, login, toast } from "../dialog.js";
import { h, icon, json, prose, redraw } from "../dom.js";
import { clock, count, duration, estimate, number, rate } from "../format.js";
import { indexLink } from "../links.js";
import { state } from "../state.js";
import { STATES, banner } from "../verdict.js";

export const title = "Indexes";

const GENERATION_TONES = { serving: "good", kept: "idle", creating: "info", filling: "info", comparing: "info", ready: "info", retiring: "idle" };
const STEPS = {
  submitted: "waiting for the producer", creating: "creating", queued: "waiting for another snapshot", filling: "filling",
  comparing: "comparing with MongoDB", ready: "waiting for an empty pipeline", switching: "switching", altering: "changing settings",
  deleting: "deleting", held: "ready, held", done: "done",
};
const DECLARED = { applied: "as applied", differs: "differently from what is applied", absent: "no longer", unknown: "unknown" };

export function open(main, params, name) {
  return name ? one(main, name) : all(main);
}

// All indexes

function all(main) {
  const result = h("div", { class: "result" });
  main.append(h("div", { class: "page-head" }, h("h1", {}, title), h("p", { class: "muted" }, "All indexes share the two stages, and so their backlog.")), result);
  return {
    update() {
      if (state.overview) redraw(result, state.overview.indexes.map(steady), () => list(state.overview.indexes));
    },
  };
}

function list(indexes) {
  if (!indexes.length) return empty("database", "No index", h("p", { class: "muted" }, "Declare one in the settings, or set ", h("code", {}, "mongodb.database"), "."));
  const row = (index) => h("tr", {},
    h("td", { "data-label": "Index" }, h("a", { href: indexLink(index.name) }, h("b", {}, index.name))),
    h("td", { "data-label": "State" }, badge(index.state)),
    h("td", { "data-label": "Serving" }, serving(index)),
    h("td", { "data-label": "Points" }, number(index.points)),
    h("td", { "data-label": "p95" }, index.latency ? duration(index.latency.p95_seconds) : "–"),
    h("td", { "data-label": "Operation" }, index.operation ? operation(index.operation) : "–"));
  const heads = ["Index", "State", "Serving", "Points", "Latency p95", "Operation"];
  return h("div", { class: "card flush" }, h("table", { class: "rows indexes" },
    h("caption", { class: "sr" }, "Indexes"),
    h("thead", {}, h("tr", {}, heads.map((head) => h("th", { scope: "col" }, head)))),
    h("tbody", {}, indexes.map(row))));
}

/** Without what changes in every overview. */
function steady({ operation: doing, drift, ...rest }) {
  return { ...rest, drift: drift && { ...drift, seconds_ago: Math.round(drift.seconds_ago / 60) }, operation: doing && { ...doing, stalled_seconds: Math.round(doing.stalled_seconds / 60) } };
}

function badge(name) {
  const { word, tone } = STATES[name] ?? STATES.unknown;
  return h("span", { class: "badge", "data-tone": tone }, word.toLowerCase());
}

function serving(index) {
  if (index.serving) return `generation ${index.serving.generation}`;
  return index.generations.length ? "not created yet" : "not applied";
}

function operation({ generation, step, rows, of, rows_per_second: speed, eta_seconds: eta }) {
  const known = (value) => value !== null && value !== undefined;
  const read = known(rows) ? ` ${number(rows)}${known(of) ? ` of ${number(of)}` : ""} documents` : "";
  return `generation ${generation}: ${STEPS[step] ?? step}${read}${known(speed) ? `, ${rate(speed)}/s` : ""}${known(eta) ? `, ETA ${estimate(eta)}` : ""}`;
}

// One index

function one(main, name) {
  const head = h("div", { class: "result" });
  const actions = h("div", { class: "actions" });
  const problems = h("section", { class: "problems", "aria-label": "Problems" });
  const facts = h("section", { class: "card", "aria-label": "Facts" });
  const generations = h("section", { class: "card flush", "aria-label": "Generations" });
  const declaration = h("section", { class: "card", "aria-label": "Declaration" });
  main.append(h("div", { class: "page-head" }, h("h1", {}, name), h("a", { href: "#/indexes" }, "All indexes")), head, problems, actions, facts, generations, declaration);
  let shown = null;
  let closed = false;

  async function loadDeclarations(numbers) {
    shown = numbers;
    try {
      const { declarations } = await get(`/api/indexes/${encodeURIComponent(name)}`);
      if (closed) return;
      const latest = Object.keys(declarations).map(Number).sort((a, b) => b - a);
      declaration.replaceChildren(h("h2", {}, "Declaration"), ...latest.map((number, i) =>
        h("details", { open: i === 0 }, h("summary", {}, `Generation ${number}`), json(declarations[number]))));
    } catch (error) {
      shown = null;
      if (!closed && error.status !== 0) declaration.replaceChildren(failure(error));
    }
  }

  async function rollBack(to) {
    try {
      const { matching } = await get("/api/dead-letters", { index: name, limit: 1 });
      const lacks = matching ? [`${count(matching, "dead letter")} of the index: their documents may be missing or outdated in that generation.`] : [];
      const agreed = await confirm({
        title: `Switch ${name} back to generation ${to}?`, action: "Roll back",
        text: [`Searches read generation ${to} as soon as the alias has moved. The present one is kept up, so that you can switch forward again.`, ...lacks],
      });
      if (!agreed) return;
      await post(`/api/indexes/${encodeURIComponent(name)}/rollback`, {});
      toast(`Rollback of ${name} submitted`);
    } catch (error) {
      toast(error.message, "bad");
      if (error.status === 401) await state.loadSession();
    }
  }

  function drawActions(index) {
    const kept = index.generations.filter((one) => one.state === "kept" && one.filled && !one.lost);
    const before = kept.filter((one) => one.number < (index.serving?.generation ?? 0));
    const to = (before.length ? before : kept).at(-1)?.number;
    redraw(actions, [to, state.mayAct, state.session?.actions, index.operation?.step], () => {
      if (to === undefined || index.operation?.step === "switching") return [];
      if (!state.session?.actions) return h("p", { class: "note" }, icon("lock"), h("span", {}, "This console is read-only. Run ", h("code", {}, `tidewheel rollback ${name}`), ` to switch back to generation ${to}.`));
      if (!state.mayAct) return h("p", { class: "note" }, icon("lock"), h("span", {}, `To switch back to generation ${to}, `), h("button", { type: "button", class: "button small", onclick: login }, "unlock with the token"));
      return h("button", { type: "button", class: "button", onclick: () => rollBack(to) }, icon("replay"), `Roll back to generation ${to}`);
    });
  }

  function update() {
    if (!state.overview) return;
    const index = state.overview.indexes.find((one) => one.name === name);
    if (!index) {
      redraw(head, "none", () => empty("question", `There is no index ${name}`));
      for (const part of [problems, actions, facts, generations, declaration]) {
        part.replaceChildren();
        delete part.shownData;
      }
      for (const part of [facts, generations, declaration]) part.hidden = true;
      shown = null;
      return;
    }
    for (const part of [facts, generations, declaration]) part.hidden = false;
    const { word, icon: picture, tone } = STATES[index.state] ?? STATES.unknown;
    const summary = index.operation ? operation(index.operation) : index.serving ? `Searches read ${serving(index)}.` : `The index is ${serving(index)}.`;
    redraw(head, [index.state, summary], () => banner(tone, picture, word, summary));
    const own = state.overview.problems.filter((problem) => !problem.index || problem.index === name);
    redraw(problems, own, (list) => list.map(problem));
    drawActions(index);
    redraw(facts, steady(index), () => [h("h2", {}, "Facts"), describe(index)]);
    redraw(generations, index.generations, () => generationTable(index.generations));
    const numbers = index.generations.map((one) => one.number).join();
    if (numbers !== shown) loadDeclarations(numbers);
  }

  state.addEventListener("session", update);
  return { update, close: () => { closed = true; state.removeEventListener("session", update); } };
}

function problem({ severity, code, message, action }) {
  const upper = (sentence) => sentence.charAt(0).toUpperCase() + sentence.slice(1);
  return h("article", { class: "problem", "data-tone": severity === "critical" ? "bad" : "warn" },
    icon(severity === "critical" ? "cross" : "warn"),
    h("div", {}, h("p", { class: "problem-message" }, prose(upper(message)), " ", h("code", { class: "tag" }, code)),
      h("p", { class: "problem-action" }, prose(upper(action)))));
}

function describe(index) {
  const { drift, latency } = index;
  const differing = drift ? drift.missing + drift.stale + drift.extra + drift.surplus : 0;
  const letters = index.dead_letters === null ? "Show them" : count(index.dead_letters, "change");
  const rows = [
    ["points", number(index.points)],
    ["drift", drift ? `${differing ? count(differing, "document") : "none"}, audited ${duration(drift.seconds_ago)} ago` : "not audited yet"],
    ["latency", latency ? `p50 ${duration(latency.p50_seconds)}, p95 ${duration(latency.p95_seconds)}` : "no changes in the last minute"],
    ["dead letters", h("a", { href: `#/dead-letters?${new URLSearchParams({ index: index.name })}` }, letters)],
    ["declared", DECLARED[index.declared] ?? index.declared],
  ];
  return h("dl", { class: "facts" }, rows.map(([label, value]) => h("div", {}, h("dt", {}, label), h("dd", {}, value))));
}

function generationTable(generations) {
  const row = (one) => h("tr", {},
    h("td", { "data-label": "Generation" }, h("b", {}, one.number)),
    h("td", { "data-label": "State" }, h("div", {}, h("span", { class: "badge", "data-tone": GENERATION_TONES[one.state] ?? "idle" }, one.state),
      one.until_ms ? h("div", { class: "muted" }, `until ${clock(one.until_ms)}`) : null,
      one.filled ? null : h("div", { class: "muted" }, "not filled"),
      one.problem ? h("div", { class: "wrong" }, one.problem) : null,
      one.lost ? h("div", { class: "wrong" }, one.lost) : null)),
    h("td", { "data-label": "Points" }, number(one.points)),
    h("td", { "data-label": "Status" }, one.status ?? "–"),
    h("td", { "data-label": "Collection", class: "mono" }, one.collection));
  return h("table", { class: "rows generations" },
    h("caption", { class: "sr" }, "Generations"),
    h("thead", {}, h("tr", {}, ["Generation", "State", "Points", "Status", "Collection"].map((head) => h("th", { scope: "col" }, head)))),
    h("tbody", {}, generations.map(row)));
}
