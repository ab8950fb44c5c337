"""Widgets that draw the lines that are seen, and nothing else: a table, and lines of text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.segment import Segment
from rich.style import Style
from rich.text import Text
from textual import events
from textual.binding import Binding
from textual.geometry import Size
from textual.message import Message
from textual.scroll_view import ScrollView
from textual.strip import Strip
from textual.widget import Widget
from textual.widgets import Static

from minilambda.top.tables import Column, Table, arrange, cell, gap_of, layout, wanted
from minilambda.top.words import colourless, fit, wrapped


def styled(widget: Widget, style: str) -> Style:
    """A style, without its colour where there are to be none."""
    found = Style.parse(style)
    return found.without_color if widget.app.no_color else found


def paint(widget: Static, *lines: Text) -> None:
    """Let a widget show these lines."""
    text = Text("\n").join(lines)
    widget.update(colourless(text) if widget.app.no_color else text)


class Grid(ScrollView, can_focus=True):
    """A table of any number of rows; the line with the cursor stays where it is while rows come and go."""

    DEFAULT_CSS = "Grid { height: 1fr; overflow-x: hidden; scrollbar-size-vertical: 1; scrollbar-gutter: stable; }"
    COMPONENT_CLASSES = {"grid--head", "grid--sorted", "grid--cursor"}  # noqa: RUF012 - as textual wants it
    BINDINGS = [  # noqa: RUF012
        Binding("up,k", "move(-1)", show=False),
        Binding("down,j", "move(1)", show=False),
        Binding("pageup", "page(-1)", show=False),
        Binding("pagedown", "page(1)", show=False),
        Binding("home,g", "first", show=False),
        Binding("end,G", "last", show=False),
        Binding("enter", "choose", "Open", key_display="⏎"),
    ]

    class Chosen(Message):
        """Somebody wants to know more about a row."""

        def __init__(self, table: Table[Any], row: Any) -> None:
            super().__init__()
            self.table = table
            self.row = row

    class Sorted(Message):
        """The table is in another order now."""

    class Moved(Message):
        """The cursor has moved."""

    def __init__(self, table: Table[Any]) -> None:
        super().__init__(id=table.name)
        self.table = table
        self.sort, self.descending = table.sort, table.descending
        self.rows: list[Any] = []  # as shown
        self.words: tuple[str, ...] = ()  # that a row must have
        self.cursor = 0  # index of a row
        self.empty = table.empty  # said where there are no rows
        self._all: Sequence[Any] = ()
        self._held: object = None  # key of the row that the cursor goes with; None: it stays at the top
        self._columns: list[tuple[Column[Any], int]] = []
        self._needs: dict[str, int] = {}  # name of a column to the width that it would like

    # --- rows -----------------------------------------------------------------------------------------

    def show(self, rows: Sequence[Any]) -> None:
        """These are the rows now."""
        self._all = rows
        self._needs = wanted(self.table.columns, rows, self._needs)
        self._columns = layout(self.table.columns, self.room, self._needs)
        self.rearrange()

    def rearrange(self) -> None:
        """Order and choose the rows anew."""
        self.rows = arrange(self.table, self._all, self.sort, self.descending, self.words)
        before = self.cursor
        if self._held is None:
            self.cursor = 0
        else:
            place = next((i for i, row in enumerate(self.rows) if self.table.key(row) == self._held), None)
            self.cursor = max(0, min(before, len(self.rows) - 1)) if place is None else place
        self.virtual_size = Size(self.room, len(self.rows) + 1)
        if self.cursor != before:
            self.scroll_to(y=self.scroll_offset.y + self.cursor - before, animate=False)
        self.refresh()

    @property
    def room(self) -> int:
        """Columns of the terminal beside the scrollbar."""
        return int(self.scrollable_content_region.width)

    @property
    def row(self) -> Any | None:
        """The row with the cursor."""
        return self.rows[self.cursor] if self.rows else None

    def order(self, name: str) -> None:
        """Sort by this column; where it is sorted by that already, the other way round."""
        self.descending = not self.descending if name == self.sort else False
        self.sort = name
        self.rearrange()
        self.post_message(self.Sorted())

    def order_next(self, step: int) -> None:
        """Sort by the next column of those that are seen."""
        names = [column.name for column, _ in self._columns]
        place = names.index(self.sort) if self.sort in names else -step
        self.sort = names[(place + step) % len(names)]
        self.rearrange()
        self.post_message(self.Sorted())

    # --- the cursor -----------------------------------------------------------------------------------

    def action_move(self, step: int) -> None:
        self._go(self.cursor + step)

    def action_page(self, pages: int) -> None:
        self._go(self.cursor + pages * max(1, self.size.height - 2))

    def action_first(self) -> None:
        self._go(0)
        self._held = None

    def action_last(self) -> None:
        self._go(len(self.rows) - 1)

    def action_choose(self) -> None:
        if self.row is not None:
            self.post_message(self.Chosen(self.table, self.row))

    def _go(self, index: int) -> None:
        if not self.rows:
            return
        self.cursor = max(0, min(index, len(self.rows) - 1))
        self._held = self.table.key(self.rows[self.cursor])
        top, seen = self.scroll_offset.y, max(1, self.size.height - 1)
        if self.cursor < top:
            self.scroll_to(y=self.cursor, animate=False)
        elif self.cursor >= top + seen:
            self.scroll_to(y=self.cursor - seen + 1, animate=False)
        self.refresh()
        self.post_message(self.Moved())

    def on_click(self, event: events.Click) -> None:
        """A click on a head sorts, one on a row goes there, one on the row with the cursor chooses it."""
        if event.y == 0:
            right = 0
            for column, width in self._columns:
                right += width + gap_of(self.room)
                if event.x < right:
                    self.order(column.name)
                    return
            return
        index = self.scroll_offset.y + event.y - 1
        if index == self.cursor:
            self.action_choose()
        elif index < len(self.rows):
            self._go(index)

    # --- drawing --------------------------------------------------------------------------------------

    def on_resize(self) -> None:
        self._columns = layout(self.table.columns, self.room, self._needs)
        self.virtual_size = Size(self.room, len(self.rows) + 1)

    def render_line(self, y: int) -> Strip:
        width, base = self.room, self.rich_style
        if y == 0:
            return self._head(width)
        index = self.scroll_offset.y + y - 1
        if index >= len(self.rows):
            nothing = "No row has these words." if self._all else self.empty
            text = nothing if y == 1 and not self.rows else ""
            return Strip([Segment(fit(text, width), base)], width)
        at_cursor = index == self.cursor and self.has_focus
        style = self.get_component_rich_style("grid--cursor") if at_cursor else base
        row = self.rows[index]
        segments = []
        for column, room in self._columns:
            own = Style() if at_cursor else styled(self, column.style(row))
            segments.append(Segment(fit(cell(column, row, room), room, right=column.right), style + own))
            segments.append(Segment(" " * gap_of(width), style))
        return Strip(segments).adjust_cell_length(width, style)

    def _head(self, width: int) -> Strip:
        plain, chosen = self.get_component_rich_style("grid--head"), self.get_component_rich_style("grid--sorted")
        segments = []
        for column, room in self._columns:
            here = column.name == self.sort
            name = column.name
            if here:
                arrow = "▼" if self.descending else "▲"
                name = fit(name, min(len(name), room - 1)) + arrow
            segments.append(Segment(fit(name, room, right=column.right), chosen if here else plain))
            segments.append(Segment(" " * gap_of(width), plain))
        return Strip(segments).adjust_cell_length(width, plain)


class Lines(ScrollView, can_focus=True):
    """Lines of text with styles, long ones broken; who has not scrolled up sees the end."""

    DEFAULT_CSS = "Lines { overflow-x: hidden; scrollbar-size-vertical: 1; scrollbar-gutter: stable; }"

    def __init__(self, *, id: str, empty: str = "", indent: int | None = None) -> None:
        super().__init__(id=id)
        self._indent = indent
        self.empty = empty  # said where there are no lines
        self._lines: Sequence[tuple[str, str]] = ()
        self._shown: list[tuple[str, str]] = []

    @property
    def text(self) -> str:
        """All lines as they are shown."""
        return "\n".join(line for line, _ in self._shown)

    def show(self, lines: Sequence[tuple[str, str]]) -> None:
        """These are the lines now."""
        self._lines = lines
        at_end = self.scroll_offset.y >= len(self._shown) - self.size.height
        width = int(self.scrollable_content_region.width)
        self._shown = list(wrapped(lines or [(self.empty, "dim")], width, self._indent)) if width else []
        self.virtual_size = Size(width, len(self._shown))
        if at_end:
            self.scroll_to(y=max(0, len(self._shown) - self.size.height), animate=False, force=True)
        self.refresh()

    def on_resize(self) -> None:
        at_end = self.scroll_offset.y >= len(self._shown) - self.size.height
        self.show(self._lines)
        if at_end:
            self.scroll_to(y=max(0, len(self._shown) - self.size.height), animate=False, force=True)

    def render_line(self, y: int) -> Strip:
        width, base = int(self.scrollable_content_region.width), self.rich_style
        index = self.scroll_offset.y + y
        text, style = self._shown[index] if index < len(self._shown) else ("", "")
        return Strip([Segment(fit(text, width), base + styled(self, style))], width)
