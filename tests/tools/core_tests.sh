#!/bin/sh
# core_tests.sh FOLDER [OPTION...] [-- valgrind]
#
# Configures the core in FOLDER with Meson (the options count the first time), builds it, runs
# its Check tests, and ends with Check's own closing line for each of them.
set -eu

tools=$(dirname "$0")
folder=$1
shift
[ -e "$folder/build.ninja" ] || configure=yes
options=''
while [ $# -gt 0 ] && [ "$1" != -- ]; do
    options="$options $1"
    shift
done
[ $# -eq 0 ] || shift
wrapper=${1:-}

# shellcheck disable=SC2086  # a list of words
[ -z "${configure:-}" ] || meson setup "$folder" $options
meson compile -C "$folder"

export UBSAN_OPTIONS="halt_on_error=1:print_stacktrace=1"
set -- --print-errorlogs --logbase tests
if [ "$wrapper" = valgrind ]; then
    # In one process, or valgrind would report what each of Check's children had not freed yet.
    export CK_FORK=no
    set -- "$@" --timeout-multiplier 20 --wrapper "valgrind --quiet --leak-check=full --error-exitcode=99 --suppressions=$PWD/$tools/valgrind.supp"
fi
rm -f "$folder"/meson-logs/tests*.txt # Meson adds the wrapper to the name
meson test -C "$folder" "$@"
grep -h '^[0-9]*%: Checks:' "$folder"/meson-logs/tests*.txt
