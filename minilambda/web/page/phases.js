// Where a job's time went: a bar in parts, and the same in words.

import { make, mark, put } from "/page/dom.js";
import { span } from "/page/format.js";

const PHASES = [
  ["queued", "queued"],
  ["compile", "compile"],
  ["run", "run"],
  ["rest", "all else"],
];

/** Milliseconds by phase. What is not one of the first three (fetching, loading, messages) is all else. */
export function phasesOf({ queued_ms = 0, compile_ms = 0, run_ms = 0, total_ms = 0 }) {
  const known = queued_ms + compile_ms + run_ms;
  return { queued: queued_ms, compile: compile_ms, run: run_ms, rest: Math.max(0, total_ms - known) };
}

function told(parts, open) {
  const word = (id, name) => (open && id === "rest" ? "under way" : name);
  const words = PHASES.filter(([id]) => parts[id] > 0).map(([id, name]) => `${word(id, name)} ${span(parts[id])}`);
  return words.join(", ") || "no time yet";
}

/** A bar for a cell of a table; `fillBar` gives it its parts. */
export function makeBar() {
  return make("span", { class: "bar", role: "img" }, ...PHASES.map(([id]) => make("i", { class: id })));
}

/** `open`: the job has not ended, so that nobody knows yet what the rest of its time went to. */
export function fillBar(bar, times, open = false) {
  bar.classList.toggle("open", open);
  const parts = phasesOf(times);
  PHASES.forEach(([id], at) => {
    const size = parts[id] > 0 ? String(Math.max(parts[id], 1e-6)) : "0";
    const part = bar.children[at];
    if (part.dataset.size === size) return;
    part.dataset.size = size;
    part.style.flexGrow = size;
    part.hidden = size === "0";
  });
  const words = told(parts, open);
  mark(bar, "aria-label", words);
  mark(bar, "title", words);
}

/** A bar with its figures below it, for one job. */
export function bigBar(usage) {
  const bar = makeBar();
  bar.classList.add("big");
  fillBar(bar, usage);
  const parts = phasesOf(usage);
  const list = make("dl", { class: "key spans" });
  for (const [id, word] of PHASES) {
    const value = make("dd");
    put(value, span(parts[id]));
    list.append(make("div", { class: id }, make("dt", {}, word), value));
  }
  return [bar, list];
}
