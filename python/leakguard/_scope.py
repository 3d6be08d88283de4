"""Scopes: which block a resource was created in, for scope="descendants".

A block sets a context variable; the core reads it at each creation, and what a thread or a task
creates where it is not set inherits its creator's scope.
"""

from __future__ import annotations

import contextvars
import itertools

from leakguard import _core

_variable: contextvars.ContextVar[int] = contextvars.ContextVar("leakguard_scope")
_numbers = itertools.count(1)
_parents: dict[int, int] = {}
_entered: set[int] = set()


class Scope:
    """One entered block."""

    __slots__ = ("_token", "number")

    def __init__(self) -> None:
        _core.set_scope_variable(_variable)
        self.number = next(_numbers)
        _parents[self.number] = _variable.get(0)
        self._token = _variable.set(self.number)
        _entered.add(self.number)
        _core.count_scopes(1)

    def leave(self) -> None:
        """End the block; also in another context than the one it was entered in."""
        try:
            _variable.reset(self._token)
        except ValueError:
            pass
        if _core.is_installed():
            _core.count_scopes(-1)

    def close(self) -> None:
        """The block's check is done: nobody asks what it contains any more."""
        _entered.discard(self.number)
        if not _entered:
            _parents.clear()
        elif not any(outer in _entered for outer in _line(self.number)):
            # Nobody who is still entered contains it.
            _parents.pop(self.number, None)


def contains(outer: int, scope: int) -> bool:
    """Whether a resource of `scope` was created in `outer`, or in a block inside it."""
    return outer in _line(scope)


def _line(scope: int) -> list[int]:
    """A scope and those it lies in, innermost first."""
    line = []
    while scope:
        line.append(scope)
        scope = _parents.get(scope, 0)
    return line
