// How a job ended, as nodes.

import { foreign, make } from "/page/dom.js";
import { bytes, span } from "/page/format.js";
import { bigBar } from "/page/phases.js";
import { TIERS } from "/page/words.js";

/** The sentence, the value, the phases and the rest of a result. */
export function resultNodes(result) {
  const nodes = [];
  const { error, usage } = result;
  if (error) nodes.push(make("p", { class: "sentence" }, error.message));
  if (result.value !== null && result.value !== undefined) {
    const text = typeof result.value === "string" ? result.value : JSON.stringify(result.value);
    nodes.push(make("p", { class: "value" }, "Returned ", make("output", {}, text)));
  }
  nodes.push(...bigBar(usage), facts(result));
  if (error?.backtrace) {
    const trace = make("pre", { class: "output", tabindex: "0", "aria-label": "Backtrace" }, error.backtrace);
    nodes.push(make("details", {}, make("summary", {}, "Backtrace"), trace));
  }
  for (const path of result.missing || []) nodes.push(make("p", { class: "note" }, "Not left there: ", foreign(path)));
  return nodes;
}

function facts({ usage, exit_code, tier, attempt }) {
  const list = make("dl", { class: "facts" });
  const add = (name, text) => list.append(make("div", {}, make("dt", {}, name), make("dd", {}, text)));
  if (exit_code !== null) add("Exit code", String(exit_code));
  if (tier) add("Start", TIERS[tier] || tier);
  if (usage.compiler) add("Code by", usage.compiler);
  if (usage.cpu_ms) add("Processor", span(usage.cpu_ms));
  if (usage.peak_memory_bytes) add("Memory", bytes(usage.peak_memory_bytes));
  if (attempt > 1) add("Attempts", String(attempt));
  return list;
}

/** What happened to a job, with the time since it was accepted. */
export function storyNodes(story) {
  const list = make("ol", { class: "story" });
  for (const { at_ms, what } of story) list.append(make("li", {}, make("span", { class: "at" }, span(at_ms)), foreign(what)));
  return [make("h3", {}, "Story"), list];
}
