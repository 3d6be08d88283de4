#!/bin/sh
# python_valgrind.sh: the tests of native threads, each of their programs under valgrind.
#
# Leaks are not looked for: the interpreter leaves much to the end of the process. PYTHONMALLOC: a
# use of a freed object is seen only where objects come from malloc.
set -eu

tools=$(dirname "$0")
TEST_WRAPPER="valgrind --quiet --error-exitcode=99 --suppressions=$PWD/$tools/valgrind.supp" \
    PYTHONMALLOC=malloc \
    "$VENV/bin/python" -m pytest -p no:cacheprovider -n "$AT_ONCE" tests/python/test_native_threads.py
