"""Temporary directories made through `tempfile`: live while they are there."""

from __future__ import annotations

import os
import sys

from leakguard import _core, _resources

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import FrameType
    from typing import Any


class _TempDir(_resources.Kind):
    name = "tempdir"
    left_after_exit = True

    def hook(self) -> None:
        _core.hook_tempdirs()

    def sweep(self) -> None:
        _core.sweep_tempdirs(_threads_in_mkdtemp())

    def is_live(self, subject: Any) -> bool:
        return _core.tempdir_info(subject)[1]

    def name_of(self, subject: Any) -> str:
        return _core.tempdir_info(subject)[0]

    def function_of(self, subject: Any) -> str:
        return "TemporaryDirectory" if _core.tempdir_info(subject)[2] else "mkdtemp"

    def state(self, subject: Any) -> str | None:
        path, _, has_object = _core.tempdir_info(subject)
        return "kept" if has_object and not will_be_removed(path) else None

    def why(self, subject: Any) -> str:
        path, _, has_object = _core.tempdir_info(subject)
        if not has_object:
            return "mkdtemp leaves it to its caller to remove it"
        if will_be_removed(path):
            return "its TemporaryDirectory was not closed: cleanup() or `with` removes it"
        return "its TemporaryDirectory does not remove it any more"


def will_be_removed(path: str) -> bool:
    """Whether the finalizer of a TemporaryDirectory will still remove it.

    (Lib/tempfile.py: TemporaryDirectory.__init__; Lib/weakref.py: finalize._registry.)
    """
    weakref = sys.modules.get("weakref")
    registry = getattr(getattr(weakref, "finalize", None), "_registry", {})
    for info in list(registry.values()):
        if getattr(info.func, "__qualname__", "") != "TemporaryDirectory._cleanup":
            continue
        named = info.args[0] if info.args else None
        if isinstance(named, (str, bytes)) and _absolute(named) == path:
            return bool((info.kwargs or {}).get("delete", True))
    return False


def _absolute(path: str | bytes) -> str:
    return os.path.abspath(os.fsdecode(path))  # noqa: PTH100 (pathlib is heavy)


def _threads_in_mkdtemp() -> list[int]:
    """Idents of the threads in which a directory may be announced and not yet made."""
    return [ident for ident, frame in sys._current_frames().items() if _is_in_mkdtemp(frame)]


def _is_in_mkdtemp(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_code.co_name == "mkdtemp" and frame.f_globals.get("__name__") == "tempfile":
            return True
        frame = frame.f_back
    return False


KIND = _TempDir()
