// A table whose rows are kept by a key: what has not changed is not touched, so thousands of updates cost little.
// The roles say what it is where a narrow screen lays it out as something else.

import { make, mark, put } from "/page/dom.js";

/**
 * Columns are {id, title, fill(cell, row), value(row), number, more}: `fill` puts a row into a cell that it may have
 * filled before; `value` makes the column one to sort by; `more`: a narrow screen does without it.
 * `few` rows are shown until somebody asks for all.
 */
export class Table {
  constructor(host, { caption, columns, key, few = 25, empty }) {
    Object.assign(this, { columns, key, few, all: false, sort: "", down: false, rows: [], lines: new Map() });
    this.body = make("tbody", { role: "rowgroup" });
    this.head = columns.map((column) => this.title(column));
    this.table = make("table", { role: "table" }, make("caption", { class: "unseen" }, caption));
    this.table.append(make("thead", { role: "rowgroup" }, make("tr", { role: "row" }, ...this.head)), this.body);
    this.none = make("p", { class: "none" }, empty);
    this.more = make("button", { type: "button", class: "quiet", hidden: true });
    this.more.addEventListener("click", () => {
      this.all = !this.all;
      this.update(this.rows);
    });
    host.append(make("div", { class: "scroll" }, this.table), this.none, make("div", { class: "foot" }, this.more));
    this.update([]);
  }

  title(column) {
    const cell = make("th", { scope: "col", role: "columnheader", class: kinds(column) });
    if (!column.value) {
      cell.append(column.title);
      return cell;
    }
    const button = make("button", { type: "button", class: "sort" }, column.title);
    button.addEventListener("click", () => this.by(column.id));
    cell.append(button);
    return cell;
  }

  /** Sort by a column; a second time turns it round, a third time brings back the order in which the rows came. */
  by(id) {
    if (this.sort !== id) [this.sort, this.down] = [id, false];
    else if (!this.down) this.down = true;
    else [this.sort, this.down] = ["", false];
    this.update(this.rows);
  }

  /** Show these rows, and no others. */
  update(rows) {
    this.rows = rows;
    this.columns.forEach((column, at) => {
      const order = this.down ? "descending" : "ascending";
      mark(this.head[at], "aria-sort", this.sort === column.id ? order : null);
    });
    const shown = this.sorted(rows).slice(0, this.all ? rows.length : this.few);
    this.more.hidden = rows.length <= this.few;
    put(this.more, this.all ? `Show ${this.few} only` : `Show all ${rows.length}`);
    const focused = this.body.contains(document.activeElement) ? document.activeElement : null;
    const keys = new Set(shown.map(this.key));
    for (const [key, line] of this.lines) {
      if (keys.has(key)) continue;
      line.node.remove();
      this.lines.delete(key);
    }
    let after = null;
    for (const row of shown) {
      const line = this.line(row);
      const place = after ? after.nextSibling : this.body.firstChild;
      if (place !== line.node) this.body.insertBefore(line.node, place);
      after = line.node;
    }
    if (focused?.isConnected && document.activeElement !== focused) focused.focus({ preventScroll: true });
    this.none.hidden = shown.length > 0;
    this.table.hidden = shown.length === 0;
  }

  sorted(rows) {
    const column = this.columns.find((each) => each.id === this.sort);
    if (!column) return rows;
    const way = this.down ? -1 : 1;
    return rows
      .map((row) => [column.value(row), row])
      .sort(([a], [b]) => way * (a < b ? -1 : a > b ? 1 : 0))
      .map(([, row]) => row);
  }

  line(row) {
    const key = this.key(row);
    let line = this.lines.get(key);
    if (!line) {
      const cells = this.columns.map((column, at) =>
        at
          ? make("td", { role: "cell", class: kinds(column) })
          : make("th", { role: "rowheader", scope: "row", class: kinds(column) }),
      );
      line = { node: make("tr", { role: "row" }, ...cells), cells };
      this.lines.set(key, line);
    }
    line.row = row;
    this.columns.forEach((column, at) => column.fill(line.cells[at], row, line));
    return line;
  }
}

function kinds(column) {
  return [`c-${column.id}`, column.number ? "number" : "", column.more ? "more" : ""].filter(Boolean).join(" ");
}

/** The node that a cell has, made at its first row. */
export function only(cell, create) {
  return cell.firstChild || cell.appendChild(create());
}

/** A cell of two lines of text, the second small. */
export function twoLines(cell, first, second) {
  if (!cell.firstChild) cell.append(make("bdi", { class: "line" }), make("bdi", { class: "under" }));
  put(cell.firstChild, first);
  put(cell.lastChild, second);
}
