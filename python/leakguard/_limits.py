"""The limits that a check was given, and what exceeded them: how many may be alive at once, and how
long a loop may be blocked."""

from __future__ import annotations

import math

from leakguard import _tracking
from leakguard._kinds import parse_kinds

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from leakguard._findings import Blocked, Fanout


class Limits:
    """What was asked for, checked. False where nothing was."""

    __slots__ = ("blocking", "max_live")

    def __init__(self, max_live: object = None, blocking: object = None) -> None:
        self.max_live = parse_max_live(max_live)
        self.blocking = parse_blocking(blocking)

    def __bool__(self) -> bool:
        return bool(self.max_live) or self.blocking is not None

    def begin(self, scope: int = 0) -> Watch | None:
        """Count and watch from here on; what is counted is tracked from here on, too.

        scope: of the block that is watched, 0 for the whole process.
        """
        if not self:
            return None
        if self.max_live:
            _tracking.ensure(self.max_live)
        return Watch(self, scope)


class Seen:
    """What exceeded the limits; and sentences on what that may have missed."""

    __slots__ = ("blocking", "fanout", "notes")

    def __init__(self) -> None:
        self.fanout: tuple[Fanout, ...] = ()
        self.blocking: tuple[Blocked, ...] = ()
        self.notes: tuple[str, ...] = ()


class Watch:
    """Limits that are watched now, until `close`."""

    __slots__ = ("_blocking", "_fanout")

    def __init__(self, limits: Limits, scope: int) -> None:
        self._fanout = self._blocking = None
        if limits.max_live:
            from leakguard import _fanout

            self._fanout = _fanout.Watch(limits.max_live, scope)
        if limits.blocking is not None:
            from leakguard import _blocking

            self._blocking = _blocking.Watch(limits.blocking, scope)

    def look(self, max_live: Mapping[str, int] | None = None) -> Seen:
        """What exceeded the limits up to now. max_live: other ones, of kinds that are counted."""
        seen = Seen()
        if self._fanout is not None:
            seen.fanout, notes = self._fanout.look(max_live)
            seen.notes += notes
        if self._blocking is not None:
            seen.blocking, notes = self._blocking.look()
            seen.notes += notes
        return seen

    def close(self) -> None:
        """Stop counting and watching; may be called again."""
        for watch in (self._fanout, self._blocking):
            if watch is not None:
                watch.close()
        self._fanout = self._blocking = None


def parse_max_live(value: object) -> dict[str, int]:
    """Kind -> how many may be alive at once; empty for None."""
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise TypeError(
            f"max_live must be a dict of kind to number, like {{'task': 100}}, not "
            f"{type(value).__name__}"
        )
    if not value:
        raise ValueError("max_live is empty: give a kind and a number, like {'task': 100}")
    kinds = parse_kinds(value, _tracking.AVAILABLE)
    for kind, number in value.items():
        if isinstance(number, bool) or not isinstance(number, int):
            raise TypeError(
                f"max_live[{kind!r}] must be a whole number, not {type(number).__name__}"
            )
        if number < 0:
            raise ValueError(f"max_live[{kind!r}] must be 0 or more, not {number}")
    return {kind: value[kind] for kind in kinds}


def parse_blocking(value: object) -> float | None:
    """Seconds that a loop may be away from its selector; None where nobody asks."""
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"blocking must be a number of seconds, not {type(value).__name__}")
    if not value > 0 or math.isinf(value):
        raise ValueError(f"blocking must be a finite number of seconds above 0, not {value!r}")
    return float(value)
