// How long jobs took, by how cold their start was.

import { draw, make, mark, put } from "/page/dom.js";
import { span, whole } from "/page/format.js";
import { Table, only } from "/page/table.js";
import { TIERS } from "/page/words.js";

const ORDER = ["warm", "disk", "compiled"];

/** The scale for these rows: whole powers of ten, two of them at least. */
function scaleOf(rows) {
  const low = Math.floor(Math.log10(Math.max(0.01, Math.min(...rows.map((row) => row.p50_ms)))));
  const high = Math.ceil(Math.log10(Math.max(0.01, ...rows.map((row) => row.p99_ms))));
  return { low, high: Math.max(high, low + 2) };
}

function makeRange() {
  const part = (name) => draw("path", { class: name });
  const picture = draw("svg", { viewBox: "0 0 100 20", preserveAspectRatio: "none", "aria-hidden": "true", class: "range" });
  picture.append(...["tick", "most", "main", "half"].map(part));
  return picture;
}

function fillRange(picture, row, { low, high }) {
  const place = (ms) => Math.min(100, Math.max(0, (100 * (Math.log10(Math.max(ms, 1e-3)) - low)) / (high - low)));
  const [p50, p90, p99] = [row.p50_ms, row.p90_ms, row.p99_ms].map(place);
  const [tick, most, main, half] = picture.children;
  let ticks = "";
  for (let power = low; power <= high; power += 1) ticks += `M${place(10 ** power)} 0V20`;
  mark(tick, "d", ticks);
  mark(most, "d", `M${p50} 10H${Math.max(p99, p50 + 0.5)}`);
  mark(main, "d", `M${p50} 10H${Math.max(p90, p50 + 0.5)}`);
  mark(half, "d", `M${p50} 3V17`);
}

const time = (id, title) => ({ id, title, number: true, fill: (cell, row) => put(cell, span(row[`${id}_ms`])) });

export class LatencyTable {
  constructor(host) {
    this.scale = { low: 0, high: 2 };
    this.range = make("span");
    this.table = new Table(host, {
      caption: "Latency of the last jobs by tier: how many, and the time within which half, 90 and 99 of 100 ended",
      key: (row) => row.tier,
      empty: "No job has ended yet.",
      columns: [
        { id: "tier", title: "Tier", fill: (cell, row) => fillTier(cell, row) },
        { id: "count", title: "Jobs", number: true, fill: (cell, row) => put(cell, whole(row.count)) },
        time("p50", "50 %"),
        time("p90", "90 %"),
        time("p99", "99 %"),
        { id: "spread", title: this.range, more: true, fill: (cell, row) => fillRange(only(cell, makeRange), row, this.scale) },
      ],
    });
  }

  update({ overview }) {
    const rows = (overview?.tiers || []).filter(({ count }) => count);
    if (rows.length) this.scale = scaleOf(rows);
    put(this.range, `${span(10 ** this.scale.low)} to ${span(10 ** this.scale.high)}`);
    this.table.update(rows.sort((a, b) => ORDER.indexOf(a.tier) - ORDER.indexOf(b.tier)));
    put(this.table.none, overview ? "No job has ended yet." : "This is not told to the gateway's key.");
  }
}

function fillTier(cell, row) {
  put(cell, row.tier);
  mark(cell, "title", TIERS[row.tier] || null);
}
