#!/bin/sh
# fresh_folder.sh FOLDER: makes FOLDER anew, without what an earlier run left there.
#
# Removes only what is ours: a folder below ./build, or one that this script has made. Another one
# that holds anything is refused.
set -eu

folder=$(realpath -m "$1")
mark=.made-by-leakguard
case $folder in
"$(realpath .)"/build/*) ours=yes ;;
*) ours='' ;;
esac
if [ -z "$ours" ] && [ -e "$folder" ] && [ ! -e "$folder/$mark" ] &&
    { [ ! -d "$folder" ] || [ -n "$(ls -A "$folder")" ]; }; then
    echo "$folder was not made by leakguard's tools, and would be removed: name a new folder, or one below build/" >&2
    exit 1
fi
rm -rf "$folder"
mkdir -p "$folder"
touch "$folder/$mark"
