"""What a check raises and warns with."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from leakguard._report import Report


class LeakError(AssertionError):
    """A check found leaks. `report` is the Report; its text is the message."""

    def __init__(self, report: Report) -> None:
        super().__init__(report)
        self.report = report

    def __str__(self) -> str:
        return self.report.text()


class FanoutError(LeakError):
    """More resources of a kind were alive at once than `max_live` allows."""


class BlockingError(LeakError):
    """An event loop did not come back to its selector in time."""


class LeakWarning(ResourceWarning):
    """What action="warn" warns with."""
