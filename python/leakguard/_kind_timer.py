"""Timers: armed `call_later` and `call_at` handles.

asyncio's TimerHandle is live from its birth until it fires or is cancelled. A cancelled one stays
in the loop's heap for a while, and counts for nothing there. (asyncio/base_events.py: call_at,
_timer_handle_cancelled, _run_once; the same on 3.11 to 3.15.)

uvloop's handle says only whether it was cancelled. It lets go of its callback and of libuv's timer
when it fires or is cancelled; the garbage collector's view shows both. (uvloop/cbhandles.pyx.)
"""

from __future__ import annotations

import gc

from leakguard import _core, _imports, _resources

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import ModuleType
    from typing import Any


class _Timer(_resources.Kind):
    name = "timer"
    left_at_exit = True
    lost_at = "loop close"
    why_lost = "nobody cancelled it before its loop was closed"

    def hook(self) -> None:
        _imports.after("asyncio.events", self._hook_asyncio)
        _imports.after("uvloop", self._hook_uvloop)

    def _hook_asyncio(self, module: ModuleType) -> None:
        cls = module.TimerHandle
        _resources.see_births(self, cls)
        _core.adopt(self.number, (cls,))

    def _hook_uvloop(self, module: ModuleType) -> None:
        cls = module.Loop
        born = _core.announcer(self.number)
        for name in ("call_later", "call_at"):
            if name not in cls.__dict__:
                _imports.add(cls, name, _core.Hook(getattr(cls, name), made=born))

    def is_live(self, subject: Any) -> bool:
        if not hasattr(subject, "_scheduled"):
            return any(type(it).__name__ == "UVTimer" for it in gc.get_referents(subject))
        return subject._scheduled and not subject._cancelled and not subject._loop.is_closed()

    def can_end(self, subject: Any) -> bool:
        loop = self.loop_of(subject)
        return loop is None or bool(not loop.is_closed() and loop.is_running())

    def loop_of(self, subject: Any) -> Any:
        loop = getattr(subject, "_loop", None)
        if loop is not None:
            return loop
        return next((it for it in gc.get_referents(subject) if hasattr(it, "call_later")), None)

    def function_of(self, subject: Any) -> str:
        return _core.function_name(self.definition(subject))

    def definition(self, subject: Any) -> Any:
        return callback_of(subject)

    def state(self, subject: Any) -> str | None:
        del subject
        return "armed"

    def why(self, subject: Any) -> str:
        from leakguard._text import duration

        return f"nobody cancelled it: it fires in {duration(max(self._seconds_left(subject), 0.0))}"

    def facts(self, subject: Any) -> dict[str, Any]:
        return {"seconds_left": round(self._seconds_left(subject), 3)}

    def _seconds_left(self, subject: Any) -> float:
        left: float = subject.when() - self.loop_of(subject).time()
        return left


def callback_of(timer: Any) -> Any:
    """What an armed timer will call; None where it does not say."""
    if hasattr(timer, "_callback"):
        return timer._callback
    # In the order of declaration: the callback comes first.
    return next((it for it in gc.get_referents(timer) if callable(it)), None)


KIND = _Timer()
