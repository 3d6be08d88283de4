"""Executors and pools: live until they are shut down.

Their births are recorded wherever threads are, since a worker is charged to its executor.
"""

from __future__ import annotations

from leakguard import _core, _executors, _imports, _resources

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import ModuleType
    from typing import Any

_CLASSES = {
    "concurrent.futures.thread": "ThreadPoolExecutor",
    "concurrent.futures.process": "ProcessPoolExecutor",
    "multiprocessing.pool": "Pool",
}


class _Executor(_resources.Kind):
    name = "executor"
    left_at_exit = True

    def hook(self) -> None:
        for module in _CLASSES:
            _imports.after(module, self._adopt)

    def _adopt(self, module: ModuleType) -> None:
        _core.adopt(self.number, (getattr(module, _CLASSES[module.__name__]),))

    def is_live(self, subject: Any) -> bool:
        return not _executors.is_shut_down(subject)

    def is_left(self, subject: Any) -> bool:
        # While a loop lives, its default executor belongs to it.
        return not _executors.default_of_live_loop(subject)

    def can_end(self, subject: Any) -> bool:
        del subject
        return True  # by another thread

    def state(self, subject: Any) -> str | None:
        del subject
        return "open"

    def cause(self, subject: Any) -> str | None:
        del subject
        return "executor-not-shut-down"

    def why(self, subject: Any) -> str:
        workers = self.facts(subject)["workers"]
        if not workers:
            return "it was never shut down"
        of_what = "its worker waits" if workers == 1 else f"its {workers} workers wait"
        return f"it was never shut down, and {of_what} for it"

    def facts(self, subject: Any) -> dict[str, Any]:
        found = [getattr(subject, name, None) for name in ("_threads", "_processes", "_pool")]
        workers = [it for it in found if isinstance(it, (set, dict, list))]
        return {"workers": len(workers[0]) if workers else 0}


KIND = _Executor()
