"""The kinds of resource, and how a choice of them is read."""

from __future__ import annotations

from leakguard import _core

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

# A kind's place in this tuple is its number in the core.
KINDS: tuple[str, ...] = (
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


def known_kinds() -> tuple[str, ...]:
    """KINDS, and those that other extensions have added in this process."""
    return KINDS + _core.own_kinds()


DEFAULT_KINDS: tuple[str, ...] = ("task", "thread")


def parse_kinds(
    value: str | Iterable[str] | None, available: Sequence[str] = KINDS
) -> tuple[str, ...]:
    """The chosen kinds, each once, in the order of KINDS.

    value: a kind, an iterable of kinds, or None for tasks and threads.
    available: what can be seen on this interpreter and system.

    Raises TypeError for anything but strings, and ValueError for no kind at all, an unknown kind,
    and a kind that is not available.
    """
    if value is None:
        return DEFAULT_KINDS
    chosen = _as_strings(value)
    if not chosen:
        raise ValueError(f"kinds is empty; allowed: {_listed(KINDS)}")
    known = known_kinds()
    for kind in chosen:
        if kind not in known:
            hint = "; give several as a list" if "," in kind else ""
            raise ValueError(f"unknown kind {kind!r}; allowed: {_listed(known)}{hint}")
        if kind in KINDS and kind not in available:
            raise ValueError(
                f"kind {kind!r} cannot be seen here, on this interpreter and system; "
                f"allowed here: {_listed(available)}"
            )
    return tuple(kind for kind in known if kind in chosen)


def _as_strings(value: str | Iterable[str]) -> tuple[str, ...]:
    if isinstance(value, str):
        return (value,)
    try:
        chosen = tuple(value)
    except TypeError:
        raise TypeError(
            f"kinds must be a str or an iterable of str, not {type(value).__name__}"
        ) from None
    for kind in chosen:
        if not isinstance(kind, str):
            raise TypeError(f"a kind must be a str, not {type(kind).__name__}")
    return chosen


def _listed(kinds: Iterable[str]) -> str:
    return ", ".join(repr(kind) for kind in kinds)
