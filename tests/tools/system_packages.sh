#!/bin/sh
# system_packages.sh build|tests|valgrind|bench|matrix ...
#
# Makes sure that the machine has what these targets need. Debian and Ubuntu: installs what is
# missing. Elsewhere: one line that says what is missing. Each thing is tried, not looked up in
# a package list: a compiler may have come from anywhere.
set -eu

PYTHON=${PYTHON:-python3}
CC=${CC:-cc}
PATH=$PATH:/usr/sbin:/sbin # where Debian keeps debootstrap; a user's PATH may lack it

stop() {
    echo "leakguard: $1" >&2
    exit 1
}

command -v "$PYTHON" >/dev/null || stop "no $PYTHON here: install Python 3.11 or newer, or name one: make PYTHON=..."
version=$("$PYTHON" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
"$PYTHON" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
    stop "$PYTHON is Python $version, and leakguard needs 3.11 or newer: name one: make PYTHON=python3.12"

compiles() {
    echo '#include <pthread.h>
int main(void) { return 0; }' | "$CC" -x c -o /dev/null -
}

has_headers() {
    "$PYTHON" -c 'import os, sys, sysconfig
sys.exit(not os.path.exists(os.path.join(sysconfig.get_path("include"), "Python.h")))'
}

has_venv() {
    "$PYTHON" -c 'import venv, ensurepip'
}

has_ninja() {
    ninja --version || ninja-build --version || ninja-build-1.11 --version
}

# need WHAT PACKAGES COMMAND...: notes WHAT as missing where COMMAND fails.
need() {
    what=$1 packages=$2
    shift 2
    if ! "$@" >/dev/null 2>&1; then
        missing="$missing${missing:+, }$what"
        install="$install $packages"
    fi
}

look() {
    missing='' install=''
    for target in "$@"; do
        case $target in
        build)
            need "a C compiler" "gcc libc6-dev" compiles
            need "the headers of Python $version" "python$version-dev" has_headers
            need "venv and ensurepip of Python $version" "python$version-venv" has_venv
            need "pkg-config" "pkg-config" pkg-config --version
            need "Check (libcheck)" "check" pkg-config --exists check
            need "meson" "meson" meson --version
            need "ninja" "ninja-build" has_ninja
            ;;
        tests)
            need "a Prometheus server" "prometheus" prometheus --version
            ;;
        valgrind)
            need "valgrind" "valgrind" valgrind --version
            ;;
        bench)
            need "wrk" "wrk" command -v wrk
            ;;
        matrix)
            need "debootstrap" "debootstrap" command -v debootstrap
            need "gpgv" "gpgv" command -v gpgv
            need "Debian's archive keys" "debian-archive-keyring" \
                test -e /usr/share/keyrings/debian-archive-keyring.gpg
            ;;
        *)
            stop "system_packages.sh knows build, tests, valgrind, bench and matrix, not '$target'"
            ;;
        esac
    done
}

as_root() {
    if [ "$(id -u)" -eq 0 ]; then
        "$@"
    else
        sudo "$@"
    fi
}

look "$@"
command -v apt-get >/dev/null && debian=yes || debian=no
# Native stacks only: nothing fails without it.
if [ "$debian" = yes ] && ! pkg-config --exists libunwind 2>/dev/null; then
    optional=libunwind-dev
else
    optional=''
fi
[ -n "$missing" ] || [ -n "$optional" ] || exit 0

[ "$debian" = yes ] || stop "missing here: $missing. Install them with this system's package manager and run make again."
if [ "$(id -u)" -ne 0 ] && ! command -v sudo >/dev/null; then
    stop "missing here: ${missing:-libunwind}; not root, and no sudo. As root: apt-get install$install $optional"
fi
echo "leakguard: installing$install${optional:+ $optional} (missing here: ${missing:-libunwind})"
# A list that cannot be renewed may still be good enough: the next command tells.
as_root apt-get -qq -o Acquire::Retries=3 update || true
# shellcheck disable=SC2086  # lists of words
as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq -y -o Acquire::Retries=3 \
    -o Dpkg::Use-Pty=0 install --no-install-recommends $install $optional >/dev/null

look "$@"
[ -z "$missing" ] || stop "still missing after installing$install: $missing"
