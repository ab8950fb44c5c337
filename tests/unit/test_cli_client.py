"""What the client prints and exits with, and how its command line is read."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from minilambda.cli import client, exits, options, render, up
from minilambda.client.listings import Cluster, ModuleInfo, WorkerInfo
from minilambda.client.results import RunResult
from minilambda.errors import BY_CODE, Busy
from minilambda.messages import ErrorInfo, Usage

MODULE = "sha256:" + "0" * 64


def parsed(*argv: str) -> dict[str, object]:
    return options.parse("minilambda-client", client.USAGE, argv, options_first=True)


def ended(code: str) -> RunResult:
    return RunResult(state="failed", error=ErrorInfo(code, "No."), job_id="job")


def worker(name: str, slots: int, queue: int, done: int) -> WorkerInfo:
    return WorkerInfo(name, "id", "ready", slots, queue, done, 3, "host", 1, "0")


def test_what_follows_the_module_is_the_guests() -> None:
    found = parsed("--json", "x.wasm", "-a", "--json", "b")
    assert (found["<wasm>"], found["<arg>"], found["--json"]) == ("x.wasm", ["-a", "--json", "b"], True)


def test_the_dashes_between_module_and_arguments_are_nobodys() -> None:
    assert parsed("x.wasm", "--", "-2", "--", "3")["<arg>"] == ["-2", "--", "3"]


def test_variables_may_be_given_again() -> None:
    assert parsed("--env", "A=b", "-e", "C=d", "x.wasm")["--env"] == ["A=b", "C=d"]


@pytest.mark.parametrize(
    ("argv", "reason"),
    [
        (["status"], "status needs one job id."),
        (["result", "a", "b"], "result needs one job id."),
        (["modules", "x"], "modules takes no argument."),
        ([], "an argument is missing."),
        (["--bogus", "x.wasm"], "--bogus is not an option here."),
        (["--quiet", "--bogus", "x.wasm"], "--bogus is not an option here."),
        (["--quiet", "--lines"], "--lines is not an option here."),
        (["--quiet", "-q", "x.wasm"], "--quiet is given twice."),
        (["--quiet"], "an argument is missing."),
        (["--timeout"], "--timeout needs a value."),
    ],
)
def test_a_wrong_call_is_one_line_and_the_usage(
    argv: list[str], reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as left:
        client.main(argv)
    assert left.value.code == 2
    printed = capsys.readouterr()
    assert printed.err.startswith(f"minilambda-client: {reason}")
    assert "Usage:" in printed.err
    assert not printed.out


@pytest.mark.parametrize("argv", [["--json", "--bogus"], ["--bogus", "--json", "x.wasm"], ["status", "--json"]])
def test_a_wrong_call_is_an_object_where_json_was_asked_for(
    argv: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as left:
        client.main(argv)
    assert left.value.code == 2
    printed = capsys.readouterr()
    assert json.loads(printed.out)["error"]["code"] == "bad_option"
    assert not printed.err


@pytest.mark.parametrize(
    ("argv", "code"),
    [
        (["--timeout", "soon", "x.wasm"], 2),
        (["--timeout", "9999999999999999h", __file__], 2),
        (["--memory", "999999999999999G", __file__], 2),
        (["--job", "-x", __file__], 2),
        (["--group", "x" * 129, __file__], 2),
        (["status", "a/b"], 2),
        (["cancel", "\udcff"], 2),
        ([__file__, "a", "\udcff"], 2),
        (["--server", "\udcff:1", "workers"], 2),
        (["--server", "*:8080", "workers"], 2),
        (["--server", "http://127.0.0.1:1", "workers"], 2),
        (["--env", "novalue", __file__], 2),
        (["/nonexistent/x.wasm"], 127),
        (["--stdin", "/nonexistent/in", __file__], 127),
        ([str(Path(__file__).parent)], 126),
        (["--server", "127.0.0.1:1", "--connect-timeout", "50ms", "workers"], 125),
        (["--server", "127.0.0.1:1", "--connect-timeout", "50ms", "status", "x", "--json"], 125),
        (["--server", "127.0.0.1:1", "--connect-timeout", "50ms", __file__], 125),
    ],
)
def test_what_fails_before_a_job_runs_has_a_sentence_and_a_code(
    argv: list[str], code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert client.main(argv) == code
    printed = capsys.readouterr()
    if "--json" in argv:
        found = json.loads(printed.out)
        assert found["state"] is None
        assert found["error"]["code"] == "unreachable"
    else:
        assert printed.err.startswith("minilambda-client: ")
        assert len(printed.err.splitlines()) == 1


@pytest.mark.parametrize(
    ("code", "number"),
    [
        *(("deadline_exceeded", 124), ("trap", 134), ("stack_overflow", 134), ("unknown_import_called", 134)),
        *(("out_of_memory", 137), ("invalid_module", 126), ("unknown_import", 126), ("unknown_export", 126)),
        *(("output_limit", 125), ("bad_arguments", 125), ("worker_lost", 125), ("cancelled", 125), ("melted", 125)),
    ],
)
def test_a_job_that_was_ended_exits_by_convention(code: str, number: int) -> None:
    assert exits.for_result(ended(code)) == number


@pytest.mark.parametrize("code", sorted(BY_CODE))
def test_every_code_has_an_exit_code(code: str) -> None:
    assert exits.for_code(code) in (124, 125, 126, 134, 137)


@pytest.mark.parametrize(("guest", "number"), [(0, 0), (1, 1), (126, 126), (255, 255), (256, 255), (300, 44)])
def test_a_guest_that_exits_has_its_own_exit_code(guest: int, number: int) -> None:
    assert exits.for_result(RunResult(state="completed", exit_code=guest, job_id="job")) == number


def test_a_called_function_exits_well() -> None:
    assert exits.for_result(RunResult(state="completed", value=5, job_id="job")) == 0


def test_the_object_of_a_result_has_every_key() -> None:
    error = ErrorInfo("trap", "Unreachable.", "unreachable", "0: f")
    usage = Usage(run_ms=1.23456, peak_memory_bytes=65536)
    found = render.result_object(
        RunResult(state="failed", error=error, usage=usage, tier="warm", worker="w", attempt=2, job_id="j", stdout=b"o")
    )
    assert json.loads(json.dumps(found)) == found
    assert list(found) == [
        *("job_id", "state", "exit_code", "error", "stdout", "stderr", "value", "usage", "tier", "worker", "attempt"),
    ]
    assert found["error"] == {"code": "trap", "message": "Unreachable.", "trap": "unreachable", "backtrace": "0: f"}
    assert found["usage"]["run_ms"] == 1.235
    assert set(found["usage"]) == {
        *("queued_ms", "fetch_ms", "compile_ms", "load_ms", "run_ms", "total_ms", "cpu_ms", "peak_memory_bytes"),
        "compiler",
    }


def test_output_that_is_not_utf8_has_a_base64_twin() -> None:
    found = render.result_object(RunResult(state="completed", job_id="j", stdout=b"\xff", stderr="ü".encode()))
    assert (found["stdout"], found["stdout_base64"]) == ("\ufffd", "/w==")
    assert found["stderr"] == "ü"
    assert "stderr_base64" not in found


def test_a_request_that_failed_has_an_object_too() -> None:
    found = render.failure_object(Busy("Full.", 0.5), "busy", "job")
    assert found["error"] == {"code": "busy", "message": "Full.", "retry_after_ms": 500}
    assert (found["job_id"], found["state"]) == ("job", None)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        *((None, ""), (5, "5"), (1.5, "1.5"), (True, "true"), ("text", "text"), (float("nan"), "NaN")),
        *(([1, "a"], '[1, "a"]'), ({"a": None}, '{"a": null}'), (b"\x01\xff", "[1, 255]"), ("ü", "ü")),
        ([float("-inf")], '["-Infinity"]'),
    ],
)
def test_a_value_is_readable(value: object, text: str) -> None:
    assert render.value_text(value) == text


def test_a_table_that_is_no_terminal_is_aligned_columns(capsys: pytest.CaptureFixture[str]) -> None:
    render.modules_table([ModuleInfo(MODULE, 2048, 3000, 1)])
    head, row = capsys.readouterr().out.splitlines()
    assert head.index("size") == row.index("2.0 KiB")
    render.workers_table(Cluster([worker("a\x1b[31m", 2, 1, 9)], 4))
    printed = capsys.readouterr().out
    assert "\x1b" not in printed
    assert "4 jobs wait" in printed
    render.workers_table(Cluster([worker("a", 1, 0, 0)], 1))
    assert "1 job waits" in capsys.readouterr().out
    render.workers_table(Cluster([], 0))
    assert capsys.readouterr().out == "No worker is connected.\n"


def test_the_live_line_says_what_the_cluster_does() -> None:
    found = up.live_line("tcp://h:1", Cluster([worker("a", 2, 3, 10), worker("b", 2, 1, 5)], 7), 12.4)
    assert found == "tcp://h:1  2 workers  3/4 slots busy  8 waiting  15 done  12 jobs/s"


@pytest.mark.parametrize(
    ("bound", "reached"),
    [
        ("tcp://0.0.0.0:1", "tcp://127.0.0.1:1"),
        ("tcp://[::]:1", "tcp://[::1]:1"),
        ("tcp://10.0.0.1:1", "tcp://10.0.0.1:1"),
        ("ipc:///x", "ipc:///x"),
    ],
)
def test_workers_reach_what_the_broker_has_bound(bound: str, reached: str) -> None:
    assert up.reachable(bound) == reached
