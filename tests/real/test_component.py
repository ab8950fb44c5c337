"""A component in Python, built by componentize-py: a command, and functions with typed values."""

from __future__ import annotations

from pathlib import Path

from minilambda import Client
from tests.cluster import Cluster

COUNT = "minilambda:texts/counting@1.0.0#count"


def test_its_command_reads_stdin_and_writes_stdout(cluster: Cluster, component_wasm: Path) -> None:
    ended = cluster.run(component_wasm, stdin="grüße\nworld\n".encode())
    assert (ended.code, ended.stdout.decode()) == (0, "GRÜSSE\nWORLD\n")


def test_its_command_sees_no_environment_but_the_job_s(cluster: Cluster, component_wasm: Path) -> None:
    assert cluster.run(component_wasm, "env").stdout == b"[]\n"
    assert cluster.run(component_wasm, "env", options=("--env", "A=1")).stdout == b"[('A', '1')]\n"


def test_an_error_result_of_its_command_is_exit_code_1(cluster: Cluster, component_wasm: Path) -> None:
    found = cluster.run_json(component_wasm, "fail")
    assert (found["state"], found["exit_code"], found["error"]) == ("completed", 1, None)


def test_an_exception_in_its_command_is_a_trap_with_the_traceback_on_stderr(
    cluster: Cluster, component_wasm: Path
) -> None:
    ended = cluster.run(component_wasm, "raise", options=("--json",))
    assert (ended.code, ended.json["error"]["code"]) == (134, "trap")
    assert "ValueError: asked to raise" in ended.json["stderr"]


def test_invoke_takes_typed_values_from_the_command_line(cluster: Cluster, component_wasm: Path) -> None:
    found = cluster.run_json(component_wasm, '["a","b","c"]', '"-"', options=("--invoke", "join"))
    assert (found["error"], found["value"]) == (None, "a-b-c")


def test_invoke_gives_records_and_results(cluster: Cluster, component_wasm: Path) -> None:
    found = cluster.run_json(component_wasm, "a bcd\ne", options=("--invoke", COUNT))
    assert found["value"] == {"ok": {"lines": 2, "words": 3, "longest": "bcd"}}
    found = cluster.run_json(component_wasm, '""', options=("--invoke", COUNT))
    assert found["value"] == {"err": "the text is empty"}


def test_python_calls_it_with_values_and_gets_values(cluster: Cluster, component_wasm: Path) -> None:
    with Client(f"tcp://{cluster.address}") as client:
        assert client.call(component_wasm, "join", ["x", "y"], None) == "x, y"
        assert client.call(component_wasm, COUNT, "one two") == {"ok": {"lines": 1, "words": 2, "longest": "one"}}


def test_a_missing_export_is_named_and_the_ones_there_are_listed(cluster: Cluster, component_wasm: Path) -> None:
    error = cluster.run_json(component_wasm, options=("--invoke", "split"))["error"]
    assert error["code"] == "unknown_export"
    assert "split" in error["message"]
    assert "join" in error["message"]


def test_a_wrong_count_of_arguments_is_bad_arguments(cluster: Cluster, component_wasm: Path) -> None:
    error = cluster.run_json(component_wasm, "[]", options=("--invoke", "join"))["error"]
    assert error["code"] == "bad_arguments"
    assert "separator" in error["message"]
