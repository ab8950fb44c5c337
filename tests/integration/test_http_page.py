"""The commands of docs/http.md do what the page says, as they are written there."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys

import pytest

from tests.cluster import BIN, ROOT, Cluster, Service

PAGE = (ROOT / "docs" / "http.md").read_text(encoding="utf-8")
URL = re.compile(r"listening on (http://127\.0\.0\.1:[1-9]\d*)")


@pytest.mark.skipif(not shutil.which("curl"), reason="there is no curl here")
def test_the_commands_of_the_page_work_as_written(cluster: Cluster) -> None:
    # given
    blocks = re.findall(r"^```sh\n(.*?)^```$", PAGE, re.M | re.S)
    assert len(blocks) >= 8
    args = [sys.executable, str(BIN / "minilambda"), "web", "--bind", "127.0.0.1:0", "--server", cluster.address]
    service = Service("web-page", args, cluster.env, cluster.folder / "logs")
    try:
        url = service.wait_printed(URL)[1]
        script = 'set -eu -o pipefail\ncurl() { command curl --fail-with-body "$@"; echo; }\n' + "\n".join(blocks)
        # when
        done = subprocess.run(
            ["bash", "-c", script.replace("http://127.0.0.1:8000", url)],
            capture_output=True,
            text=True,
            cwd=ROOT,
            env=cluster.env,
            timeout=50,
            check=False,
        )
        # then
        assert done.returncode == 0, done.stdout + done.stderr
        for said in (
            '"value": 5',
            "Hello, WebAssembly",
            "RUN UNTRUSTED WEBASSEMBLY",
            "IS ANYBODY THERE?",
            "/tmp/out.txt",
        ):
            assert said in done.stdout, said
        assert '"stdout": "HELLO"' in done.stdout
        assert done.stdout.count('"alias": "live"') == 4
        assert "event: end" in done.stdout
        service.stop()
    finally:
        service.kill()
