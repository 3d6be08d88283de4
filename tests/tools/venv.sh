#!/bin/sh
# Makes the virtual environment $VENV with $PYTHON, unless it stands already.
#
# $VENV/ready names the interpreter that it was made with.
set -eu

wanted=$("$PYTHON" -c 'import sys; print(sys.executable, sys.version)')
[ "$(cat "$VENV/ready" 2>/dev/null)" != "$wanted" ] || exit 0

echo "making $VENV with $PYTHON"
rm -rf "$VENV"
"$PYTHON" -m venv "$VENV"
"$VENV/bin/pip" install --quiet build 'setuptools>=77'
echo "$wanted" >"$VENV/ready"
