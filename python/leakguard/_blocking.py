"""Blocked event loops: who holds a loop up, and where."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from leakguard._findings import Blocked


class Watch:
    """Watches all loops until `close`."""

    __slots__ = ()

    def __init__(self, seconds: float, scope: int) -> None:
        raise ValueError("blocking cannot be watched here")

    def look(self) -> tuple[tuple[Blocked, ...], tuple[str, ...]]:
        """What was blocked for longer than allowed up to now; sentences on what was missed."""
        return (), ()

    def close(self) -> None:
        """Stop watching."""
