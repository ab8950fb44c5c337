"""The screen of one job."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import replace

from rich.text import Text
from textual import work
from textual.app import ComposeResult
from textual.binding import Binding
from textual.screen import ModalScreen, Screen
from textual.widgets import Footer, Static

from minilambda.client.aio import AsyncClient
from minilambda.client.listings import JobInfo
from minilambda.errors import Forbidden, MinilambdaError
from minilambda.top.grid import Lines, paint
from minilambda.top.story import Known, Tail, about, moments, phases
from minilambda.top.words import amount, printable

_DRAWN_EVERY = 0.1  # output that comes fast is drawn at most so often, seconds
_AGAIN = 1.0  # output that broke off is asked for again after so long, seconds


class JobScreen(Screen[None]):
    """A job's story, phases and output, live; ``say`` writes a line to the log."""

    CSS = """
    JobScreen #about { height: auto; padding: 0 1; }
    JobScreen #phases { height: 3; padding: 1 1 0 1; }
    JobScreen .name { height: 1; padding: 0 1; background: $panel; text-style: bold; }
    JobScreen #story { height: 1; padding: 0 1; }
    JobScreen #output { height: 1fr; padding: 0 1; }
    """
    BINDINGS = [  # noqa: RUF012 - as textual wants it
        Binding("escape,q", "app.pop_screen", "Back"),
        Binding("c", "cancel", "Cancel the job"),
    ]

    def __init__(self, client: AsyncClient, row: JobInfo, every: float, say: Callable[[str, str], None]) -> None:
        super().__init__()
        self.known = Known(row)
        self.tail = Tail()
        self._job = client.job(row.job, row.principal)
        self._every = every
        self._say = say
        self._trouble = ""  # why there is no output, or no more of it
        self._cancels = not self.known.done  # the key that cancels is offered
        self._drawing = False  # a drawing of the output is on its way

    def compose(self) -> ComposeResult:
        yield Static(id="about")
        yield Static(id="phases")
        yield Static("story", classes="name")
        yield Lines(id="story")
        yield Static("output", classes="name", id="output-name")
        yield Lines(id="output")
        yield Footer(show_command_palette=False, compact=True)

    def on_mount(self) -> None:
        self.query_one("#output").focus()
        self._listener = self._listen()
        self._watch()

    def on_resize(self) -> None:
        self._draw()

    def fresh(self, row: JobInfo) -> None:
        """A newer row of the same job has come in a list."""
        self.known = replace(self.known, row=row)

    # --- what is asked --------------------------------------------------------------------------------

    @work
    async def _watch(self) -> None:
        """The story, once in a while until the job has ended."""
        while True:
            with contextlib.suppress(MinilambdaError, OSError):
                self.known = replace(self.known, status=await self._job.status(story=True))
            self._draw()
            if self.known.status is not None and self.known.status.done:
                await self._finish()
                return
            await asyncio.sleep(self._every)

    @work
    async def _listen(self) -> None:
        """The output: of a job that runs as it comes, of one that has ended with its result."""
        while not self.known.done:
            try:
                async with contextlib.aclosing(self._job.output()) as chunks:
                    async for chunk in chunks:
                        self.tail.take(chunk)
                        self._draw_soon()
                return
            except Forbidden as error:
                self._not_for_us(error)
                return
            except (MinilambdaError, OSError) as error:
                self._trouble = f"The output broke off: {error}"
                self._draw()
                self.tail = Tail()
            await asyncio.sleep(_AGAIN)

    async def _finish(self) -> None:
        """The result, where it may be seen; it has what the output may lack."""
        self._listener.cancel()
        try:
            result = await self._job.result(0, check=False)
        except Forbidden as error:
            self._not_for_us(error)
            return
        except (MinilambdaError, OSError) as error:
            self._trouble = str(error)
        else:
            self.known = replace(self.known, result=result)
            self._trouble = ""
            if not self.tail.has_all(result):
                self.tail = Tail.of(result)
        self._draw()

    def _not_for_us(self, error: Forbidden) -> None:
        self._trouble = f"The output is not for this key. {error}"
        self._draw()

    # --- drawing --------------------------------------------------------------------------------------

    def _draw_soon(self) -> None:
        if not self._drawing:
            self._drawing = True
            self.set_timer(_DRAWN_EVERY, self._draw)

    def _draw(self) -> None:
        self._drawing = False
        if not self.is_mounted or not self.size.width:
            return
        if self._cancels and self.known.done:
            self._cancels = False
            self.refresh_bindings()
        width = self.size.width - 2
        paint(self.query_one("#about", Static), *about(self.known, width))
        paint(self.query_one("#phases", Static), *phases(self.known, width))
        story, told = self.query_one("#story", Lines), moments(self.known.status)
        story.styles.height = min(len(told), max(3, self.size.height // 4))
        story.show(told)
        self.query_one("#output-name", Static).update(self._heading())
        output = self.query_one("#output", Lines)
        output.empty = "Nothing was written." if self.known.done else "Nothing was written so far."
        trouble = [(printable(self._trouble), "yellow")] if self._trouble else []
        output.show([*self.tail.lines(), *trouble])

    def _heading(self) -> str:
        if not self.tail.size:
            return "output"
        live = "" if self.known.done else ", live"
        return f"output  {amount(self.tail.size)}{live}; stderr in another colour"

    # --- cancelling -----------------------------------------------------------------------------------

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """A job that has ended can't be cancelled."""
        return None if action == "cancel" and self.known.done else True

    def action_cancel(self) -> None:
        self.app.push_screen(Question(f"Cancel the job {printable(self.known.row.job)}?"), self._cancel)

    def _cancel(self, yes: bool | None) -> None:
        if yes:
            self.run_worker(cancel(self._job.cancel, self.known.row.job, self._say))


async def cancel(ask: Callable[[], object], job: str, say: Callable[[str, str], None]) -> None:
    """Cancel a job, and say what came of it."""
    try:
        status = await ask()  # type: ignore[misc]
    except (MinilambdaError, OSError) as error:
        say(f"job {printable(job)} is not cancelled: {error}", "red")
    else:
        ended = status.state in ("completed", "failed")
        say(f"job {printable(job)} {'had ended: ' + status.state if ended else 'is being cancelled'}", "yellow")


class Question(ModalScreen[bool]):
    """A question with yes and no; no is what Enter means."""

    CSS = """
    Question { align: center middle; }
    Question #box { width: auto; max-width: 90%; height: auto; padding: 1 2; border: round $warning; }
    Question #box { background: $panel; }
    """
    BINDINGS = [  # noqa: RUF012
        Binding("y", "dismiss(True)", "Yes"),
        Binding("n,escape,enter,q", "dismiss(False)", "No"),
    ]

    def __init__(self, question: str) -> None:
        super().__init__()
        self._question = question

    def compose(self) -> ComposeResult:
        yield Static(Text.assemble(self._question, "\n\n", ("y", "bold"), " yes    ", ("n", "bold"), " no"), id="box")


class Help(ModalScreen[None]):
    """What the keys do."""

    CSS = """
    Help { align: center middle; }
    Help #box { width: auto; max-width: 95%; height: auto; padding: 1 2; border: round $primary; background: $panel; }
    """
    BINDINGS = [Binding("escape,q,question_mark,enter", "dismiss", "Back")]  # noqa: RUF012

    def __init__(self, text: Text) -> None:
        super().__init__()
        self._text = text

    def compose(self) -> ComposeResult:
        yield Static(self._text, id="box")
