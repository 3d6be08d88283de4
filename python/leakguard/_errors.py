"""What leakguard raises and warns with."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from leakguard._report import Report


class LeakError(AssertionError):
    """Something was left behind. `report` says what; as a string it is the report's text."""

    __module__ = "leakguard"

    def __init__(self, report: Report, text: str | None = None) -> None:
        """text: what the error says, where that is more than the report's text."""
        super().__init__(report)
        self._text = text

    @property
    def report(self) -> Report:
        """What was left behind."""
        report: Report = self.args[0]
        return report

    def __str__(self) -> str:
        if self._text is None:
            # Made when somebody reads it, and once: files and the working directory may change.
            self._text = self.report.text()
        return self._text

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.report!r})"


class FanoutError(LeakError):
    """More than `max_live` resources of a kind were alive at once in a guarded block."""

    __module__ = "leakguard"


class BlockingError(LeakError):
    """A loop did not come back to its selector for more than `blocking` seconds."""

    __module__ = "leakguard"


def error_of(report: Report, text: str | None = None) -> LeakError:
    """The error for what a check found: of several, a limit's before a leak's.

    text: as for LeakError.
    """
    kind = FanoutError if report.fanout else BlockingError if report.blocking else LeakError
    return kind(report, text)


class LeakWarning(ResourceWarning):
    """What `guard(action="warn")` warns with."""

    __module__ = "leakguard"
