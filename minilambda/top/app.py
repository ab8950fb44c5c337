"""The dashboard itself: what it asks when, its widgets and its keys."""

from __future__ import annotations

import asyncio
import os
import time
from collections import deque
from collections.abc import Collection, Mapping

from textual import on, work
from textual.app import App, ComposeResult
from textual.binding import Binding
from textual.widgets import Footer, Input, Static

from minilambda.client.aio import AsyncClient
from minilambda.client.listings import JobInfo
from minilambda.messages import TERMINAL
from minilambda.top.grid import Grid, Lines, paint
from minilambda.top.header import LINES, head
from minilambda.top.job_screen import Help, JobScreen, Question, cancel
from minilambda.top.questions import PATIENCE, Away, Questions
from minilambda.top.sample import LISTS
from minilambda.top.status import help_text, state_asked, status, tabs
from minilambda.top.tables import JOBS, TABLES
from minilambda.top.watch import Note, Watch
from minilambda.top.words import printable

_STATES = ("", "queued", "running", "failed", "completed", "cancelled")  # the key ``f`` goes through them
_LOGGED = 1000  # lines of the log that are kept


class Top(App[None]):
    """Shows a cluster until somebody leaves. ``client`` is its own, and is closed with it."""

    ENABLE_COMMAND_PALETTE = False
    CSS = f"""
    #head {{ height: {LINES}; padding: 0 1; }}
    #tabs {{ height: 1; background: $panel; padding: 0 1; }}
    Grid {{ display: none; padding: 0 1; }}
    Grid.shown {{ display: block; }}
    .grid--head {{ text-style: bold; color: $text-muted; }}
    .grid--sorted {{ text-style: bold; color: $text-accent; }}
    .grid--cursor {{ background: $block-cursor-background; color: $block-cursor-foreground; text-style: bold; }}
    #status {{ height: 1; padding: 0 1; background: $panel; }}
    #filter {{ display: none; height: 1; border: none; padding: 0 1; }}
    #filter.shown {{ display: block; }}
    #log {{ height: 3; padding: 0 1; }}
    #log.tall {{ height: 1fr; }}
    """
    BINDINGS = [  # noqa: RUF012 - as textual wants it
        Binding("q", "quit", "Quit"),
        Binding("question_mark", "help", "Help", key_display="?"),
        Binding("c", "cancel", "Cancel"),
        Binding("slash", "filter", "Filter", key_display="/"),
        Binding("f", "state", "State"),
        Binding("less_than_sign,left", "sort(-1)", "Sort", key_display="< >"),
        Binding("greater_than_sign,right", "sort(1)", show=False),
        Binding("r", "reverse", show=False),
        Binding("p,space", "pause", "Pause", key_display="p"),
        Binding("l", "log", "Log"),
        Binding("d", "dark", show=False),
        Binding("escape", "clear", show=False),
        Binding("tab", "next(1)", show=False, priority=True),
        Binding("shift+tab", "next(-1)", show=False, priority=True),
        *(Binding(str(number), f"tab('{name}')", show=False) for number, name in enumerate(LISTS, 1)),
    ]

    def __init__(
        self,
        client: AsyncClient,
        every: float,
        patience: float = PATIENCE,
        environment: Mapping[str, str] = os.environ,
    ) -> None:
        super().__init__()
        self.watching = Watch()
        self.state_filter = ""  # state or code that the broker is asked for; "": all jobs
        self.current = "jobs"  # the list that is shown
        self.paused = False
        self._cancels = False  # the key that cancels is offered
        self._client = client
        self._every = every
        self._questions = Questions(client, patience)
        self._logged: deque[tuple[str, str]] = deque(maxlen=_LOGGED)
        self._turned = asyncio.Event()  # set: another list is to be seen
        self.theme = "textual-light" if _is_light(environment.get("COLORFGBG", "")) else "textual-dark"

    def compose(self) -> ComposeResult:
        yield Static(id="head")
        yield Static(id="tabs")
        for table in TABLES.values():
            yield Grid(table)
        yield Static(id="status")
        yield Input(id="filter", placeholder="words, a state or a code; Enter keeps it, Esc drops it", compact=True)
        yield Lines(id="log", empty="What changes is told here.", indent=9)
        yield Footer(show_command_palette=False, compact=True)

    def on_mount(self) -> None:
        self.query_one("#log").can_focus = False
        self.action_tab("jobs")
        self.set_interval(1.0, self._draw_head)  # the time that the broker is away goes on
        self._ask()

    async def on_unmount(self) -> None:
        await self._client.close()

    def on_resize(self) -> None:
        log = self.query_one("#log")
        if "tall" not in log.classes:
            log.styles.height = 3 if self.size.height < 30 else 5 if self.size.height < 45 else 8
        self._draw()

    # --- what is asked --------------------------------------------------------------------------------

    @work(exclusive=True)
    async def _ask(self) -> None:
        """One round of questions after the other, for as long as the app lives; none is asked twice in a round."""
        while True:
            ends = time.monotonic() + self._every
            asked = {"overview", "workers", "jobs", self.current}
            await self._round(asked)
            while (rest := ends - time.monotonic()) > 0:
                try:
                    await asyncio.wait_for(self._turned.wait(), rest)
                except asyncio.TimeoutError:
                    break
                self._turned.clear()
                if self.current not in asked:
                    asked.add(self.current)
                    await self._round({self.current})

    async def _round(self, asked: Collection[str]) -> None:
        began = time.monotonic()
        try:
            sample = await self._questions.round(asked, self.state_filter)
        except Away as error:
            self._note(self.watching.away(began, str(error)))
            self._questions.forget()
        else:
            self._note(self.watching.take(sample))
        self._draw()

    # --- drawing --------------------------------------------------------------------------------------

    def _draw(self) -> None:
        """Everything that is seen, from what is known."""
        if not self.is_running or not self.size.width:
            return
        latest = self.watching.latest
        for name in LISTS:
            grid, found = self._grid(name), latest.rows(name)
            grid.empty = printable(latest.refused.get(name, "")) or ("" if found is None else grid.table.empty)
            if not self.paused:
                grid.show(found or ())
        jobs = {(row.principal, row.job): row for row in latest.jobs or ()}
        for screen in self.screen_stack:
            if isinstance(screen, JobScreen) and (row := jobs.get((screen.known.row.principal, screen.known.row.job))):
                screen.fresh(row)
        self._draw_head()

    def _draw_head(self) -> None:
        base = self.screen_stack[0]
        width = self.size.width - 2
        lines = head(self.watching, self._client.endpoint, width, time.monotonic(), paused=self.paused)
        paint(base.query_one("#head", Static), *lines)
        paint(base.query_one("#tabs", Static), tabs(self.watching, self.current, width))
        grid = self._grid()
        shown = status(self.watching, self.current, len(grid.rows), grid.sort, grid.descending, grid.words, width)
        paint(base.query_one("#status", Static), shown)
        self._offer()

    def _grid(self, name: str = "") -> Grid:
        return self.screen_stack[0].query_one(f"#{name or self.current}", Grid)

    def _note(self, notes: list[Note]) -> None:
        for note in notes:
            self.say(*note)

    def say(self, text: str, style: str) -> None:
        """A line for the log, with the time of day."""
        self._logged.append((f"{time.strftime('%H:%M:%S')} {text}", style))
        self.screen_stack[0].query_one("#log", Lines).show(self._logged)

    # --- keys -----------------------------------------------------------------------------------------

    def action_tab(self, name: str) -> None:
        self.current = name
        for each in LISTS:
            self._grid(each).set_class(each == name, "shown")
        self._close_filter()
        self._draw()
        self._turned.set()

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Most keys are for the tables, and do nothing while something else is before them."""
        if len(self.screen_stack) != 1:
            return action in ("quit", "pop_screen", "dark")
        return None if action == "cancel" and self._unfinished() is None else True

    def action_next(self, step: int) -> None:
        self.action_tab(LISTS[(LISTS.index(self.current) + step) % len(LISTS)])

    def action_sort(self, step: int) -> None:
        self._grid().order_next(step)

    def action_reverse(self) -> None:
        self._grid().order(self._grid().sort)

    def action_pause(self) -> None:
        self.paused = not self.paused
        self._draw()

    def action_log(self) -> None:
        log = self.query_one("#log")
        tall = not log.has_class("tall")
        log.set_class(tall, "tall")
        log.styles.height = "1fr" if tall else None
        self.on_resize()

    def action_dark(self) -> None:
        self.theme = "textual-light" if self.theme == "textual-dark" else "textual-dark"

    def action_state(self) -> None:
        if self.current != "jobs":
            self.action_tab("jobs")
        place = _STATES.index(self.state_filter) if self.state_filter in _STATES else 0
        self._filter(_STATES[(place + 1) % len(_STATES)])

    def action_filter(self) -> None:
        field = self.query_one("#filter", Input)
        field.value = " ".join(self._grid().words)
        field.add_class("shown")
        field.focus()

    def action_clear(self) -> None:
        self._close_filter()
        self._filter("")

    def action_help(self) -> None:
        self.push_screen(Help(help_text()))

    def action_cancel(self) -> None:
        row = self._unfinished()
        if row is None:
            return
        job = self._client.job(row.job, row.principal)

        def go(yes: bool | None) -> None:
            if yes:
                self.run_worker(cancel(job.cancel, row.job, self.say))

        self.push_screen(Question(f"Cancel the job {printable(row.job)} ({row.state})?"), go)

    @on(Grid.Chosen)
    def _open(self, event: Grid.Chosen) -> None:
        if event.table is JOBS and isinstance(event.row, JobInfo):
            self.push_screen(JobScreen(self._client, event.row, self._every, self.say))
        elif event.table.name == "clients":
            self._show_jobs_of(event.row.principal)
        elif event.table.name == "workers":
            self._show_jobs_of(event.row.name)
        else:
            self._show_jobs_of(event.row.function)

    def _show_jobs_of(self, word: str) -> None:
        self.action_tab("jobs")
        self._filter(word)

    def _unfinished(self) -> JobInfo | None:
        """The job under the cursor, if it has not ended."""
        grid = next(iter(self.screen_stack[0].query("#jobs").results(Grid)), None)  # there is none at the very start
        row: JobInfo | None = grid.row if grid is not None and self.current == "jobs" else None
        return None if row is None or row.state in TERMINAL else row

    @on(Grid.Moved)
    def _offer(self) -> None:
        """Offer to cancel where there is something to cancel."""
        if self._cancels != (self._unfinished() is not None):
            self._cancels = not self._cancels
            self.screen_stack[0].refresh_bindings()

    @on(Grid.Sorted)
    def _sorted(self) -> None:
        self._draw_head()

    @on(Input.Submitted, "#filter")
    def _entered(self, event: Input.Submitted) -> None:
        self._close_filter()
        self._filter(event.value)

    def _close_filter(self) -> None:
        self.query_one("#filter", Input).remove_class("shown")
        self._grid().focus()

    def _filter(self, text: str) -> None:
        """Show the rows with these words only; the next jobs are those of a state or code among them."""
        words = text.lower().split()
        if self.current == "jobs":
            self.state_filter = state_asked(words)
        self._grid().words = tuple(words)
        self._grid().rearrange()
        self._draw_head()


def _is_light(colours: str) -> bool:
    """Whether a terminal that says ``COLORFGBG`` has a light background."""
    back = colours.rpartition(";")[2]
    return back.isdigit() and int(back) in (7, 15)
