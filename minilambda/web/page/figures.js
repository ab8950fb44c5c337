// The figures at the head of the page.

import { make, put } from "/page/dom.js";
import { bytes, compact, long, rate, span } from "/page/format.js";
import { load } from "/page/history.js";
import { CODES } from "/page/words.js";

const UNKNOWN = "–";
const SECRET = "not told to this key";

const TILES = [
  ["slots", "Slots in use"],
  ["queued", "Waiting"],
  ["rate", "Jobs a second"],
  ["completed", "Completed"],
  ["failed", "Not completed"],
  ["warm", "Warm, median"],
  ["modules", "Modules"],
  ["up", "Broker up"],
];

export class Figures {
  constructor(host) {
    this.nodes = {};
    for (const [id, title] of TILES) {
      const value = make("dd", { class: "value" });
      const under = make("dd", { class: "under" });
      host.append(make("div", { class: `tile ${id}` }, make("dt", {}, title), value, under));
      this.nodes[id] = { value, under };
    }
    this.meter = make("span", { class: "meter", "aria-hidden": "true" }, make("i"));
    this.nodes.slots.under.before(this.meter);
  }

  update(state, history) {
    const { overview } = state;
    const now = load(state);
    const told = overview !== null || state.workers !== null;
    const workers = now.workers === 1 ? "1 worker" : `${compact(now.workers)} workers`;
    this.set("slots", told ? `${compact(now.used)} / ${compact(now.slots)}` : UNKNOWN, told ? workers : SECRET);
    this.meter.firstChild.style.inlineSize = `${now.slots ? (100 * now.used) / now.slots : 0}%`;
    const next = now.running > now.used ? `${compact(now.running - now.used)} next at workers` : "in the queue";
    this.set("queued", told ? compact(now.queued) : UNKNOWN, next);
    const last = history.samples.filter(({ rate: known }) => known !== null).slice(-5);
    const mean = last.reduce((sum, each) => sum + each.rate, 0) / last.length;
    this.set("rate", last.length ? rate(mean) : UNKNOWN, overview ? "over 5 s" : SECRET);
    this.totals(overview);
  }

  totals(overview) {
    if (!overview) {
      for (const id of ["completed", "failed", "warm", "modules", "up"]) this.set(id, UNKNOWN, SECRET);
      return;
    }
    const { completed = 0, ...others } = overview.outcomes;
    const failed = Object.entries(others).filter(([, count]) => count);
    const sum = failed.reduce((all, [, count]) => all + count, 0);
    const [most] = failed.sort(([, a], [, b]) => b - a);
    this.set("completed", compact(completed), `of ${compact(overview.accepted)} accepted`);
    this.set("failed", compact(sum), most ? `${CODES[most[0]] || most[0]} ${compact(most[1])}` : "none so far");
    const warm = overview.tiers.find(({ tier }) => tier === "warm");
    this.set("warm", warm?.count ? span(warm.p50_ms) : UNKNOWN, warm?.count ? `99 %: ${span(warm.p99_ms)}` : "no warm job yet");
    this.set("modules", compact(overview.modules), bytes(overview.store_bytes));
    this.set("up", long(overview.up_ms), `${compact(overview.kept)} results kept`);
  }

  set(id, value, under) {
    put(this.nodes[id].value, value);
    put(this.nodes[id].under, under);
  }
}
