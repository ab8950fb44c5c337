#!/bin/sh
# Usage: tools/venv.sh PYTHON VENV EXTRAS
# Makes the virtual environment VENV with PYTHON if it is not there, and installs minilambda with EXTRAS into it.
set -eu
python=$1
venv=$2
extras=$3

fail() {
    echo "make: $*" >&2
    exit 1
}

command -v "$python" >/dev/null 2>&1 ||
    fail "there is no '$python' here. Install Python 3.10 or newer, or name one: make PYTHON=/path/to/python3 venv"
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 10))' ||
    fail "Python 3.10 or newer is needed and '$python' is $("$python" -c 'import platform; print(platform.python_version())')." \
        "Name a newer one: make PYTHON=python3.12 venv"

if ! "$venv/bin/python" -c 'import pip' >/dev/null 2>&1; then
    "$python" -c 'import ensurepip, venv' >/dev/null 2>&1 ||
        fail "'$python' cannot make virtual environments. On Debian and Ubuntu: apt-get install python3-venv"
    echo "Making $venv with $("$python" -c 'import platform; print("Python", platform.python_version())') ..."
    rm -rf "$venv"
    "$python" -m venv "$venv"
fi
echo "Installing minilambda with its extras $extras into $venv ..."
"$venv/bin/python" -m pip install --quiet --disable-pip-version-check --editable ".[$extras]"
