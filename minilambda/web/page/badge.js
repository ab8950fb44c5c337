// The outcome of a job as a shape, a colour and a word.

import { draw, make, mark, put } from "/page/dom.js";
import { outcome } from "/page/words.js";

const SHAPES = {
  good: "M3.5 8.5l3 3 6-7",
  bad: "M4 4l8 8M12 4l-8 8",
  off: "M4 8h8",
  wait: "M8 2.5a5.5 5.5 0 1 0 .01 0zM8 5v3.2l2 1.3",
  busy: "M6 4l5 4-5 4z",
};

export function makeBadge() {
  const shape = draw("svg", { viewBox: "0 0 16 16", width: 14, height: 14, "aria-hidden": "true" }, draw("path"));
  return make("span", { class: "badge" }, shape, make("span"));
}

export function fillBadge(badge, state, code) {
  const { kind, text } = outcome(state, code);
  mark(badge, "data-kind", kind);
  mark(badge.firstChild.firstChild, "d", SHAPES[kind]);
  put(badge.lastChild, text);
  mark(badge, "title", code || null);
}
