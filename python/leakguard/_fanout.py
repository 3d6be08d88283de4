"""Fan-out: whether more were alive at once than allowed, and who created most of them."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from leakguard._findings import Fanout


class Watch:
    """Counts, from here on until `close`, what is born and how much of it is alive at once."""

    __slots__ = ()

    def __init__(self, limits: Mapping[str, int], scope: int) -> None:
        raise ValueError("max_live cannot be counted here")

    def look(
        self, limits: Mapping[str, int] | None = None
    ) -> tuple[tuple[Fanout, ...], tuple[str, ...]]:
        """What exceeded its limit up to now; sentences on what was not counted.

        limits: other ones for this look."""
        return (), ()

    def close(self) -> None:
        """Stop counting."""
