"""Where options come from, what is wrong with them, and what the usage texts take."""

from __future__ import annotations

import pytest

from minilambda.cli import alias, broker, client, deploy, main, options, rollback, undeploy, up, worker
from minilambda.cli.options import BadOption, Options
from minilambda.notation import GIB, MIB


def test_the_command_line_goes_before_the_environment_before_the_default() -> None:
    assert Options({"--bind": "h:1"}, {"MINILAMBDA_BIND": "h:2"}).address("--bind", "h:3") == "tcp://h:1"
    assert Options({"--bind": None}, {"MINILAMBDA_BIND": "h:2"}).address("--bind", "h:3") == "tcp://h:2"
    assert Options({"--bind": None}, {}).address("--bind", "h:3") == "tcp://h:3"


def test_an_empty_variable_is_none() -> None:
    assert Options({}, {"MINILAMBDA_BIND": ""}).address("--bind", "h:3") == "tcp://h:3"


@pytest.mark.parametrize(
    ("args", "environment", "named"),
    [({"--timeout": "soon"}, {}, "--timeout: "), ({}, {"MINILAMBDA_TIMEOUT": "soon"}, "MINILAMBDA_TIMEOUT: ")],
)
def test_an_error_names_where_the_value_came_from(
    args: dict[str, str], environment: dict[str, str], named: str
) -> None:
    with pytest.raises(BadOption) as caught:
        Options(args, environment).duration("--timeout", 1.0)
    assert str(caught.value).startswith(named)


def test_values_are_read_by_their_kind() -> None:
    found = Options({"--memory": "64M", "--timeout": "250ms", "--slots": "4", "--x": "b", "--env": ["A=b", "C=d"]}, {})
    assert found.size("--memory", 0) == 64 * MIB
    assert found.duration("--timeout", 0) == 0.25
    assert found.count("--slots", 1, 1, 8) == 4
    assert found.choice("--x", ("a", "b"), "a") == "b"
    assert found.pairs("--env") == {"A": "b", "C": "d"}


@pytest.mark.parametrize("text", ["0", "9", "x"])
def test_a_count_out_of_its_bounds_is_refused(text: str) -> None:
    with pytest.raises(BadOption):
        Options({"--slots": text}, {}).count("--slots", 1, 1, 8)


def test_nothing_is_not_a_size_and_not_a_time() -> None:
    with pytest.raises(BadOption):
        Options({"--memory": "0"}, {}).size("--memory", 1)
    with pytest.raises(BadOption):
        Options({"--timeout": "0"}, {}).duration("--timeout", 1)
    assert Options({"--grace": "0"}, {}).duration("--grace", 1, zero=True) == 0


@pytest.mark.parametrize(("text", "on"), [("1", True), ("yes", True), ("TRUE", True), ("0", False), ("off", False)])
def test_a_switch_can_be_set_by_its_variable(text: str, on: bool) -> None:
    assert Options({"--json": False}, {"MINILAMBDA_JSON": text}).flag("--json") is on


def test_a_switch_that_is_neither_on_nor_off_is_refused() -> None:
    with pytest.raises(BadOption, match="MINILAMBDA_JSON"):
        Options({}, {"MINILAMBDA_JSON": "perhaps"}).flag("--json")


def test_a_variable_for_many_values_has_one_a_line() -> None:
    assert Options({"--env": []}, {"MINILAMBDA_ENV": "A=b c\nD=e\n"}).pairs("--env") == {"A": "b c", "D": "e"}
    with pytest.raises(BadOption, match=r"^MINILAMBDA_ENV: 'novalue' is not K=V"):
        Options({"--env": []}, {"MINILAMBDA_ENV": "novalue"}).pairs("--env")
    with pytest.raises(BadOption, match=r"^--env: 'novalue' is not K=V"):
        Options({"--env": ["novalue"]}, {}).pairs("--env")


@pytest.mark.parametrize(("option", "text"), [("--memory", "999999999999999G"), ("--memory", "9" * 400)])
def test_a_size_beyond_all_bounds_is_refused_by_its_option(option: str, text: str) -> None:
    with pytest.raises(BadOption, match=f"^{option}: .* is more than the 262144G"):
        Options({option: text}, {}).size(option, 1)


@pytest.mark.parametrize("text", ["9999999999999999h", "8785h", "9" * 400])
def test_a_time_beyond_all_bounds_is_refused_by_its_option(text: str) -> None:
    with pytest.raises(BadOption, match=r"^--timeout: .* is more than the 8784h"):
        Options({"--timeout": text}, {}).duration("--timeout", 1)


def test_digits_are_those_of_ascii() -> None:
    for read in (Options.size, Options.duration, Options.count):
        with pytest.raises(BadOption):
            read(Options({"--x": "١"}, {}), "--x", 1)


@pytest.mark.parametrize("text", ["", "-x", ".x", "a/b", "a b", "x" * 65, "ü", "a\n"])
def test_what_can_not_be_a_jobs_id_is_refused(text: str) -> None:
    with pytest.raises(BadOption, match=r"^--job: .*the first a letter or digit"):
        Options({"--job": text}, {}).job_id("--job", "default")


def test_a_label_has_a_bound() -> None:
    assert Options({"--group": "ü" * 128}, {}).label("--group", "") == "ü" * 128
    with pytest.raises(BadOption, match=r"^MINILAMBDA_GROUP: .*128"):
        Options({}, {"MINILAMBDA_GROUP": "x" * 129}).label("--group", "")


def test_bytes_that_are_not_utf8_are_refused_but_for_files() -> None:
    found = Options({"--group": "\udcff", "--stdin": "\udcff", "--env": ["A=\udcff"], "--server": "\udcff:1"}, {})
    assert found.path("--stdin", "") == "\udcff"
    for read in (
        lambda: found.label("--group", ""),
        lambda: found.pairs("--env"),
        lambda: found.peer("--server", "h:1"),
    ):
        with pytest.raises(BadOption, match="not UTF-8"):
            read()


@pytest.mark.parametrize("text", ["ü:1", "*:8080", "h:0", "h:١", "h\x1b:1", "h x:1"])
def test_an_address_that_nothing_can_be_connected_to_is_refused(text: str) -> None:
    with pytest.raises(BadOption, match=r"^--server: .* address"):
        Options({"--server": text}, {}).peer("--server", "h:1")


COMMANDS = [
    ("minilambda-broker", broker.USAGE, []),
    ("minilambda-worker", worker.USAGE, []),
    ("minilambda-client", client.USAGE, ["x.wasm"]),
    ("minilambda up", up.USAGE, ["up"]),
    ("minilambda deploy", deploy.USAGE, ["deploy", "f", "x.wasm"]),
    ("minilambda rollback", rollback.USAGE, ["rollback", "f"]),
    ("minilambda undeploy", undeploy.USAGE, ["undeploy", "f", "2"]),
]
ALIAS = ("minilambda alias", alias.USAGE, ["alias", "f", "live", "2"])


@pytest.mark.parametrize(("program", "usage", "words"), COMMANDS)
def test_a_usage_takes_every_option_that_it_lists(program: str, usage: str, words: list[str]) -> None:
    args = options.parse(program, usage, words)
    for name in args:
        if name.startswith("--") and name not in ("--", "--help", "--version"):
            takes_value = args[name] is None or isinstance(args[name], list)
            given = [name, "v"] if takes_value else [name]
            assert options.parse(program, usage, [*words[:1], *given, *words[1:]] if words == ["up"] else given + words)


@pytest.mark.parametrize(("program", "usage", "words"), [*COMMANDS, ALIAS])
def test_the_help_names_the_variable_rule_and_the_exit_codes(program: str, usage: str, words: list[str]) -> None:
    assert "MINILAMBDA_" in usage
    assert "Exit codes" in usage
    assert "Examples:" in usage
    assert all(len(line) <= 110 for line in usage.splitlines())


@pytest.mark.parametrize("word", ["--help", "-h", "--version"])
@pytest.mark.parametrize("command", [broker.main, worker.main, client.main, up.main, main.main])
def test_help_and_version_exit_well(command: object, word: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert callable(command)
    with pytest.raises(SystemExit) as left:
        command([word])
    assert left.value.code == 0
    assert "minilambda" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("argv", "reason"),
    [
        (["--bogus"], "--bogus is not an option here"),
        (["extra"], "'extra' is one argument too many"),
        (["--max-queued"], "--max-queued needs a value"),
        (["--max-queued", "many"], "--max-queued: "),
        (["--bind", "http://localhost:8080"], "not HTTP: write localhost:8080"),
        (["--liveness", "1s"], "liveness (1 s) must be at least twice heartbeat (1 s)"),
    ],
)
def test_a_wrong_call_of_the_broker_says_what_is_wrong(
    argv: list[str], reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        code: object = broker.main(argv)
    except SystemExit as left:
        code = left.code
    assert code == 2
    first = capsys.readouterr().err.splitlines()[0]
    assert first.startswith("minilambda-broker: ")
    assert reason in first


def test_the_umbrella_names_a_command_that_it_does_not_know(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main.main(["serve"])
    assert left.value.code == 2
    assert "'serve' is not a command" in capsys.readouterr().err


def test_options_make_the_settings_of_a_broker() -> None:
    found = broker.broker_settings(Options({"--max-stdin": "64M", "--store": "1G", "--result-ttl": "1h"}, {}))
    assert (found.max_stdin_bytes, found.store_bytes, found.result_ttl) == (64 * MIB, GIB, 3600.0)
    assert found.max_request_bytes >= 64 * MIB


def test_options_make_the_settings_of_a_worker() -> None:
    args = {"--slots": "3", "--memory": "32M", "--max-memory": "64M", "--grace": "0", "--cache-size": "1G"}
    found = worker.worker_settings(Options(args, {}))
    assert (found.slots, found.grace, found.cache_bytes) == (3, 0, GIB)
    assert (found.default.memory_bytes, found.ceiling.memory_bytes) == (32 * MIB, 64 * MIB)


def test_a_ceiling_lowers_the_default_that_nobody_asked_for() -> None:
    found = worker.worker_settings(Options({"--max-timeout": "5s"}, {}))
    assert found.default.timeout == 5.0
