// A small chart over time, in SVG, so that its colours are those of the page in light and dark.

import { draw, make, mark, put } from "/page/dom.js";
import { compact } from "/page/format.js";

const HEIGHT = 118;
const LEFT = 34; // room for the numbers of the scale
const FOOT = 18; // room for the times
const TOP = 6;

/** Round up so that the number and half of it are plain. */
function ceiling(value) {
  if (value <= 2) return 2;
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 4, 6, 8, 10].map((each) => each * power).find((each) => each >= value);
}

/**
 * Series are {id, label, kind, value(sample), text(number)}; kind is "area", "line" or "limit" (a dashed line).
 * Samples have `t`, milliseconds, and `up`: where that is false nothing is known and nothing is drawn.
 */
export class Chart {
  constructor(host, title, series) {
    this.title = title;
    this.series = series;
    this.samples = [];
    this.hover = null; // x of the pointer, pixels
    this.svg = draw("svg", { role: "img", height: HEIGHT, class: "chart" });
    this.grid = this.svg.appendChild(draw("g"));
    const path = (kind, id) => this.svg.appendChild(draw("path", { class: `${kind} ${id}` }));
    this.fills = series.map(({ id, kind }) => (kind === "area" ? path("fill", id) : null));
    this.paths = series.map(({ id, kind }) => path(kind, id));
    this.cursor = this.svg.appendChild(draw("path", { class: "cursor" }));
    this.legend = make("dl", { class: "legend" });
    this.values = series.map(({ id, kind, label }) => {
      const value = make("dd");
      this.legend.append(make("div", { class: `${kind} ${id}` }, make("dt", {}, label), value));
      return value;
    });
    this.when = make("p", { class: "when" });
    host.append(make("div", { class: "legends" }, this.legend, this.when), this.svg);
    this.listen();
  }

  listen() {
    this.svg.addEventListener("pointermove", (event) => {
      this.hover = event.offsetX;
      this.show();
    });
    this.svg.addEventListener("pointerleave", () => {
      this.hover = null;
      this.show();
    });
    new ResizeObserver(() => this.show()).observe(this.svg);
  }

  /** Draw the samples of the last `length` milliseconds. */
  update(samples, length) {
    this.samples = samples;
    this.length = length;
    this.show();
  }

  show() {
    const width = this.svg.clientWidth;
    if (!width || !this.samples.length) return;
    const end = this.samples.at(-1).t;
    const begin = end - this.length;
    const shown = this.samples.filter(({ t }) => t >= begin - 1500);
    const known = shown.filter(({ up }) => up);
    const top = ceiling(Math.max(1, ...known.flatMap((sample) => this.series.map((each) => each.value(sample) || 0))));
    const x = (t) => LEFT + ((t - begin) / this.length) * (width - LEFT - 2);
    const y = (value) => TOP + (1 - value / top) * (HEIGHT - TOP - FOOT);
    this.scale(width, top, y);
    this.series.forEach((each, at) => {
      mark(this.paths[at], "d", outline(shown, each, x, y, false));
      if (this.fills[at]) mark(this.fills[at], "d", outline(shown, each, x, y, true));
    });
    this.read(shown, x, known);
  }

  scale(width, top, y) {
    const lines = [0, top / 2, top].flatMap((value) => [
      draw("path", { d: `M${LEFT} ${y(value).toFixed(1)}H${width}` }),
      draw("text", { x: LEFT - 6, y: (y(value) + 4).toFixed(1), "text-anchor": "end" }, compact(value)),
    ]);
    const minutes = this.length / 60000;
    const from = minutes < 1 ? `${Math.round(this.length / 1000)} s ago` : `${+minutes.toFixed(1)} min ago`;
    lines.push(draw("text", { x: LEFT, y: HEIGHT - 3 }, from));
    lines.push(draw("text", { x: width - 2, y: HEIGHT - 3, "text-anchor": "end" }, "now"));
    this.grid.replaceChildren(...lines);
  }

  read(shown, x, known) {
    let sample = shown.at(-1);
    if (this.hover !== null) {
      for (const each of shown) if (Math.abs(x(each.t) - this.hover) < Math.abs(x(sample.t) - this.hover)) sample = each;
    }
    mark(this.cursor, "d", this.hover === null ? null : `M${x(sample.t).toFixed(1)} ${TOP}V${HEIGHT - FOOT}`);
    put(this.when, this.hover === null ? "" : new Date(sample.t).toLocaleTimeString("en-GB"));
    const words = this.series.map((each, at) => {
      const text = sample.up ? each.text(each.value(sample)) : "?";
      put(this.values[at], text);
      const most = known.length ? Math.max(...known.map((one) => each.value(one) || 0)) : 0;
      return `${each.label} ${text}, at most ${each.text(most)}`;
    });
    if (this.hover === null) mark(this.svg, "aria-label", `${this.title}: ${words.join("; ")}.`);
  }
}

/** The line through the samples that are known, with gaps between; `closed` at its foot. */
function outline(samples, { value }, x, y, closed) {
  let path = "";
  let first = 0;
  let last = null;
  const close = () => {
    if (last !== null && closed) path += `L${last} ${y(0).toFixed(1)}L${first} ${y(0).toFixed(1)}Z`;
    last = null;
  };
  for (const sample of samples) {
    const number = sample.up ? value(sample) : null;
    if (number === null) {
      close();
      continue;
    }
    const at = x(sample.t).toFixed(1);
    if (last === null) first = at;
    path += `${last === null ? "M" : "L"}${at} ${y(number).toFixed(1)}`;
    last = at;
  }
  close();
  return path;
}
