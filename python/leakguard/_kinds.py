"""The kinds of resources, in the order in which the core numbers them."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

KINDS = (
    "task",
    "thread",
    "native_thread",
    "timer",
    "asyncgen",
    "loop",
    "executor",
    "transport",
    "server",
    "process",
    "tempdir",
)
DEFAULT_KINDS = ("task", "thread")


def parse_kinds(value: str | Iterable[str] | None, available: Sequence[str]) -> tuple[str, ...]:
    """The kinds that a user named: a kind, an iterable of kinds, or None for the default.

    Raises ValueError for an unknown kind or one that is not in `available`, and for none at all.
    """
    if value is None:
        return DEFAULT_KINDS
    wanted = (value,) if isinstance(value, str) else tuple(value)
    allowed = ", ".join(available)
    if not wanted:
        raise ValueError(f"no kind given; allowed here: {allowed}")
    for kind in wanted:
        if not isinstance(kind, str):
            raise TypeError(f"a kind must be a str, not {type(kind).__name__}; allowed: {allowed}")
        if kind not in KINDS:
            raise ValueError(f"unknown kind {kind!r}; allowed here: {allowed}")
        if kind not in available:
            raise ValueError(f"kind {kind!r} cannot be seen here; allowed here: {allowed}")
    return tuple(dict.fromkeys(wanted))
