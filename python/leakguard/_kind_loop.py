"""Event loops: live until they are closed."""

from __future__ import annotations

from leakguard import _core, _imports, _resources

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import ModuleType
    from typing import Any


class _Loop(_resources.Kind):
    name = "loop"
    left_at_exit = True

    def hook(self) -> None:
        _imports.after("asyncio.base_events", self._hook_asyncio)
        _imports.after("uvloop", self._hook_uvloop)

    def _hook_asyncio(self, module: ModuleType) -> None:
        cls = module.BaseEventLoop
        _resources.see_births(self, cls)
        _resources.see_destruction(self, cls)
        _core.adopt(self.number, (cls,))

    def _hook_uvloop(self, module: ModuleType) -> None:
        cls = module.Loop
        # The C base's __init__ takes no part in births: __cinit__ has done its work by then.
        if "__init__" not in cls.__dict__:
            born, failed = _core.announcer(self.number), _core.birth_failed
            _imports.add(cls, "__init__", _core.Hook(cls.__init__, before=born, failed=failed))
        _core.adopt(self.number, (cls,))

    def runs(self, subject: Any) -> bool:
        return bool(subject.is_running())

    def is_live(self, subject: Any) -> bool:
        return not subject.is_closed()

    def state(self, subject: Any) -> str | None:
        return "running" if subject.is_running() else "stopped"

    def why(self, subject: Any) -> str:
        where = "it still runs" if subject.is_running() else "it was never closed"
        return f"{where}: loop.close() gives its selector and sockets back"


KIND = _Loop()
