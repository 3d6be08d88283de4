"""Runs a check: looks, waits while waiting can help, and makes the report."""

from __future__ import annotations

import math
import sys
import time

from leakguard import _core, _ledger, _verdict
from leakguard._report import Report

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from leakguard._limits import Seen
    from leakguard._stacks import Frames
    from leakguard._verdict import Found, Question

_FIRST_PAUSE = 0.0001
_LONGEST_PAUSE = 0.05


def monotonic() -> float:
    """Seconds of a clock that nobody can freeze: tests put another time.monotonic in its place."""
    return _core.now() / 1e9


class Polling:
    """The pauses of one check: growing, and ended by the first clean look."""

    __slots__ = (
        "_deadline",
        "_grace",
        "_has_paused",
        "_pause",
        "_places",
        "_question",
        "_start",
        "found",
    )

    def __init__(self, question: Question, grace: float) -> None:
        self._question = question
        self._start = monotonic()
        self._deadline = self._start + grace
        self._pause = _FIRST_PAUSE
        self._has_paused = False
        self._grace = grace
        self._places: dict[int, Frames] | None = None  # where tasks were half-way
        self.found: Found
        self.look()

    @property
    def waited(self) -> float:
        """Seconds; a single look is no waiting, however long it took."""
        return monotonic() - self._start if self._has_paused else 0.0

    def next_pause(self) -> float | None:
        """How long to sleep before the next look; None where no look can change anything.

        Where there is any grace there is one pause, though the first look took longer than that:
        what is about to end is given its turn.
        """
        if not self._grace or not self.found.can_change:
            return None
        remaining = self._deadline - monotonic()
        if remaining <= 0 and self._has_paused:
            return None
        self._has_paused = True
        pause = max(0.0, min(self._pause, remaining))
        self._pause = min(self._pause * 2, _LONGEST_PAUSE)
        return pause

    def look(self) -> None:
        _core.blocking_exempt(True)
        try:
            self.found = _verdict.look(self._question)
            self._narrow(self.found)
            if self._places is None and self._has_paused and self.waited > self._grace / 2:
                self._places = self.found.places()
            self.found.context.before = self._places or {}
        finally:
            _core.blocking_exempt(False)

    def _narrow(self, found: Found) -> None:
        """For a check that is about a part only: takes out of what was found what is not."""

    def run(self) -> None:
        """Look until clean or the grace is over, in this thread."""
        while (pause := self.next_pause()) is not None:
            time.sleep(pause)
            self.look()

    async def run_async(self) -> None:
        """As `run`, but yields to the running asyncio loop while it waits."""
        asyncio = sys.modules.get("asyncio")
        yields = asyncio is not None and running_loop() is not None
        while (pause := self.next_pause()) is not None:
            if asyncio is not None and yields:
                await asyncio.sleep(pause)
            else:
                time.sleep(pause)
            self.look()

    def report(
        self,
        mark: _ledger.Mark,
        *,
        reason: str,
        label: str | None,
        seen: Seen | None = None,
    ) -> Report:
        """What the last look saw. seen: what exceeded a limit."""
        _core.blocking_exempt(True)
        try:
            leaks = self.found.leaks()
        finally:
            _core.blocking_exempt(False)
        hidden = tuple((str(rule), rule.reason, count) for rule, count in self.found.hidden.items())
        return Report(
            leaks,
            waited=self.waited if leaks else 0.0,
            label=label,
            reason=reason,
            hidden=hidden,
            notes=notes_of(mark) + self.found.notes + (() if seen is None else seen.notes),
            fanout=() if seen is None else seen.fanout,
            blocking=() if seen is None else seen.blocking,
        )


def check(
    question: Question,
    grace: float,
    mark: _ledger.Mark,
    *,
    reason: str,
    label: str | None,
    seen: Seen | None = None,
) -> Report:
    """Look until clean or `grace` seconds are over, in this thread.

    seen: what exceeded a limit up to now."""
    polling = Polling(question, grace)
    polling.run()
    return polling.report(mark, reason=reason, label=label, seen=seen)


async def check_async(
    question: Question,
    grace: float,
    mark: _ledger.Mark,
    *,
    reason: str,
    label: str | None,
    seen: Seen | None = None,
) -> Report:
    """As `check`, but yields to the running asyncio loop while it waits."""
    polling = Polling(question, grace)
    await polling.run_async()
    return polling.report(mark, reason=reason, label=label, seen=seen)


def notes_of(mark: _ledger.Mark) -> tuple[str, ...]:
    """What keeps a check from saying "clean"."""
    lost = mark.lost
    if not lost:
        return ()
    records = "1 record was" if lost == 1 else f"{lost} records were"
    return (f"{records} dropped since: this check may have missed a leak, or its creation line",)


def running_loop() -> Any:
    """The event loop that runs in this thread, or None; never imports asyncio."""
    events = sys.modules.get("asyncio.events")
    get = getattr(events, "_get_running_loop", None)
    return None if get is None else get()


def parse_grace(grace: object) -> float:
    """A number of seconds >= 0."""
    if isinstance(grace, bool) or not isinstance(grace, (int, float)):
        raise TypeError(f"grace must be a number of seconds, not {type(grace).__name__}")
    if not grace >= 0 or math.isinf(grace):
        raise ValueError(f"grace must be a finite number of seconds, 0 or more, not {grace!r}")
    return float(grace)


def parse_scope(scope: object) -> bool:
    """Whether the scope is "descendants"."""
    if scope not in ("process", "descendants"):
        raise ValueError(f'scope must be "process" or "descendants", not {scope!r}')
    return scope == "descendants"


def refuse_sync(grace: float, kinds: tuple[str, ...], instead: str) -> None:
    """In a thread whose loop runs, a sync check would only starve what it waits for."""
    if grace > 0 and "task" in kinds and running_loop() is not None:
        raise RuntimeError(
            "a sync check waits in a thread whose event loop is running, and would starve the "
            f"tasks it waits for: use {instead}, or grace=0, or kinds without tasks"
        )
