"""Where the environment mode's reports go: stderr, a file of JSON lines, or logging."""

from __future__ import annotations

import os
import sys

from leakguard import _guard
from leakguard._report import Report, json_lines

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from leakguard._settings import Settings


class Output:
    """The target that the settings name. No method raises for what is wrong with it."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def report(self, report: Report, *, note: bool = False) -> None:
        """note: what is reported is no leak, but worth a note."""
        if self._settings.action == "log" and not note:
            _guard.log(report)
        elif self._settings.report is None or not append(
            self._settings.report, json_lines(report, note=note)
        ):
            from leakguard._text import use_color

            write(report.text(color=use_color(sys.__stderr__)) + "\n")

    def text(self, text: str, reason: str) -> None:
        """A sentence that is about no resource."""
        path = self._settings.report
        lines = () if path is None else json_lines(Report((), reason=reason, notes=(text,)))
        if path is None or not append(path, lines):
            write(f"leakguard: {text}\n")


def append(path: str, lines: Iterable[str]) -> bool:
    """Append to a file in one write. False, with a line on stderr, where that fails."""
    data = "".join(line + "\n" for line in lines).encode()
    try:
        # Without O_NONBLOCK a pipe that nobody reads would hold the program up for ever.
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK
        descriptor = os.open(path, flags, 0o600)
        try:
            os.set_blocking(descriptor, True)
            while data:
                data = data[os.write(descriptor, data) :]
        finally:
            os.close(descriptor)
    except OSError as error:
        write(f"leakguard: LEAKGUARD_REPORT: {path}: {error.strerror}\n")
        return False
    return True


def write(text: str) -> None:
    """To the process's stderr, if it still has one; what it says now comes first.

    Past the stream's buffer: what could not be written would stay in there, and would change the
    exit status at the interpreter's last flush.
    """
    stream = sys.__stderr__
    if stream is None:
        return
    try:
        stream.flush()
        data = text.encode(stream.encoding or "utf-8", "backslashreplace")
        while data:
            data = data[os.write(stream.fileno(), data) :]
    except (OSError, ValueError):
        # Closed by the program, or replaced by something without a file: nowhere to say it.
        pass
