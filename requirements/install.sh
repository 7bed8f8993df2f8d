#!/usr/bin/env bash
# Make .venv and install the exact environment for a CPU machine. On a GPU machine: pip install -e '.[vllm]' instead.
set -eu
cd "$(dirname "$0")/.."
python=${PYTHON:-$(command -v python3.11 || command -v python3 || true)}
fail() { echo "install: $1" >&2; exit 2; }
[ -n "$python" ] || fail "no python3 found; Python 3.11 is needed (apt install python3 python3-venv)."
"$python" -c 'import sys; raise SystemExit(sys.version_info[:2] != (3, 11))' \
    || fail "$python is $("$python" -V); the lock is for Python 3.11: set PYTHON=/path/to/python3.11."
"$python" -c 'import ensurepip' 2>/dev/null || fail "python's venv module lacks pip (apt install python3-venv)."

torch=$(grep '^torch==' requirements/cpu.lock)
"$python" -m venv .venv
pip=".venv/bin/python -m pip --disable-pip-version-check"
if $pip install -qq --no-deps "$torch" 2>/dev/null; then
    echo "install: $torch from pip as it is configured here"
elif $pip install -qq --no-deps --index-url https://download.pytorch.org/whl/cpu "$torch"; then
    echo "install: $torch from the PyTorch project's CPU index"
else
    fail "$torch was found neither by pip as it is configured nor in the PyTorch project's CPU index."
fi
echo "install: the other packages of requirements/cpu.lock (a few minutes)"
$pip install -qq --no-deps -r requirements/cpu.lock
$pip install -qq --no-deps --no-build-isolation -e .
