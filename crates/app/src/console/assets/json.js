// JSON with whole numbers of any size. JavaScript's own numbers are exact up to 2^53 only, and MongoDB's reach 2^63: a larger one is
// kept as the digits that it is written with.

/** A whole number that JavaScript cannot hold. */
class Long {
  constructor(digits) { this.digits = digits; }
  toString() { return this.digits; }
}

// Strings are matched so that digits inside of them are left alone.
const TOKENS = /"[^"\\]*(?:\\.[^"\\]*)*"|-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?/g;

// No text from a document or a user begins with it.
const MARK = `long:${Math.random()}:`;

/** Like JSON.parse. */
export function parse(source) {
  // Most answers hold no such number, and need no second look.
  if (!/\d{16}/.test(source)) return JSON.parse(source);
  // Errors shall speak of what was written.
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
