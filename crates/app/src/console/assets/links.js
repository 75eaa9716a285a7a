// Links within the console, and choices of an index.

import { h } from "./dom.js";
import { state } from "./state.js";

/** Link to a document's page. `id` is an _id in plain notation, or extended JSON. */
export function inspectLink(id, namespace) {
  const query = new URLSearchParams({ id });
  if (namespace) query.set("namespace", namespace);
  return `#/document?${query}`;
}

/** Link to the page of an index. */
export function indexLink(name) {
  return `#/indexes/${encodeURIComponent(name)}`;
}

/** Fills a select with the known indexes; keeps the chosen one. The first option stands for no choice. */
export function indexOptions(select, first, chosen = select.value) {
  const names = new Set((state.overview?.indexes ?? []).map((index) => index.name));
  if (chosen) names.add(chosen);
  const wanted = ["", ...names];
  if (wanted.join("\n") !== [...select.options].map((option) => option.value).join("\n")) {
    select.replaceChildren(...wanted.map((name) => h("option", { value: name }, name || first)));
  }
  select.value = chosen;
}
