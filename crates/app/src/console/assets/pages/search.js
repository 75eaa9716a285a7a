// Semantic search.

import { post } from "../api.js";
import { empty, failure } from "../dialog.js";
import { h, json } from "../dom.js";
import { count } from "../format.js";
import { parse, stringify } from "../json.js";
import { indexOptions, inspectLink } from "../links.js";
import { state } from "../state.js";

export const title = "Search";

/** The last search, restored when returning from a document. */
const last = { text: "", index: "", limit: 10, filter: "", found: null, took: 0 };

/** Milliseconds to wait for the names of the indexes before a linked search. */
const PATIENCE = 2_000;

export function open(main, params) {
  if (params.has("q") && (params.get("q") !== last.text || (params.get("index") ?? last.index) !== last.index)) {
    Object.assign(last, { text: params.get("q"), index: params.get("index") ?? last.index, found: null });
  }
  const box = h("input", { type: "search", id: "q", placeholder: "Search text", value: last.text, autocomplete: "off", required: true });
  const limit = h("select", { id: "limit" }, [5, 10, 20, 50].map((number) => h("option", { value: number }, number)));
  limit.value = last.limit;
  const index = h("select", { id: "index" });
  const indexField = h("div", { class: "field inline" }, h("label", { for: "index" }, "Index"), index);
  const filter = h("textarea", { id: "filter", rows: 3, spellcheck: "false", value: last.filter, placeholder: '{"must": [{"key": "product", "match": {"value": "Atlas"}}]}' });
  const wrong = h("p", { class: "wrong", id: "filter-wrong", role: "alert", hidden: true });
  const result = h("section", { class: "result", "aria-label": "Results", "aria-live": "polite" });
  let asked = 0;

  const submit = async (event) => {
    event?.preventDefault();
    waits = false;
    const text = box.value.trim();
    if (!text) return;
    let condition = null;
    try {
      condition = filter.value.trim() ? parse(filter.value) : null;
      wrong.hidden = true;
    } catch (error) {
      wrong.textContent = `The filter is not JSON: ${error.message}`;
      wrong.hidden = false;
      return;
    }
    asked += 1;
    const mine = asked;
    Object.assign(last, { text, index: index.value, limit: Number(limit.value), filter: filter.value });
    // Keep the URL shareable without reopening the page.
    history.replaceState(null, "", `#/search?${new URLSearchParams({ q: text, ...(index.value ? { index: index.value } : {}) })}`);
    result.setAttribute("aria-busy", "true");
    const begun = performance.now();
    try {
      const found = await post("/api/search", { text, index: last.index || null, limit: last.limit, filter: condition });
      if (mine !== asked) return;
      Object.assign(last, { found, took: performance.now() - begun });
      draw();
    } catch (error) {
      if (mine === asked) result.replaceChildren(failure(error));
    } finally {
      result.removeAttribute("aria-busy");
    }
  };

  function draw() {
    if (!last.found) {
      return result.replaceChildren(empty("search", "Semantic search", h("p", { class: "muted" }, "The text is embedded like the documents, and the nearest chunks are returned. Words need not match.")));
    }
    if (!last.found.length) return result.replaceChildren(empty("search", "Nothing found", h("p", { class: "muted" }, "No document matches the filter, or the index is empty.")));
    result.replaceChildren(h("p", { class: "muted" }, `${count(last.found.length, "document")} in ${Math.round(last.took)} ms`),
      h("ol", { class: "hits" }, last.found.map(hit)));
  }

  main.append(
    h("div", { class: "page-head" }, h("h1", {}, title)),
    h("form", { class: "card search", role: "search", onsubmit: submit },
      h("div", { class: "search-line" }, h("label", { class: "sr", for: "q" }, "Text"), box,
        indexField, h("div", { class: "field inline" }, h("label", { for: "limit" }, "Limit"), limit),
        h("button", { type: "submit", class: "button primary" }, "Search")),
      h("details", { open: Boolean(last.filter) }, h("summary", {}, "Filter"),
        h("label", { for: "filter", class: "muted" }, "Qdrant filter as JSON, over document fields"), filter, wrong)),
    result);
  let waits = Boolean(last.text && !last.found);
  const searchWaiting = () => {
    if (!waits) return;
    waits = false;
    submit();
  };
  function choices() {
    indexOptions(index, "the only index", index.value || last.index);
    indexField.hidden = index.options.length < 3 && !index.value;
    // Of several indexes one has to be chosen.
    if (index.options.length > 2 && !index.value) index.selectedIndex = 1;
  }
  choices();
  draw();
  setTimeout(searchWaiting, PATIENCE);
  return {
    focus: () => box.focus(),
    update() {
      choices();
      if (state.overview) searchWaiting();
    },
    close: () => { waits = false; },
  };
}

function hit(found) {
  const { document, namespace, key, score, text, chunk } = found;
  const id = plain(document._id);
  const score100 = h("i");
  score100.style.setProperty("width", `${Math.max(0, Math.min(1, score)) * 100}%`);
  const lines = text.split("\n").filter((line) => line.trim());
  const heading = lines[0] ?? id ?? "(no text)";
  const rest = lines.slice(1).join("\n");
  return h("li", { class: "hit card" },
    h("div", { class: "hit-head" },
      h("h2", {}, heading.length > 160 ? `${heading.slice(0, 160)}…` : heading),
      h("div", { class: "score", title: "Cosine similarity of its nearest chunk" }, h("b", {}, score.toFixed(3)), h("div", { class: "gauge" }, score100))),
    rest ? h("p", { class: "chunk" }, rest) : null,
    h("p", { class: "hit-foot" },
      namespace ? h("span", { class: "tag" }, namespace) : null,
      h("span", { class: "mono" }, id),
      chunk ? h("span", { class: "muted" }, `chunk ${chunk + 1}`) : null,
      key ? h("a", { href: inspectLink(key, namespace) }, "Inspect") : null),
    h("details", {}, h("summary", {}, "Document"), json(document)));
}

function plain(value) {
  return value === undefined ? "" : typeof value === "string" ? value : stringify(value);
}
