// The figures at the head of the page.

import { make, put } from "/page/dom.js";
import { bytes, long, rate, span, whole } from "/page/format.js";
import { load } from "/page/history.js";
import { CODES } from "/page/words.js";

const UNKNOWN = "–";

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
    this.set("slots", `${whole(now.used)} / ${whole(now.slots)}`, now.workers === 1 ? "1 worker" : `${whole(now.workers)} workers`);
    this.meter.firstChild.style.inlineSize = `${now.slots ? (100 * now.used) / now.slots : 0}%`;
    this.set("queued", whole(now.queued), now.running > now.used ? `${whole(now.running - now.used)} next at workers` : "in the queue");
    const last = history.samples.filter(({ rate: known }) => known !== null).slice(-5);
    const mean = last.reduce((sum, each) => sum + each.rate, 0) / last.length;
    this.set("rate", last.length ? rate(mean) : UNKNOWN, "over 5 s");
    this.totals(overview);
  }

  totals(overview) {
    if (!overview) {
      for (const id of ["completed", "failed", "warm", "modules", "up"]) this.set(id, UNKNOWN, "not told to this key");
      return;
    }
    const { completed = 0, ...others } = overview.outcomes;
    const failed = Object.entries(others).filter(([, count]) => count);
    const sum = failed.reduce((all, [, count]) => all + count, 0);
    const [most] = failed.sort(([, a], [, b]) => b - a);
    this.set("completed", whole(completed), `of ${whole(overview.accepted)} accepted`);
    this.set("failed", whole(sum), most ? `${CODES[most[0]] || most[0]} ${whole(most[1])}` : "none so far");
    const warm = overview.tiers.find(({ tier }) => tier === "warm");
    this.set("warm", warm?.count ? span(warm.p50_ms) : UNKNOWN, warm?.count ? `99 %: ${span(warm.p99_ms)}` : "no warm job yet");
    this.set("modules", whole(overview.modules), bytes(overview.store_bytes));
    const rejected = Object.values(overview.rejected).reduce((all, count) => all + count, 0);
    this.set("up", long(overview.up_ms), rejected ? `${whole(rejected)} messages refused` : "no message refused");
  }

  set(id, value, under) {
    put(this.nodes[id].value, value);
    put(this.nodes[id].under, under);
  }
}
