// Client of the JSON API. The token is kept for this tab only.

import { parse, stringify } from "./json.js";

const TOKEN = "tidewheel-token";

/** An error response of the server. */
export class RequestError extends Error {
  constructor(status, message, hint) {
    super(message);
    this.status = status;
    this.hint = hint;
  }
}

export function token() {
  try { return sessionStorage.getItem(TOKEN); } catch { return null; }
}

export function setToken(value) {
  try {
    if (value) sessionStorage.setItem(TOKEN, value);
    else sessionStorage.removeItem(TOKEN);
  } catch { /* storage may be forbidden: then each action asks for the token */ }
}

export function headers(more = {}, shown = token()) {
  return shown ? { ...more, authorization: `Bearer ${shown}` } : more;
}

async function answer(response) {
  let body = null;
  try { body = parse(await response.text()); } catch { /* not a response of the console */ }
  if (response.ok) return body;
  throw new RequestError(response.status, body?.error ?? `unexpected status ${response.status}`, body?.hint);
}

async function ask(path, options) {
  let response;
  try {
    response = await fetch(path, { ...options, cache: "no-store", credentials: "omit" });
  } catch {
    throw new RequestError(0, "the console is unreachable", "check that tidewheel is running");
  }
  return answer(response);
}

/** GET with parameters; empty ones are omitted. */
export function get(path, params = {}) {
  const given = Object.entries(params).filter(([, value]) => value !== null && value !== undefined && value !== "");
  const query = new URLSearchParams(given).toString();
  return ask(query ? `${path}?${query}` : path, { headers: headers() });
}

/** POST with a JSON body. */
export function post(path, body, shown = token()) {
  const json = { "content-type": "application/json" };
  return ask(path, { method: "POST", headers: headers(json, shown), body: stringify(body) });
}
