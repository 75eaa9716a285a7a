// JSON with integers of any size. JavaScript numbers are exact up to 2^53 only, MongoDB's reach 2^63: larger ones are kept as
// digits.

/** An integer that a JavaScript number cannot hold. */
class Long {
  constructor(digits) { this.digits = digits; }
  toString() { return this.digits; }
}

// Strings are matched so that digits inside them are skipped.
const TOKENS = /"[^"\\]*(?:\\.[^"\\]*)*"|-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?/g;

// Random, so that no text from a document or user starts with it.
const MARK = `long:${Math.random()}:`;

/** Like JSON.parse. */
export function parse(source) {
  // Fast path: most responses have no large integer.
  if (!/\d{16}/.test(source)) return JSON.parse(source);
  // Validate first, so that errors refer to the original text.
  JSON.parse(source);
  const marked = source.replace(TOKENS, (token) =>
    /^-?\d+$/.test(token) && !Number.isSafeInteger(Number(token)) ? `"${MARK}${token}"` : token);
  return JSON.parse(marked, (_, value) =>
    typeof value === "string" && value.startsWith(MARK) ? new Long(value.slice(MARK.length)) : value);
}

/** Like JSON.stringify. */
export function stringify(value, indent) {
  const marked = JSON.stringify(value, (_, inner) => (inner instanceof Long ? MARK + inner.digits : inner), indent);
  return marked?.replaceAll(new RegExp(`"${MARK.replaceAll(".", "\\.")}(-?\\d+)"`, "g"), "$1");
}
