// Dialogs, toasts and empty states.

import { post, setToken } from "./api.js";
import { h, icon } from "./dom.js";
import { state } from "./state.js";

/** Opens a dialog; resolves to the argument of `close`, or null if dismissed. */
function open(build) {
  return new Promise((resolve) => {
    let result = null;
    const dialog = h("dialog", { class: "dialog", "aria-labelledby": "dialog-title" });
    const close = (value) => {
      result = value;
      dialog.close();
    };
    dialog.append(...[build(close)].flat());
    dialog.addEventListener("close", () => {
      dialog.remove();
      resolve(result);
    });
    document.body.append(dialog);
    dialog.showModal();
  });
}

/** Asks for confirmation of an irreversible or long action. */
export function confirm({ title, text, action, danger = false }) {
  return open((close) => [
    h("h2", { id: "dialog-title" }, title),
    text.map((line) => h("p", {}, line)),
    h("div", { class: "dialog-buttons" },
      h("button", { type: "button", class: "button", autofocus: danger, onclick: () => close(false) }, "Cancel"),
      h("button", { type: "button", class: `button ${danger ? "danger" : "primary"}`, autofocus: !danger, onclick: () => close(true) }, action)),
  ].flat());
}

/** Asks for the token; true if the server accepts it. */
export async function login() {
  const done = await open((close) => {
    const field = h("input", { type: "password", name: "token", autocomplete: "off", required: true, autofocus: true, id: "token" });
    const wrong = h("p", { class: "wrong", role: "alert", hidden: true });
    const submit = async (event) => {
      event.preventDefault();
      try {
        await post("/api/session", {}, field.value);
        setToken(field.value);
        close(true);
      } catch (error) {
        wrong.textContent = error.status === 401 ? "Wrong token." : error.message;
        wrong.hidden = false;
        field.select();
      }
    };
    return h("form", { onsubmit: submit },
      h("h2", { id: "dialog-title" }, "Unlock"),
      h("p", {}, "Enter the value of ", h("code", {}, "console.token"), ". It is kept until this tab is closed."),
      h("label", { for: "token" }, "Token"), field, wrong,
      h("div", { class: "dialog-buttons" },
        h("button", { type: "button", class: "button", onclick: () => close(false) }, "Cancel"),
        h("button", { type: "submit", class: "button primary" }, "Unlock")));
  });
  if (done) {
    await state.loadSession();
    state.live.reconnect();
  }
  return Boolean(done);
}

export async function logout() {
  setToken(null);
  await state.loadSession();
  toast("Locked: this tab is read-only.");
}

const KEYS = [
  ["/", "search"], ["g o", "overview"], ["g x", "indexes"], ["g d", "dead letters"], ["g s", "search"], ["g i", "inspect a document"], ["g r", "replays"],
  ["← →", "values of the focused chart"], ["Esc", "close"], ["?", "this help"],
];

export function help() {
  if (document.querySelector("dialog[open]")) return;
  open((close) => [
    h("h2", { id: "dialog-title" }, "Keyboard shortcuts"),
    h("dl", { class: "keys" }, KEYS.map(([keys, what]) => h("div", {}, h("dt", {}, keys.split(" ").map((key) => h("kbd", {}, key))), h("dd", {}, what)))),
    h("div", { class: "dialog-buttons" }, h("button", { type: "button", class: "button primary", autofocus: true, onclick: () => close(true) }, "Close")),
  ]);
}

/** Shows a message for a few seconds. */
export function toast(words, tone = "good") {
  const note = h("p", { class: "toast", "data-tone": tone }, icon(tone === "good" ? "check" : "warn"), words);
  document.getElementById("toasts").append(note);
  setTimeout(() => note.remove(), 6_000);
}

/** An error in place of a result. */
export function failure(error) {
  return h("div", { class: "problem", "data-tone": "bad", role: "alert" }, icon("cross"),
    h("div", {}, h("p", { class: "problem-message" }, error.message), error.hint ? h("p", { class: "problem-action" }, error.hint) : null));
}

/** An empty state. */
export function empty(picture, title, ...more) {
  return h("div", { class: "empty" }, icon(picture), h("h2", {}, title), ...more);
}
