// Builds elements. Data is always inserted as text, never parsed as markup.

import { stringify } from "./json.js";

const SVG = "http://www.w3.org/2000/svg";

/** h("p", {class: "note", onclick}, "text", child, …) creates an element. Null, undefined and false children are skipped. */
export function h(tag, props = {}, ...children) {
  return fill(document.createElement(tag), props, children);
}

/** The same for SVG. */
export function s(tag, props = {}, ...children) {
  return fill(document.createElementNS(SVG, tag), props, children);
}

function fill(element, props, children) {
  for (const [name, value] of Object.entries(props ?? {})) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "value" || name === "checked") element[name] = value;
    else element.setAttribute(name, value === true ? "" : String(value));
  }
  element.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

/** Renders `backticks` as code. */
export function prose(sentence) {
  return sentence.split("`").map((piece, i) => (i % 2 ? h("code", {}, piece) : piece));
}

/** Sets text only if it changed, to preserve the user's selection. */
export function text(element, value) {
  const wanted = value === null || value === undefined ? "–" : String(value);
  if (element.textContent !== wanted) element.textContent = wanted;
}

/** Sets an attribute only if it changed. */
export function attribute(element, name, value) {
  if (value === null || value === undefined || value === false) element.removeAttribute(name);
  else if (element.getAttribute(name) !== String(value)) element.setAttribute(name, String(value));
}

/** Renders `build(data)` into `element` if the data changed. */
export function redraw(element, data, build) {
  const now = stringify(data) ?? "";
  if (element.shownData === now) return;
  element.shownData = now;
  element.replaceChildren(...[build(data)].flat(Infinity).filter(Boolean));
}

const PATHS = {
  overview: "M3 12h4l3-8 4 16 3-8h4",
  letters: "M3 6h18v12H3zM3 7l9 7 9-7",
  search: "M10.5 4a6.5 6.5 0 1 0 0 13 6.5 6.5 0 0 0 0-13zM15.5 15.5 21 21",
  document: "M6 3h8l5 5v13H6zM14 3v5h5M9 13h7M9 17h5",
  replay: "M4 5v5h5M4.6 10a8 8 0 1 1-.4 4.5",
  check: "M4 12.5 9.5 18 20 6.5",
  clock: "M12 3a9 9 0 1 0 0 18 9 9 0 0 0 0-18zM12 7v5.5l3.5 2",
  cross: "M6 6l12 12M18 6 6 18",
  question: "M9 9a3 3 0 1 1 4.2 2.75c-.8.4-1.2 1-1.2 2V14.5M12 18v.2",
  sun: "M12 8a4 4 0 1 0 0 8 4 4 0 0 0 0-8zM12 2v2.5M12 19.5V22M4.9 4.9l1.8 1.8M17.3 17.3l1.8 1.8M2 12h2.5M19.5 12H22M4.9 19.1l1.8-1.8M17.3 6.7l1.8-1.8",
  moon: "M20 14.5A8.5 8.5 0 0 1 9.5 4a8.5 8.5 0 1 0 10.5 10.5z",
  auto: "M12 3a9 9 0 1 0 0 18 9 9 0 0 0 0-18zM12 3v18M12 7h5.5M12 12h8.8M12 17h5.5",
  lock: "M6 11h12v9H6zM8.5 11V7.5a3.5 3.5 0 0 1 7 0V11",
  unlock: "M6 11h12v9H6zM8.5 11V7.5a3.5 3.5 0 0 1 6.8-1.2",
  keys: "M3 7h18v10H3zM7 10.5h.1M11 10.5h.1M15 10.5h.1M8 13.8h8",
  warn: "M12 4 2.5 20h19zM12 10v4.5M12 17.2v.2",
  arrow: "M5 12h14M13 6l6 6-6 6",
  trash: "M5 7h14M10 7V4.5h4V7M7 7l1 13h8l1-13",
  database: "M4 6c0-1.7 3.6-3 8-3s8 1.3 8 3-3.6 3-8 3-8-1.3-8-3zM4 6v12c0 1.7 3.6 3 8 3s8-1.3 8-3V6M4 12c0 1.7 3.6 3 8 3s8-1.3 8-3",
  service: "M12 8.5a3.5 3.5 0 1 0 0 7 3.5 3.5 0 0 0 0-7zM12 2.5v3M12 18.5v3M2.5 12h3M18.5 12h3M5.3 5.3l2.1 2.1M16.6 16.6l2.1 2.1M5.3 18.7l2.1-2.1M16.6 7.4l2.1-2.1",
  stream: "M3 7h18M3 12h18M3 17h18",
  model: "M12 3l8 4.5v9L12 21l-8-4.5v-9zM4 7.5l8 4.5 8-4.5M12 12v9",
  points: "M6 6.5h.1M12 5h.1M18 7.5h.1M8 12h.1M14 11.5h.1M5.5 17.5h.1M11.5 18h.1M18 16.5h.1",
};

/** A decorative icon. */
export function icon(name, extra = "") {
  return s("svg", { class: `icon icon-${name} ${extra}`, viewBox: "0 0 24 24", "aria-hidden": "true" }, s("path", { d: PATHS[name] }));
}

/** Replaces the icon in a holder. */
export function setIcon(holder, name) {
  if (holder.dataset.icon === name) return;
  holder.dataset.icon = name;
  holder.replaceChildren(icon(name));
}

/** Highlighted JSON. */
export function json(value) {
  const pre = h("pre", { class: "json", tabindex: "0" });
  const source = stringify(value, 2) ?? "";
  const token = /("(?:\\.|[^"\\])*")(\s*:)?|\b(?:true|false|null)\b|-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?/g;
  let at = 0;
  for (const match of source.matchAll(token)) {
    pre.append(source.slice(at, match.index));
    const kind = match[2] ? "key" : match[1] ? "string" : "number";
    pre.append(h("span", { class: `j-${kind}` }, match[2] ? match[1] : match[0]));
    if (match[2]) pre.append(match[2]);
    at = match.index + match[0].length;
  }
  pre.append(source.slice(at));
  return pre;
}
