"""Reads the LEAKGUARD variables of the environment; the one place that does."""

from __future__ import annotations

import math
import os

from leakguard._kinds import DEFAULT_KINDS, KINDS, parse_kinds

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_ACTIONS = {"": "off", "0": "off", "1": "warn", "warn": "warn", "log": "log", "exit": "exit"}
_LONGEST_SHOWN = 80
# They cannot be caught, mean something else to Python, or end the process after an error.
_NO_SIGNALS = frozenset(
    {
        *("SIGKILL", "SIGSTOP", "SIGINT", "SIGTERM", "SIGCHLD", "SIGCLD", "SIGPIPE", "SIGABRT"),
        *("SIGSEGV", "SIGBUS", "SIGFPE", "SIGILL", "SIGSYS", "SIGTRAP", "SIGRTMIN", "SIGRTMAX"),
        *("SIG_DFL", "SIG_IGN", "SIG_BLOCK", "SIG_UNBLOCK", "SIG_SETMASK"),
    }
)


class Settings:
    """What the LEAKGUARD variables say, wrong values replaced by their defaults."""

    __slots__ = (
        "_report",
        "action",
        "blocking",
        "complaints",
        "config",
        "exitcode",
        "grace",
        "kinds",
        "max_live",
        "signal",
        "stack_depth",
        "witness",
    )

    def __init__(self) -> None:
        self.action = "off"  # or "warn", "log", "exit"
        self.exitcode = 23
        self.grace = 1.0  # seconds
        self.kinds: tuple[str, ...] = DEFAULT_KINDS
        self.stack_depth = 64  # frames
        self.max_live: dict[str, int] = {}  # kind -> how many may be alive at once
        self.blocking: float | None = None  # seconds that a loop may be blocked
        self.witness = False
        self.config = ""  # a file with ignore rules; empty: pyproject.toml, if there is one
        self.signal = 0  # the number of the signal that asks for a snapshot, 0 for none
        self.complaints: list[str] = []  # for each wrong value a line, without its end
        self._report: str | None = None

    @property
    def active(self) -> bool:
        """Whether the process is to be watched at all."""
        return self.action != "off"

    @property
    def report(self) -> str | None:
        """The file to append to; None is stderr. With %p in it a forked child has another one:
        ask each time."""
        return None if self._report is None else self._report.replace("%p", str(os.getpid()))


def read(environ: Mapping[str, str], available: Sequence[str] = KINDS) -> Settings:
    """Read the variables; never raises. A variable that is set but empty counts as not set.

    available: the kinds that can be seen here.
    """
    settings = Settings()
    reader = _Reader(environ, settings.complaints)
    settings.action = reader.action("LEAKGUARD")
    settings.exitcode = reader.whole("LEAKGUARD_EXITCODE", settings.exitcode, 0, 255)
    settings.grace = reader.seconds("LEAKGUARD_GRACE", settings.grace)
    settings.kinds = reader.kinds("LEAKGUARD_KINDS", settings.kinds, available)
    settings.stack_depth = reader.whole("LEAKGUARD_STACK_DEPTH", settings.stack_depth, 1, 1024)
    settings.max_live = reader.limits("LEAKGUARD_MAX_LIVE", available)
    settings.blocking = reader.duration("LEAKGUARD_BLOCKING")
    settings.witness = reader.switch("LEAKGUARD_WITNESS")
    settings.config = environ.get("LEAKGUARD_CONFIG", "")
    settings.signal = reader.signal("LEAKGUARD_SIGNAL")
    settings._report = _absolute(environ.get("LEAKGUARD_REPORT", ""))
    return settings


class _Reader:
    """Reads one variable at a time, and collects a complaint for each wrong one."""

    def __init__(self, environ: Mapping[str, str], complaints: list[str]) -> None:
        self._environ = environ
        self._complaints = complaints

    def action(self, name: str) -> str:
        given = self._environ.get(name, "")
        known = _ACTIONS.get(given)
        if known is None:
            self._complain(name, given, "0, 1, warn, log or exit", "it acts as 1")
            return "warn"
        return known

    def whole(self, name: str, default: int, least: int, most: int) -> int:
        given = self._environ.get(name, "")
        if not given:
            return default
        # isdigit() alone takes digits of other scripts; int() refuses thousands of digits.
        is_short_number = given.isascii() and given.isdigit() and len(given) < 10
        if is_short_number and least <= int(given) <= most:
            return int(given)
        allowed = f"a whole number from {least} to {most}"
        self._complain(name, given, allowed, f"the default, {default}, is used")
        return default

    def seconds(self, name: str, default: float) -> float:
        given = self._environ.get(name, "")
        if not given:
            return default
        number = _number(given)
        if math.isfinite(number) and number >= 0:
            return number
        allowed = "a number of seconds, 0 or more"
        self._complain(name, given, allowed, f"the default, {default}, is used")
        return default

    def duration(self, name: str) -> float | None:
        """Seconds; None where they are not set, or wrong."""
        given = self._environ.get(name, "")
        if not given:
            return None
        number = _number(given)
        if math.isfinite(number) and number > 0:
            return number
        self._complain(name, given, "a number of seconds above 0", "nothing is watched")
        return None

    def limits(self, name: str, available: Sequence[str]) -> dict[str, int]:
        """`task:500,thread:50`, all of it or nothing."""
        given = self._environ.get(name, "")
        limits: dict[str, int] = {}
        for part in given.split(",") if given else ():
            kind, _, number = (piece.strip() for piece in part.partition(":"))
            is_number = number.isascii() and number.isdigit() and len(number) < 10
            if kind not in available or not is_number or kind in limits:
                allowed = f"a kind and a number, by commas, like task:500; {', '.join(available)}"
                self._complain(name, given, allowed, "nothing is counted")
                return {}
            limits[kind] = int(number)
        return limits

    def kinds(
        self, name: str, default: tuple[str, ...], available: Sequence[str]
    ) -> tuple[str, ...]:
        given = self._environ.get(name, "")
        if not given:
            return default
        try:
            return parse_kinds([part.strip() for part in given.split(",")], available)
        except ValueError:
            allowed = f"{', '.join(available)}, by commas"
            self._complain(name, given, allowed, f"the default, {','.join(default)}, is used")
            return default

    def switch(self, name: str) -> bool:
        given = self._environ.get(name, "")
        if given not in ("", "0", "1"):
            self._complain(name, given, "0 or 1", "the default, 0, is used")
        return given == "1"

    def signal(self, name: str) -> int:
        given = self._environ.get(name, "")
        if not given:
            return 0
        import _signal  # type: ignore[import-not-found]  # `signal` would import enum

        number = getattr(_signal, given, None) if given.startswith("SIG") else None
        if not isinstance(number, int) or given in _NO_SIGNALS:
            allowed = "the name of a signal that the program does not use, like SIGUSR2"
            self._complain(name, given, allowed, "no signal asks for a snapshot")
            return 0
        return number

    def _complain(self, name: str, given: str, allowed: str, instead: str) -> None:
        shown = repr(given[:_LONGEST_SHOWN])
        if len(given) > _LONGEST_SHOWN:
            shown += "..."
        self._complaints.append(f"{name} is {shown}; allowed: {allowed}; {instead}")


def _number(given: str) -> float:
    """NaN where it is none, also for what float() takes but nobody means: 1_000, other digits."""
    try:
        return float(given) if given.isascii() and "_" not in given else math.nan
    except ValueError:
        return math.nan


def _absolute(path: str) -> str | None:
    """The path from here: the program may change its working directory."""
    if not path:
        return None
    try:
        return os.path.abspath(path)  # noqa: PTH100  # cheap to import
    except OSError:
        return path  # the working directory is gone
