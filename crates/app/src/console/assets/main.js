// The page frame: navigation, keyboard shortcuts, theme, lock and connection state.

import { help, login, logout } from "./dialog.js";
import { attribute, h, icon, setIcon, text } from "./dom.js";
import { duration, number } from "./format.js";
import * as documentPage from "./pages/document.js";
import * as indexes from "./pages/indexes.js";
import * as letters from "./pages/letters.js";
import * as overview from "./pages/overview.js";
import * as replays from "./pages/replays.js";
import * as search from "./pages/search.js";
import { state } from "./state.js";

const PAGES = [
  { path: "/", key: "o", label: "Overview", picture: "overview", page: overview },
  { path: "/indexes", key: "x", label: "Indexes", picture: "database", page: indexes, nested: true },
  { path: "/dead-letters", key: "d", label: "Dead letters", picture: "letters", page: letters },
  { path: "/search", key: "s", label: "Search", picture: "search", page: search },
  { path: "/document", key: "i", label: "Inspect", picture: "document", page: documentPage },
  { path: "/replays", key: "r", label: "Replays", picture: "replay", page: replays },
];
const main = document.getElementById("main");
let current = null;

// Pages

function show() {
  const [path, query] = location.hash.slice(1).split(/\?(.*)/s);
  const within = (one) => one.nested && path.startsWith(`${one.path}/`);
  const chosen = PAGES.find((one) => one.path === path || within(one)) ?? PAGES[0];
  current?.view.close?.();
  main.replaceChildren();
  main.className = `page-${chosen.key}`;
  const view = chosen.page.open(main, new URLSearchParams(query ?? ""), within(chosen) ? decode(path.slice(chosen.path.length + 1)) : "");
  current = { ...chosen, view };
  for (const link of document.querySelectorAll("#nav a")) attribute(link, "aria-current", link.dataset.path === chosen.path ? "page" : null);
  view.update?.();
  view.tick?.();
  entitle();
  window.scrollTo(0, 0);
}

/** Decodes a part of the route; as it is, if it is not encoded. */
function decode(part) {
  try { return decodeURIComponent(part); } catch { return part; }
}

function entitle() {
  const mark = { stalled: "✖ ", syncing: "… ", unknown: "? " }[state.overview?.verdict.state] ?? "";
  const lost = state.connection === "lost" ? "⚠ " : "";
  document.title = `${lost || mark}${current?.label ?? "Overview"} · tidewheel`;
}

const letterCount = h("span", { class: "bubble", hidden: true });
document.getElementById("nav").append(...PAGES.map(({ path, label, picture }) =>
  h("a", { href: `#${path}`, "data-path": path }, icon(picture), h("span", {}, label), path === "/dead-letters" ? letterCount : null)));

// Theme: system, light, dark

const THEMES = { auto: ["auto", "Theme: system"], light: ["sun", "Theme: light"], dark: ["moon", "Theme: dark"] };
const themeIcon = h("span");
const themeButton = h("button", { type: "button", class: "tool", onclick: () => {
  const order = Object.keys(THEMES);
  theme(order[(order.indexOf(root.dataset.theme ?? "auto") + 1) % order.length]);
} }, themeIcon);
const root = document.documentElement;

function theme(name) {
  attribute(root, "data-theme", name === "auto" ? null : name);
  try { localStorage.setItem("tidewheel-theme", name); } catch { /* storage may be forbidden */ }
  setIcon(themeIcon, THEMES[name][0]);
  attribute(themeButton, "aria-label", THEMES[name][1]);
  attribute(themeButton, "title", THEMES[name][1]);
}

// Lock

const lockIcon = h("span");
const lockWord = h("span", { class: "tool-word" });
const lockButton = h("button", { type: "button", class: "tool", onclick: () => (state.mayAct ? logout() : login()) }, lockIcon, lockWord);

function lock() {
  const { session } = state;
  lockButton.disabled = Boolean(session && !session.actions);
  const words = !session ? "Unlock" : !session.actions ? "Read-only" : session.authorized ? "Unlocked" : "Unlock";
  const title = !session || session.actions ? (state.mayAct ? "Lock this tab" : "Enter the token to enable actions") : "Set console.token to allow actions";
  setIcon(lockIcon, state.mayAct ? "unlock" : "lock");
  text(lockWord, words);
  attribute(lockButton, "title", title);
}

// Connection

const pulse = h("span", { class: "pulse" });
const pulseWord = h("span", {});
const connection = h("span", { class: "connection" }, pulse, pulseWord);
const lost = document.getElementById("lost");
const lostWords = h("span");
const lostButton = h("button", { type: "button", class: "button small", onclick: () => (state.connection === "locked" ? login() : state.live.reconnect()) });
lost.append(icon("warn"), lostWords, lostButton);

function connected() {
  const { connection: now } = state;
  attribute(connection, "data-state", now);
  text(pulseWord, { live: "Live", lost: "Connection lost", locked: "Locked", connecting: "Connecting" }[now]);
  const broken = now === "lost" || now === "locked";
  lost.hidden = !broken;
  document.body.classList.toggle("stale", broken);
  text(lostButton, now === "locked" ? "Unlock" : "Reconnect");
  tick();
  entitle();
}

function tick() {
  current?.view.tick?.();
  if (state.connection === "locked") text(lostWords, "This console requires its token.");
  if (state.connection === "lost") {
    const age = state.updatedAt ? `Data is ${duration((Date.now() - state.updatedAt) / 1000)} old.` : "No data yet.";
    text(lostWords, `Connection lost. ${age} Reconnecting …`);
  }
}

// Live

let announced = "";
state.addEventListener("look", () => {
  current?.view.update?.();
  current?.view.tick?.();
  if (!state.overview) return;
  const { verdict, stages } = state.overview;
  // Announce state changes only: numbers change constantly.
  if (verdict.state !== announced) {
    announced = verdict.state;
    text(document.getElementById("announce"), verdict.summary);
    entitle();
  }
  const parked = stages.reduce((sum, stage) => sum + (stage.dead_letters ?? 0), 0);
  letterCount.hidden = parked === 0;
  text(letterCount, number(parked));
});
state.addEventListener("session", lock);
state.addEventListener("connection", connected);

// Keys

let went = 0;
let focusNext = false;
document.addEventListener("keydown", (event) => {
  const typing = event.target.closest?.("input, textarea, select, dialog");
  if (typing || event.ctrlKey || event.metaKey || event.altKey) return;
  const page = Date.now() - went < 1_500 && PAGES.find((one) => one.key === event.key);
  went = 0;
  if (page) location.hash = page.path;
  else if (event.key === "g") went = Date.now();
  else if (event.key === "?") help();
  else if (event.key === "/") {
    event.preventDefault();
    if (current?.path === "/search") return current.view.focus();
    // The page opens once the hash has changed.
    focusNext = true;
    location.hash = "/search";
  }
});
document.querySelector(".skip").addEventListener("click", (event) => {
  // The hash is the page's route: the link must not change it.
  event.preventDefault();
  main.focus();
});

document.getElementById("tools").append(connection, lockButton, themeButton,
  h("button", { type: "button", class: "tool keys-tool", "aria-label": "Keyboard shortcuts", title: "Keyboard shortcuts (?)", onclick: help }, icon("keys")));
theme(root.dataset.theme ?? "auto");
lock();
connected();
window.addEventListener("hashchange", () => {
  show();
  if (focusNext && current.view.focus) current.view.focus();
  else main.focus({ preventScroll: true });
  focusNext = false;
});
setInterval(tick, 1_000);
await state.start();
show();
