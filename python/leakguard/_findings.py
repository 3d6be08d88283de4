"""What a check finds beside leaks: limits that were exceeded, and loops that were blocked."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from leakguard._report import Frame, Frames, Report


class Fanout:
    """More resources of a kind were alive at once than were allowed. Read-only."""

    __slots__ = ("creation", "kind", "limit", "peak", "site", "site_peak", "site_share")

    def __init__(
        self,
        *,
        kind: str,
        limit: int,
        peak: int,
        site: Frame | None = None,
        site_share: int = 0,
        site_peak: int = 0,
        creation: Frames = (),
    ) -> None:
        self.kind = kind
        self.limit = limit  # how many were allowed
        self.peak = peak  # how many were alive at once, at most
        self.site = site  # of those, the creation site that had most; None where it has none
        self.site_share = site_share  # how many of the peak it had
        self.site_peak = site_peak  # the most that it had at once, at whatever moment
        self.creation = creation  # a creation stack with that site, outermost first

    def to_dict(self) -> dict[str, Any]:
        """Its attributes, as they stand in JSON."""
        return {
            "kind": self.kind,
            "limit": self.limit,
            "peak": self.peak,
            "site": None if self.site is None else _frame_dict(self.site),
            "site_share": self.site_share,
            "site_peak": self.site_peak,
            "creation_stack": [_frame_dict(frame) for frame in self.creation],
        }

    def __repr__(self) -> str:
        return f"<Fanout {self.kind}: {self.peak} alive at once, {self.limit} allowed>"


class Blocked:
    """A loop did not come back to its selector for longer than was allowed. Read-only."""

    __slots__ = (
        "duration",
        "function",
        "limit",
        "name",
        "native",
        "serial",
        "stack",
        "thread",
        "time",
    )

    def __init__(
        self,
        *,
        duration: float,
        limit: float,
        time: str,
        thread: str,
        name: str | None = None,
        function: str | None = None,
        serial: int | None = None,
        stack: Frames = (),
        native: Sequence[object] | None = None,
    ) -> None:
        self.duration = duration  # seconds
        self.limit = limit  # seconds that were allowed
        self.time = time  # when it began, in UTC, ISO 8601
        self.thread = thread  # the name of the thread that runs the loop
        self.name = name  # of the task that ran; None where it was a callback
        self.function = function
        self.serial = serial
        self.stack = stack  # during the block, outermost first
        self.native = native  # the same in C, None where it was not taken

    def to_dict(self) -> dict[str, Any]:
        """Its attributes, as they stand in JSON."""
        return {
            "duration": self.duration,
            "limit": self.limit,
            "time": self.time,
            "thread": self.thread,
            "name": self.name,
            "function": self.function,
            "serial": self.serial,
            "stack": [_frame_dict(frame) for frame in self.stack],
            "native_stack": None if self.native is None else [str(it) for it in self.native],
        }

    def __repr__(self) -> str:
        return f"<Blocked {self.thread} for {self.duration:.3f} s, {self.limit} s allowed>"


def is_clean(report: Report) -> bool:
    """Whether a check found nothing at all: a report without leaks may have other findings."""
    return not (report or report.fanout or report.blocking)


def _frame_dict(frame: Frame) -> dict[str, Any]:
    file, line, function = frame
    return {"file": file, "line": line, "function": function}
