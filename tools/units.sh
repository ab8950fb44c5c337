#!/bin/sh
# Usage: tools/units.sh
# Checks the units in contrib/systemd: what systemd makes of them, and how far they shut a service in.
set -eu
cd "$(dirname "$0")/../contrib/systemd"
if ! command -v systemd-analyze >/dev/null; then
    echo "units: SKIPPED: systemd-analyze is not installed here; nothing was checked"
    exit 0
fi
copies=$(mktemp -d)
trap 'rm -rf "$copies"' EXIT
for unit in *.service; do
    # The programs need not be installed where they will be.
    sed 's|^ExecStart=/opt/minilambda/bin/[a-z-]*|ExecStart=/bin/true|' "$unit" >"$copies/$unit"
    said=$(systemd-analyze verify --man=no "$copies/$unit" 2>&1) || true
    if [ -n "$said" ]; then # it warns of what it does not know, and calls that a success
        echo "$said"
        exit 1
    fi
    systemd-analyze security --offline=true --no-pager --threshold=25 "$copies/$unit" | tail -n 1
done
