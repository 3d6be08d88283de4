#!/bin/sh
# python_asan.sh FOLDER [TEST...]: the Python tests, or these of them, on an extension built with
# AddressSanitizer and UBSan in FOLDER, which is made anew.
set -eu

folder=$1
shift
[ $# -gt 0 ] || set -- tests/python
"$(dirname "$0")/fresh_folder.sh" "$folder"
flags='-fsanitize=address,undefined -fno-omit-frame-pointer -fno-sanitize-recover=undefined -O1 -g'
CFLAGS=$flags LDFLAGS=$flags "$(dirname "$0")/wheel.sh" "$folder/wheel"
"$VENV/bin/python" -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet "$(echo "$folder"/wheel/*.whl)[test]"

# The interpreter is not built with the sanitizer, so its runtime has to be loaded first by hand.
# Leaks are not looked for: the interpreter leaves much to the end of the process. PYTHONMALLOC:
# a use of a freed object is seen only where objects come from malloc.
LD_PRELOAD=$(${CC:-cc} -print-file-name=libasan.so) \
    ASAN_OPTIONS=detect_leaks=0 \
    UBSAN_OPTIONS=print_stacktrace=1 \
    PYTHONMALLOC=malloc \
    "$folder/venv/bin/python" -m pytest -p no:cacheprovider -n "$AT_ONCE" "$@"
