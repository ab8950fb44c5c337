// The table of jobs.

import { fillBadge, makeBadge } from "/page/badge.js";
import { by, clean, make, mark, put } from "/page/dom.js";
import { ago, digest, short, span, whole } from "/page/format.js";
import { fillBar, makeBar } from "/page/phases.js";
import { Table, only } from "/page/table.js";
import { ended } from "/page/words.js";

const FILTERS = [
  ["all", "All", () => true],
  ["open", "Unfinished", ({ state }) => !ended(state)],
  ["failed", "Failed", ({ state }) => state === "failed"],
];

export class JobTable {
  /** `open(row)` is called when somebody wants to see a job. */
  constructor(host, open) {
    this.filter = FILTERS[0];
    this.rows = [];
    this.buttons = FILTERS.map((filter) => {
      const button = make("button", { type: "button", "aria-pressed": filter === this.filter }, filter[1]);
      button.addEventListener("click", () => this.choose(filter));
      by("jobs-filter").append(button);
      return button;
    });
    mark(this.buttons[0], "aria-pressed", "true");
    this.table = new Table(host, {
      caption: "The newest jobs with outcome and phases",
      key: (row) => `${row.principal} ${row.job}`,
      empty: "No job so far.",
      columns: columns(open),
    });
  }

  choose(filter) {
    this.filter = filter;
    FILTERS.forEach((each, at) => mark(this.buttons[at], "aria-pressed", String(each === filter)));
    this.show();
  }

  update({ jobs, overview }) {
    this.told = jobs !== null;
    this.rows = jobs || [];
    const all = overview ? overview.kept + overview.queued + overview.running : 0;
    put(by("jobs-note"), all > this.rows.length && this.rows.length ? `The newest ${this.rows.length} of ${whole(all)} that the broker knows.` : "");
    this.show();
  }

  show() {
    this.table.update(this.rows.filter(this.filter[2]));
    const none = this.rows.length ? "None of these." : "No job so far.";
    put(this.table.none, this.told === false ? "This is not told to the gateway's key." : none);
  }
}

function columns(open) {
  return [
    { id: "job", title: "Job", fill: (cell, row, line) => fillJob(cell, row, line, open) },
    {
      id: "outcome",
      title: "Outcome",
      value: (row) => `${row.state} ${row.code}`,
      fill: (cell, row) => fillBadge(only(cell, makeBadge), row.state, row.code),
    },
    { id: "phases", title: "Phases", fill: (cell, row) => fillBar(only(cell, makeBar), row, !ended(row.state)) },
    { id: "total", title: "Took", number: true, value: (row) => row.total_ms, fill: (cell, row) => put(cell, span(row.total_ms)) },
    { id: "tier", title: "Tier", value: (row) => row.tier, more: true, fill: (cell, row) => put(cell, row.tier) },
    {
      id: "worker",
      title: "Worker",
      value: (row) => row.worker,
      more: true,
      fill: (cell, row) => put(only(cell, () => make("bdi")), clean(row.worker)),
    },
    {
      id: "age",
      title: "Accepted",
      number: true,
      more: true,
      value: (row) => row.age_ms,
      fill: (cell, row) => put(cell, ago(row.age_ms)),
    },
  ];
}

function fillJob(cell, row, line, open) {
  if (!cell.firstChild) {
    const button = make("button", { type: "button", class: "link" }, make("bdi"));
    button.addEventListener("click", () => open(line.row));
    cell.append(button, make("bdi", { class: "under" }));
  }
  const [button, under] = cell.children;
  put(button.firstChild, short(row.job));
  mark(button, "title", row.job);
  const about = [row.function || digest(row.module), row.group, row.attempt > 1 ? `attempt ${row.attempt}` : ""];
  put(under, clean(about.filter(Boolean).join(" · ")));
}
