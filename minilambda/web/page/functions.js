// The table of functions.

import { clean, make, put } from "/page/dom.js";
import { ago, digest } from "/page/format.js";
import { Table, only, twoLines } from "/page/table.js";

export class FunctionTable {
  /** `call(name)` is called when somebody wants to call a function. */
  constructor(host, call) {
    this.table = new Table(host, {
      caption: "Functions that the broker keeps",
      key: (row) => `${row.principal} ${row.function}`,
      few: 12,
      empty: "No function so far. Deploy one: minilambda deploy NAME FILE.wasm",
      columns: [
        {
          id: "name",
          title: "Function",
          value: (row) => row.function,
          fill: (cell, row) => twoLines(cell, clean(row.function), clean(row.invoke ? `calls ${row.invoke}` : "command")),
        },
        {
          id: "version",
          title: "Version",
          number: true,
          value: (row) => row.version,
          fill: (cell, row) => put(cell, row.versions > 1 ? `${row.version} of ${row.versions}` : String(row.version)),
        },
        { id: "aliases", title: "Aliases", more: true, fill: (cell, row) => put(cell, clean(row.aliases.join(", "))) },
        { id: "module", title: "Module", more: true, fill: (cell, row) => put(only(cell, () => make("code")), digest(row.module)) },
        { id: "age", title: "Deployed", number: true, value: (row) => row.age_ms, fill: (cell, row) => put(cell, ago(row.age_ms)) },
        { id: "call", title: make("span", { class: "unseen" }, "Call it"), fill: (cell, row, line) => fillCall(cell, row, line, call) },
      ],
    });
  }

  update({ functions }) {
    this.table.update(functions || []);
    if (functions === null) put(this.table.none, "This is not told to the gateway's key.");
  }
}

function fillCall(cell, row, line, call) {
  const button = only(cell, () => {
    const made = make("button", { type: "button", class: "quiet" }, "Call", make("span", { class: "unseen" }));
    made.addEventListener("click", () => call(line.row.function));
    return made;
  });
  put(button.lastChild, ` ${clean(row.function)}`);
}
