"""Which files are not the user's, and how a path is shown to people."""

# pathlib would be imported into every watched process.
# ruff: noqa: PTH100, PTH109, PTH117, PTH118, PTH119, PTH120, PTH206

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

_MEMO_LIMIT = 65_536
_memo: dict[str, bool] = {}
_roots: tuple[str, ...] = ()  # of the standard library, each with a separator at its end

# Below the standard library's folder, but not of it.
_INSTALLED = frozenset({"site-packages", "dist-packages"})

_RUNNERS = frozenset({"_pytest", "pluggy"})

# The frames from which outward everything only says that a loop is running.
_LOOP_FRAMES = {
    "base_events.py": ("run_forever",),
    "runners.py": ("run",),
}


def is_foreign(filename: str) -> bool:
    """Whether code of this file is the standard library's or leakguard's own.

    filename: a `co_filename`. What it names need not exist; never raises.
    """
    if filename.startswith("<"):
        return filename.startswith("<frozen ")
    known = _memo.get(filename)
    if known is None:
        if len(_memo) >= _MEMO_LIMIT:
            _memo.clear()
        known = _memo[filename] = _look(filename)
    return known


def foreign_roots() -> tuple[tuple[str, ...], tuple[str, ...]]:
    """How the paths of leakguard's own files begin, and of the standard library's: what
    `is_foreign` goes by."""
    return _OWN, _stdlib_roots()


def runs_loop(frame: tuple[str, int | None, str]) -> bool:
    """Whether a frame (file, line, function) is one in which asyncio runs a loop."""
    file, _, function = frame
    package, _, name = file.replace(os.sep, "/").rpartition("/")
    functions = _LOOP_FRAMES.get(name)
    if functions is None or not package.endswith("/asyncio"):
        return False
    return function.rpartition(".")[2] in functions and is_foreign(file)


def runs_test(frame: tuple[str, int | None, str]) -> bool:
    """Whether a frame (file, line, function) is one of pytest's, from which outward everything
    only says that a test is run."""
    return not _RUNNERS.isdisjoint(frame[0].replace(os.sep, "/").split("/"))


def display(filename: str) -> str:
    """The path relative to the working directory if it lies below that, else as it is."""
    if not os.path.isabs(filename):
        return filename
    try:
        here = os.path.join(os.getcwd(), "")
    except OSError:
        return filename  # the working directory is gone
    path = os.path.normpath(filename)
    return path[len(here) :] if path.startswith(here) else filename


def _look(filename: str) -> bool:
    if not os.path.isabs(filename):
        return False
    path = os.path.normcase(os.path.normpath(filename))
    if _is_below_roots(path):
        return True
    try:
        real = os.path.normcase(os.path.realpath(filename))
    except (OSError, ValueError):
        return False
    return real != path and _is_below_roots(real)


def _is_below_roots(path: str) -> bool:
    if path.startswith(_OWN):
        return True
    return any(
        path.startswith(root) and _INSTALLED.isdisjoint(path[len(root) :].split(os.sep))
        for root in _stdlib_roots()
    )


def _stdlib_roots() -> tuple[str, ...]:
    """In every spelling that a frame may have: a virtual environment's, the base's, resolved."""
    global _roots
    if not _roots:
        spellings = dict.fromkeys(
            os.path.normcase(os.path.join(spelling, ""))
            for found in _find_stdlib()
            for spelling in (os.path.abspath(found), os.path.realpath(found))
        )
        _roots = tuple(spellings)
    return _roots


def _find_stdlib() -> Iterator[str]:
    import sysconfig

    for name in ("stdlib", "platstdlib"):
        folder = sysconfig.get_path(name)
        if folder:
            yield folder
    home = os.path.dirname(getattr(os, "__file__", None) or "")
    if home:
        yield home
    archive = f"python{sys.version_info[0]}{sys.version_info[1]}.zip"
    for entry in sys.path:
        if isinstance(entry, str) and os.path.basename(entry) == archive:
            yield entry


def _own_files() -> tuple[str, ...]:
    """The package's folder, and the start-up module that is installed beside it."""
    found = []
    for file in (os.path.abspath(__file__), os.path.realpath(__file__)):
        folder = os.path.dirname(file)
        beside = os.path.join(os.path.dirname(folder), "_leakguard_autostart.py")
        found += [os.path.normcase(os.path.join(folder, "")), os.path.normcase(beside)]
    return tuple(found)


_OWN = _own_files()
