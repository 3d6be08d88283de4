#!/bin/sh
# wheel.sh FOLDER: builds an sdist, and from it a wheel, into FOLDER, made anew.
#
# By way of the sdist, so that a file which the sdist lacks is missed here and not by a user.
set -eu

out=$1
"$(dirname "$0")/fresh_folder.sh" "$out"
# Left over, its list of files would go into the new sdist.
rm -rf python/*.egg-info
echo "building the wheel"
# Not isolated: the environment has the build requirements (`build` checks that), and a rebuild
# after an edit should not ask an index.
if ! "$VENV/bin/python" -m build --no-isolation --outdir "$out" . >"$out/log" 2>&1; then
    cat "$out/log"
    exit 1
fi
# A warning of the compiler is worth reading even where the build goes through.
grep -A5 'warning:.*\[-W' "$out/log" || true
