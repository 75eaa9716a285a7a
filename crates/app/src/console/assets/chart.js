// A line chart as an SVG that fits its box, with values at the pointer or by arrow keys.

import { h, s, text } from "./dom.js";
import { clock, minute } from "./format.js";

const HEIGHT = 168;
const PAD = { top: 10, right: 10, bottom: 22, left: 56 };
/** Lines break at gaps longer than this many steps. */
const GAP = 4;
let numbers = 0;

export class Chart {
  /**
   * series: [{name, label, tone}]; name is a series of the history, tone one of a, b, c.
   * show(value): formats a value. area: whether to fill the first line.
   */
  constructor({ title, note, series, show, area = true }) {
    Object.assign(this, { title, series, show, area });
    numbers += 1;
    const heading = `chart-${numbers}`;
    this.svg = s("svg", { class: "plot", role: "img", tabindex: "0", height: HEIGHT, "aria-labelledby": heading });
    this.time = h("span", { class: "chart-time" });
    this.values = series.map((one) => h("b", {}, "–"));
    const legend = series.map((one, i) => h("li", { class: `tone-${one.tone}` }, h("i"), `${one.label} `, this.values[i]));
    this.root = h("figure", { class: "chart card" },
      h("figcaption", {},
        h("span", { class: "chart-title", id: heading }, title), note ? h("span", { class: "muted" }, note) : null, this.time),
      this.svg,
      h("ul", { class: "legend" }, legend));
    this.points = [];
    this.at = null;
    this.width = 0;
    this.watcher = new ResizeObserver(([entry]) => {
      this.width = Math.round(entry.contentRect.width);
      this.draw();
    });
    this.watcher.observe(this.svg);
    this.svg.addEventListener("pointermove", (event) => this.point(event.offsetX));
    this.svg.addEventListener("pointerleave", () => this.pick(null));
    this.svg.addEventListener("blur", () => this.pick(null));
    this.svg.addEventListener("keydown", (event) => this.key(event));
  }

  /** Sets the history: points are [time, value, …] with values in the order of `names`. */
  set(history, span) {
    const columns = this.series.map((one) => history.names.indexOf(one.name) + 1);
    const all = history.points.map((point) => [point[0], ...columns.map((column) => (column ? point[column] : null))]);
    const end = all.length ? all.at(-1)[0] : Date.now();
    this.points = all.filter((point) => point[0] >= end - span);
    this.step = history.step_ms;
    // A young history fills the chart instead of leaving most of it empty.
    this.from = Math.max(end - span, Math.min(this.points[0]?.[0] ?? end, end - 120_000));
    this.to = end;
    this.draw();
  }

  destroy() {
    this.watcher.disconnect();
  }

  x(time) {
    return PAD.left + ((time - this.from) / Math.max(1, this.to - this.from)) * (this.width - PAD.left - PAD.right);
  }

  draw() {
    if (!this.width || !this.from) return;
    const most = Math.max(...this.points.flatMap((point) => point.slice(1).map((value) => value ?? 0)), 0);
    const ticks = scale(most);
    const top = ticks.at(-1);
    const floor = HEIGHT - PAD.bottom;
    this.y = (value) => floor - (value / top) * (floor - PAD.top);
    this.svg.setAttribute("viewBox", `0 0 ${this.width} ${HEIGHT}`);
    const grid = ticks.map((tick) => [
      s("line", { class: "grid", x1: PAD.left, x2: this.width - PAD.right, y1: this.y(tick), y2: this.y(tick) }),
      s("text", { class: "tick", x: PAD.left - 8, y: this.y(tick) + 4, "text-anchor": "end" }, this.show(tick)),
    ]);
    const wanted = Math.max(2, Math.min(6, Math.floor(this.width / 110)));
    const times = Array.from({ length: wanted }, (_, i) => this.from + ((this.to - this.from) * i) / (wanted - 1));
    // On short spans, several ticks would share the same hour and minute.
    const name = this.to - this.from < 600_000 ? clock : minute;
    const axis = times.map((time, i) => s("text", {
      class: "tick", y: HEIGHT - 4, x: this.x(time),
      "text-anchor": i === 0 ? "start" : i === wanted - 1 ? "end" : "middle",
    }, i === wanted - 1 ? "now" : name(time)));
    const lines = this.series.map((one, i) => this.line(i + 1, one.tone, floor));
    this.cursor = s("g", { class: "cursor" });
    this.svg.replaceChildren(...grid.flat(), ...axis, ...lines.flat(), this.cursor);
    this.showValues();
  }

  /** Line and area of a column, split at missing values. */
  line(column, tone, floor) {
    const pieces = [];
    let piece = [];
    let before = null;
    for (const point of this.points) {
      const missing = point[column] === null || point[column] === undefined;
      if (piece.length && (missing || point[0] - before > GAP * this.step)) {
        pieces.push(piece);
        piece = [];
      }
      if (!missing) {
        piece.push([this.x(point[0]), this.y(point[column])]);
        before = point[0];
      }
    }
    if (piece.length) pieces.push(piece);
    const path = (points) => points.map(([x, y], i) => `${i ? "L" : "M"}${x.toFixed(1)} ${y.toFixed(1)}`).join("");
    const drawn = [];
    if (this.area && column === 1) {
      const d = pieces.map((p) => `${path(p)}L${p.at(-1)[0].toFixed(1)} ${floor}L${p[0][0].toFixed(1)} ${floor}Z`).join("");
      drawn.push(s("path", { class: `area tone-${tone}`, d }));
    }
    // A single value is drawn as a dot: a zero-length line with round caps.
    const d = pieces.map((p) => (p.length === 1 ? `${path(p)}h.01` : path(p))).join("");
    drawn.push(s("path", { class: `line tone-${tone}`, d }));
    return drawn;
  }

  point(x) {
    if (!this.points.length) return;
    let best = 0;
    this.points.forEach((point, i) => {
      if (Math.abs(this.x(point[0]) - x) < Math.abs(this.x(this.points[best][0]) - x)) best = i;
    });
    this.pick(this.points[best][0]);
  }

  key(event) {
    const steps = { ArrowLeft: -1, ArrowRight: 1, PageUp: -12, PageDown: 12 };
    if (event.key === "Escape") return this.pick(null);
    if (!(event.key in steps) || !this.points.length) return;
    event.preventDefault();
    const here = this.at === null ? this.points.length - 1 : this.points.findIndex((point) => point[0] >= this.at);
    const next = Math.max(0, Math.min(this.points.length - 1, (here < 0 ? this.points.length - 1 : here) + steps[event.key]));
    this.pick(this.points[next][0]);
  }

  pick(time) {
    this.at = time;
    this.showValues();
  }

  /** Shows the values at the cursor, or the newest. */
  showValues() {
    const shown = (this.at !== null && this.points.find((point) => point[0] >= this.at)) || this.points.at(-1);
    this.values.forEach((value, i) => text(value, shown ? this.show(shown[i + 1]) : "–"));
    text(this.time, this.at !== null && shown ? clock(shown[0]) : "");
    const words = this.series.map((one, i) => `${one.label} ${shown ? this.show(shown[i + 1]) : "unknown"}`);
    const label = `${this.title}: ${words.join(", ")}${this.at !== null && shown ? ` at ${clock(shown[0])}` : " now"}`;
    this.svg.removeAttribute("aria-labelledby");
    if (this.svg.getAttribute("aria-label") !== label) this.svg.setAttribute("aria-label", label);
    if (!this.cursor) return;
    this.cursor.replaceChildren();
    if (this.at === null || !shown) return;
    const x = this.x(shown[0]);
    this.cursor.append(s("line", { x1: x, x2: x, y1: PAD.top, y2: HEIGHT - PAD.bottom }));
    this.series.forEach((one, i) => {
      const value = shown[i + 1];
      if (value !== null && value !== undefined) this.cursor.append(s("circle", { class: `tone-${one.tone}`, cx: x, cy: this.y(value), r: 3.5 }));
    });
  }
}

/** Round numbers from 0 to at least `most`. */
export function scale(most) {
  if (!(most > 0)) return [0, 1];
  const rough = most / 3;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 2.5, 5, 10].map((factor) => factor * power).find((candidate) => candidate * 3 >= most * 0.999) ?? 10 * power;
  return [0, 1, 2, 3].map((i) => i * step);
}
