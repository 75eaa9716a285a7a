// Human-readable numbers and times.

const whole = new Intl.NumberFormat("en");
const compact = new Intl.NumberFormat("en", { notation: "compact", maximumFractionDigits: 2 });
const known = (value) => value !== null && value !== undefined && Number.isFinite(value);

/** 1,234; from one million 1.23M. */
export function number(value) {
  if (!known(value)) return "–";
  return Math.abs(value) >= 1e6 ? compact.format(value) : whole.format(Math.round(value));
}

/** 0, 0.4, 12, 1,234 */
export function rate(value) {
  if (!known(value)) return "–";
  if (value < 0.05) return "0";
  return value < 10 ? value.toFixed(1) : number(value);
}

/** A duration in seconds: 12 ms, 3.4 s, 25 s, 12 min, 3.1 h, 5 days */
export function duration(seconds) {
  if (!known(seconds)) return "–";
  if (seconds < 1) return `${Math.round(seconds * 1000)} ms`;
  if (seconds < 10) return `${seconds.toFixed(1)} s`;
  if (seconds < 90) return `${Math.round(seconds)} s`;
  if (seconds < 5400) return `${Math.round(seconds / 60)} min`;
  if (seconds < 172800) return `${(seconds / 3600).toFixed(1)} h`;
  return `${Math.round(seconds / 86400)} days`;
}

/** An extrapolated duration, capped at 30 days. */
export function estimate(seconds) {
  const far = 30 * 86400;
  return known(seconds) && seconds >= far ? `over ${duration(far)}` : duration(seconds);
}

/** 12 MB */
export function bytes(value) {
  if (!known(value)) return "–";
  const units = ["B", "KB", "MB", "GB", "TB"];
  let unit = 0;
  for (; value >= 1000 && unit < units.length - 1; unit += 1) value /= 1000;
  return `${value < 10 && unit > 0 ? value.toFixed(1) : Math.round(value)} ${units[unit]}`;
}

/** Age of a time in milliseconds since the Unix epoch. */
export function ago(milliseconds, now = Date.now()) {
  const seconds = Math.max(0, (now - milliseconds) / 1000);
  return seconds < 2 ? "just now" : `${duration(seconds)} ago`;
}

/** Time of day, with the date unless it is today. */
export function clock(milliseconds) {
  const time = new Date(milliseconds);
  const today = time.toDateString() === new Date().toDateString();
  const hours = time.toLocaleTimeString("en-GB");
  return today ? hours : `${time.toLocaleDateString("en-CA")} ${hours}`;
}

/** Hours and minutes. */
export function minute(milliseconds) {
  return new Date(milliseconds).toLocaleTimeString("en-GB", { hour: "2-digit", minute: "2-digit" });
}

/** "1 change", "2 changes" */
export function count(value, one, many = `${one}s`) {
  return `${number(value)} ${value === 1 ? one : many}`;
}
