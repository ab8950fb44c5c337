"""Make requests of all kinds from the gateway's OpenAPI document, and hold its replies against it (`make schema`).

Usage: tools/schema.py [ARGS FOR schemathesis run]...
A cluster and a gateway are started for it, and stopped.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from pathlib import Path

import httpx

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from tests.cluster import BIN, Service, running_cluster  # noqa: E402

URL = re.compile(r"listening on (http://\S+)")

CONFIG = r"""
[checks]
# Bytes that fit the document need not be a module, nor have the digest that stands beside them: 422 is right then.
positive_data_acceptance.expected-statuses = ["2xx", 401, 403, 404, 409, 410, 422, 429, "5xx"]
# A job that was cancelled is still there to be asked for.
use_after_free.enabled = false

[[operations]]
# A function takes fewer options than a module, a query may name what the body does, and not every path is one.
include-path-regex = "^/(run|jobs|functions/.name.)$"
checks.positive_data_acceptance.enabled = false

[[operations]]
# One function is there.
include-path-regex = "^/functions/.+[@/]"
parameters = { "path.name" = "shout", "path.version" = "live" }

[phases.coverage]
# Each length of each text is a URL of half a megabyte, which no server takes.
enabled = false
"""


def main() -> int:
    """Run it; returns the exit code of schemathesis."""
    with tempfile.TemporaryDirectory() as folder, running_cluster(Path(folder), ["--ephemeral"]) as cluster:
        config = Path(folder) / "schemathesis.toml"
        config.write_text(CONFIG)
        command = [sys.executable, str(BIN / "minilambda"), "web", "--bind", "127.0.0.1:0", "--server", cluster.address]
        web = Service("web", [*command, "--wait", "5s"], cluster.env, cluster.folder / "logs")
        try:
            url = web.wait_printed(URL)[1]
            shout = (ROOT / "examples" / "upper.wasm").read_bytes()
            httpx.put(f"{url}/functions/shout", content=shout).raise_for_status()
            tool = [str(Path(sys.executable).with_name("schemathesis")), "--config-file", str(config), "run"]
            more = ["--exclude-path", "/api/events", "--request-timeout", "20", *sys.argv[1:]]
            code = subprocess.run([*tool, f"{url}/openapi.json", *more], check=False, cwd=folder).returncode
            web.stop()
        finally:
            web.kill()
        trouble = web.printed().splitlines()[1:]
        print("\n".join(trouble))
        return code or bool(trouble)


if __name__ == "__main__":
    sys.exit(main())
