"""Tasks that are freed while pending: nobody held them any more."""

from __future__ import annotations

from leakguard import _builtin, _core, _describe, _ledger, _stacks

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from leakguard._report import Creator, Leak

    _RawCreator = tuple[int, int, Any, str | None, str | None, str | None]
    _RawStack = tuple[_stacks.Frames, int, int]

# A program that drops tasks in a loop is told so by the first thousands.
_LIMIT = 10_000

_kept: list[Leak] = []
_keeps: list[bool] = []


class _Gone:
    """A task that is gone, with as much of a Resource as built-in rules for tasks ask for."""

    __slots__ = ("coroutine", "creation")

    kind = "task"

    def __init__(self, stack: _RawStack | None, coroutine: Any) -> None:
        frames, inner, _ = stack or ((), 0, 0)
        self.creation = _stacks.Creation(frames, inner)
        self.coroutine = coroutine

    @property
    def function(self) -> str:
        return _describe.qualname(self.coroutine)

    @property
    def made_by_loop(self) -> bool:
        return self.creation.site is None

    @property
    def is_infrastructure(self) -> bool:
        resource: Any = self
        return _builtin.matching(resource) is not None

    def leak(self, serial: int, born: int, creator: Creator | None, name: str | None) -> Leak:
        from leakguard._report import Leak

        site = self.creation.site
        defined = _stacks.definition(self.coroutine) if site is None else None
        frames = self.creation.frames
        return Leak(
            kind=self.kind,
            serial=serial,
            name=name,
            function=self.function,
            state="destroyed",
            age=max(0.0, (_core.now() - born) / 1e9),
            creation=frames,
            current=_stacks.of_task(self.coroutine, {}),
            site=site or defined or (frames[-1] if frames else None),
            site_is_definition=defined is not None,
            creator=creator,
            cause="destroyed-pending",
            why="it was freed while pending: nothing held it any more",
        )


def keep() -> None:
    """Keep these for `take` from now on."""
    _keeps[:] = [True]
    _ledger.want_destroyed()


def take() -> list[Leak]:
    """What `keep` has had kept since the last call."""
    taken = _kept.copy()
    _kept.clear()
    return taken


def told(
    serial: int,
    born: int,
    scope: int,
    stack: _RawStack | None,
    creator: _RawCreator | None,
    line: list[int] | None,
    name: str | None,
    coroutine: Any,
) -> None:
    """A task is gone that was pending. Called inside the collector or a release of the program's
    last reference: takes down what a check will ask for, and no more."""
    first = _ledger.oldest()
    is_asked = first is not None and serial > first
    if (not is_asked and not _keeps) or _ledger.is_abandoned(serial):
        return
    gone = _Gone(stack, coroutine)
    if gone.is_infrastructure:
        return
    leak = gone.leak(serial, born, _creator(creator), name)
    if is_asked:
        takers = _ledger.takers().intersection(line or ())
        _ledger.abandon(leak, scope, frozenset(takers), _LIMIT)
    if _keeps and len(_kept) < _LIMIT:
        _kept.append(leak)


def _creator(raw: _RawCreator | None) -> Creator | None:
    try:
        return _describe.creator_from(raw)
    except Exception:
        return None  # the collector has emptied it, together with this task
