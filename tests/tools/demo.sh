#!/bin/sh
# Runs the demo service and its corrected variant as a user would, and checks both exit statuses.
set -eu

# show STATUS PROGRAM: runs PROGRAM under leakguard and expects STATUS.
show() {
    echo
    echo "\$ $VENV/bin/python -m leakguard run $2"
    status=0
    "$VENV/bin/python" -m leakguard run "$2" || status=$?
    echo "exit status: $status"
    if [ "$status" -ne "$1" ]; then
        echo "demo: expected $1 from $2, got $status" >&2
        exit 1
    fi
}

show 23 tests/programs/demo_service.py
show 0 tests/programs/demo_service_fixed.py
