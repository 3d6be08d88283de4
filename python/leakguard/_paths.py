"""Whose code a file is, and how its path is shown."""

from __future__ import annotations

import os
import sysconfig

_OWN = os.path.dirname(os.path.abspath(__file__)) + os.sep
_SITE_DIRECTORIES = (f"{os.sep}site-packages{os.sep}", f"{os.sep}dist-packages{os.sep}")

_known: dict[str, bool] = {}


def _library_directories() -> tuple[str, ...]:
    found = set()
    for name in ("stdlib", "platstdlib"):
        path = sysconfig.get_path(name)
        if path:
            found.update((path + os.sep, os.path.realpath(path) + os.sep))
    # The library is where its os module was found, also in a zip or a moved installation.
    found.add(os.path.dirname(os.__file__) + os.sep)
    return tuple(found)


_LIBRARY = _library_directories()


def is_foreign(filename: str) -> bool:
    """Whether a frame's file belongs to the standard library or to leakguard itself: not a line
    that the user of leakguard would mend."""
    known = _known.get(filename)
    if known is None:
        known = _known[filename] = _decide(filename)
    return known


def _decide(filename: str) -> bool:
    if filename.startswith("<frozen "):
        return True
    if filename.startswith(_OWN):
        return True
    if any(directory in filename for directory in _SITE_DIRECTORIES):
        return False
    return filename.startswith(_LIBRARY)


def display(filename: str) -> str:
    """Relative to the working directory where it lies below it, else as it is."""
    try:
        base = os.getcwd() + os.sep
    except OSError:
        return filename
    return filename[len(base) :] if filename.startswith(base) else filename
