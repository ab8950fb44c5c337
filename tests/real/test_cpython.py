"""CPython 3.12 for WASI, through broker and worker, by the command line."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.cluster import ROOT, Cluster


def test_a_script_from_stdin_runs_with_no_arguments(cluster: Cluster, python_wasm: Path) -> None:
    script = b"import json, math\nprint(json.dumps({'root': math.isqrt(1 << 40)}))\n"
    ended = cluster.run(python_wasm, stdin=script)
    assert (ended.code, ended.stdout, ended.stderr) == (0, b'{"root": 1048576}\n', b"")


def test_a_script_from_stdin_runs_as_a_dash_and_sees_its_arguments(cluster: Cluster, python_wasm: Path) -> None:
    ended = cluster.run(python_wasm, "-", "one", "two three", stdin=b"import sys; print(sys.argv)")
    assert (ended.code, ended.stdout) == (0, b"['-', 'one', 'two three']\n")


def test_dash_c_runs_python_3_12_and_prints_whole_unicode(cluster: Cluster, python_wasm: Path) -> None:
    ended = cluster.run(python_wasm, "-c", "import sys; print(sys.version_info[:2], sys.platform, 'Grüße, 世界')")
    assert (ended.code, ended.stdout.decode()) == (0, "(3, 12) wasi Grüße, 世界\n")


def test_the_exit_code_of_sys_exit_is_whole(cluster: Cluster, python_wasm: Path) -> None:
    codes = [cluster.run(python_wasm, "-c", f"import sys; sys.exit({code})").code for code in (0, 7, 126, 255)]
    assert codes == [0, 7, 126, 255]


def test_an_exception_is_a_completed_job_with_its_traceback_on_stderr(cluster: Cluster, python_wasm: Path) -> None:
    found = cluster.run_json(python_wasm, stdin=b"print('before')\n1 / 0\n")
    assert (found["state"], found["exit_code"], found["error"]) == ("completed", 1, None)
    assert found["stdout"] == "before\n"
    assert found["stderr"].startswith("Traceback (most recent call last):\n")
    assert found["stderr"].endswith("ZeroDivisionError: division by zero\n")


def test_nothing_is_granted_but_the_environment_of_the_job(cluster: Cluster, python_wasm: Path) -> None:
    script = b"""
import os, socket
print(dict(os.environ))
for attempt in (lambda: os.listdir("/"), lambda: open("/etc/passwd"), lambda: open("made", "w")):
    try:
        print("granted", attempt())
    except OSError as error:
        print("refused")
"""
    ended = cluster.run(python_wasm, options=("--env", "COLOUR=green"), stdin=script)
    assert ended.stdout.decode() == "{'COLOUR': 'green'}\nrefused\nrefused\nrefused\n", ended.stderr


def test_output_that_is_not_text_has_a_base64_twin(cluster: Cluster, python_wasm: Path) -> None:
    ended = cluster.run(python_wasm, "-c", r"import sys; sys.stdout.buffer.write(b'\xff\x00\n')")
    assert ended.stdout == b"\xff\x00\n"
    found = cluster.run_json(python_wasm, "-c", r"import sys; sys.stdout.buffer.write(b'\xff\x00\n')")
    assert found["stdout_base64"] == "/wAK"


def test_an_endless_loop_ends_at_its_deadline_and_the_next_run_works(cluster: Cluster, python_wasm: Path) -> None:
    found = cluster.run(python_wasm, "-c", "while True: pass", options=("--json", "--timeout", "0.5"))
    assert (found.code, found.json["error"]["code"]) == (124, "deadline_exceeded")
    assert cluster.run(python_wasm, "-c", "print(1)").stdout == b"1\n"


def test_time_sleep_in_a_host_call_ends_at_its_deadline(cluster: Cluster, python_wasm: Path) -> None:
    found = cluster.run(python_wasm, "-c", "import time; time.sleep(3600)", options=("--json", "--timeout", "0.5"))
    assert (found.code, found.json["error"]["code"]) == (124, "deadline_exceeded")


def test_a_memory_error_is_python_s_own_and_the_limit_holds(cluster: Cluster, python_wasm: Path) -> None:
    script = b"""
blocks = []
try:
    while True:
        blocks.append(bytearray(1 << 20))
except MemoryError:
    print(0 < len(blocks) <= 64)
"""
    found = cluster.run_json(python_wasm, options=("--memory", "64M"), stdin=script)
    assert (found["state"], found["stdout"]) == ("completed", "True\n"), found
    assert 16 << 20 < found["usage"]["peak_memory_bytes"] <= 64 << 20


def test_the_second_run_is_warm(cluster: Cluster, python_wasm: Path) -> None:
    cluster.run_json(python_wasm, "-c", "pass")
    tiers = {cluster.run_json(python_wasm, "-c", "pass")["tier"] for _ in range(4)}
    assert "warm" in tiers
    assert "compiled" not in tiers


def test_a_package_goes_along_and_a_table_comes_back(cluster: Cluster, python_wasm: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "examples" / "report" / "run.py"), cluster.address],
        capture_output=True,
        timeout=50,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.decode() == "3 cities\ncity,amount\nKyoto,40.00\nLima,5.00\nOslo,20.00\n"


def test_the_same_by_the_command_line(cluster: Cluster, python_wasm: Path, tmp_path: Path) -> None:
    report = ROOT / "examples" / "report"
    options = (
        *("--env", "PYTHONPATH=/lib", "--dir", f"/lib={report}/lib", "--file", f"/main.py={report}/report.py"),
        *("--file", f"/data/sales.csv={report}/sales.csv", "--collect", f"/tmp/report.csv={tmp_path}/report.csv"),
    )
    ended = cluster.run(python_wasm, "/main.py", options=options)
    assert (ended.code, ended.stdout, ended.stderr) == (0, b"3 cities\n", b"")
    assert (tmp_path / "report.csv").read_text() == "city,amount\nKyoto,40.00\nLima,5.00\nOslo,20.00\n"


def test_the_files_of_a_job_are_all_that_a_guest_sees(cluster: Cluster, python_wasm: Path) -> None:
    script = b"""
import os
print(sorted(os.listdir("/")), os.listdir("/tmp"))
for attempt in (lambda: open("/in.txt", "w"), lambda: os.mkdir("/new"), lambda: open("/tmp/../../etc/passwd")):
    try:
        print("granted", attempt())
    except OSError as error:
        print("refused")
os.symlink("../in.txt", "/tmp/link")
os.mkdir("/tmp/folder")
open("/tmp/folder/file", "w").write("left")
"""
    with cluster.connect() as client:
        result = client.run(python_wasm, stdin=script, files={"/in.txt": b""}, collect=["/tmp"])
    said = (result.stdout_text, result.stderr_text)
    assert said == ("['in.txt', 'tmp'] []\nrefused\nrefused\nrefused\n", "")
    assert result.files == {"/tmp/folder/file": b"left"} and not result.missing
