"""Notices that the end of an event loop waits, by a timer of that loop: for tasks that do not let
themselves be cancelled, or for a call in the default executor."""

from __future__ import annotations

from leakguard import _core

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

_FIRST_REPEAT = 10.0
_LONGEST_REPEAT = 600.0


class LoopWatch:
    """Calls `tell(loop, upto, waited)` when the end of a loop has taken `grace` seconds, and again
    at growing intervals; for `_abandoned.around_close`.

    upto: the newest serial when that end began; waited: seconds.
    """

    def __init__(self, grace: float, tell: Callable[[Any, int, float], None]) -> None:
        self._grace = grace
        self._tell = tell
        self._timers: dict[int, Any] = {}

    def begin(self, loop: Any) -> None:
        """The loop's end begins."""
        upto = _core.mark()[1]
        timer = loop.call_later(self._grace, self._look, loop, upto, loop.time(), _FIRST_REPEAT)
        self._timers[id(loop)] = timer

    def end(self, loop: Any) -> None:
        """The loop has ended, or could not."""
        timer = self._timers.pop(id(loop), None)
        if timer is not None:
            timer.cancel()

    def _look(self, loop: Any, upto: int, began: float, interval: float) -> None:
        if id(loop) not in self._timers:
            return
        try:
            self._tell(loop, upto, loop.time() - began)
        except Exception:
            # The loop's end goes on, whatever is wrong with the report.
            pass
        longer = min(interval * 2, _LONGEST_REPEAT)
        self._timers[id(loop)] = loop.call_later(interval, self._look, loop, upto, began, longer)
