// The table of workers.

import { by, make, mark, put } from "/page/dom.js";
import { ago, whole } from "/page/format.js";
import { Table, only, twoLines } from "/page/table.js";

const ORDER = new Intl.Collator("en", { numeric: true });
const PIPS = 16; // a worker with more slots gets a bar

function fillLoad(cell, { slots, queue }) {
  const used = Math.min(queue, slots);
  const box = only(cell, () => make("span", { class: "load" }, make("span", { class: "pips", "aria-hidden": "true" }), make("span")));
  const [pips, text] = box.children;
  const count = Math.min(slots, PIPS);
  if (pips.childElementCount !== count) pips.replaceChildren(...Array.from({ length: count }, () => make("i")));
  const full = slots > PIPS ? Math.ceil((used / slots) * PIPS) : used;
  [...pips.children].forEach((pip, at) => mark(pip, "class", at < full ? "full" : null));
  put(text, `${used} of ${slots}${queue > used ? `, ${queue - used} next` : ""}`);
}

function fillWalls(cell, { walls }) {
  const all = walls === "all";
  const node = only(cell, () => make("span", { class: "badge" }));
  mark(node, "data-kind", all ? "good" : walls ? "wait" : "off");
  put(node, walls || "not told");
}

export class WorkerTable {
  constructor(host) {
    this.table = new Table(host, {
      caption: "Workers with their load",
      key: (row) => row.id,
      few: 12,
      empty: "No worker is here. Start one: minilambda worker --orchestrator ADDRESS",
      columns: [
        {
          id: "name",
          title: "Worker",
          value: (row) => row.name,
          fill: (cell, row) => twoLines(cell, row.name, `${row.host} · ${row.pid}`),
        },
        { id: "load", title: "Slots in use", value: (row) => row.queue / Math.max(1, row.slots), fill: fillLoad },
        { id: "state", title: "State", value: (row) => row.state, more: true, fill: (cell, row) => put(cell, row.state) },
        { id: "done", title: "Jobs done", number: true, value: (row) => row.done, fill: (cell, row) => put(cell, whole(row.done)) },
        { id: "walls", title: "Walls", value: (row) => row.walls, more: true, fill: fillWalls },
        { id: "seen", title: "Seen", number: true, value: (row) => row.seen_ms, fill: (cell, row) => put(cell, ago(row.seen_ms)) },
        { id: "version", title: "Version", more: true, fill: (cell, row) => put(cell, row.version) },
      ],
    });
  }

  update({ workers, overview }) {
    const rows = [...(workers || [])].sort((a, b) => ORDER.compare(a.name, b.name));
    this.table.update(rows);
    if (workers === null) put(this.table.none, "This is not told to the gateway's key.");
    const all = Math.max(overview?.workers ?? 0, rows.length);
    put(by("workers-note"), all > rows.length ? `${rows.length} of ${whole(all)}` : "");
  }
}
