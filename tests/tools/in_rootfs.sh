#!/bin/sh
# in_rootfs.sh ROOTFS [FOLDER...] -- COMMAND...
#
# Runs COMMAND inside ROOTFS, as root, with /proc and /dev, and with the machine's FOLDERs seen
# there, read-only, at the same path. (For a look around: in_rootfs.sh ROOTFS -- bash)
#
# The mounts are in a namespace of this process. They are gone when it ends, however it ends, and
# nobody else sees them: removing ROOTFS can never reach the machine's own /dev or folders.
set -eu

if [ -z "${LG_INSIDE:-}" ]; then
    LG_INSIDE=1 exec unshare --mount --propagation private --pid --fork --kill-child "$0" "$@"
fi
unset LG_INSIDE

root=$1
shift
mount --bind "$root" "$root" # a mount point, as / is everywhere else: unshare(1) asks for it
mount -t proc proc "$root/proc"
mount --rbind /dev "$root/dev" # with /dev/shm, which multiprocessing wants
while [ "$1" != -- ]; do
    mkdir -p "$root$1"
    mount -o bind,ro "$1" "$root$1"
    shift
done
shift
# Not exec: the tests must not run as process 1, which ignores signals and inherits orphans.
chroot "$root" "$@"
exit $?
