"""Scopes: which block a resource was created in, for scope="descendants".

A block sets a context variable, which the core reads at each creation. Code may also run in a
context from before (a runner's, a callback's) or in an empty one (a thread's): so the scope of the
creator counts where that is newer.
"""

from __future__ import annotations

import contextvars
import itertools

from leakguard import _core

_variable: contextvars.ContextVar[int] = contextvars.ContextVar("leakguard_scope")
_numbers = itertools.count(1)
_parents: dict[int, int] = {}
_open: set[int] = set()


class Scope:
    """One block. What is created while it is entered, directly or not, belongs to it."""

    __slots__ = ("_before", "_epoch", "_inner", "_token", "number")

    def __init__(self, *, apart: bool = False) -> None:
        """apart: this block is inside no other, whatever block the code here is in."""
        _core.set_scope_variable(_variable)
        self.number = next(_numbers)
        # In this order: `close` in another thread forgets what no open block contains.
        _open.add(self.number)
        parent = _parents[self.number] = 0 if apart else _variable.get(0)
        if parent:
            _core.scope_begins(self.number, parent)
        self._inner = self.number
        self._token: contextvars.Token[int] | None = None
        self._before = 0
        self._epoch = _core.mark()[0]
        _core.count_scopes(1)

    def enter(self) -> None:
        """From here on, code in this context is the block's."""
        self._token = _variable.set(self._inner)
        self._before = _enter_thread(self._inner)

    def renew(self) -> None:
        """Leave and enter anew, as newer than blocks that began meanwhile and go on."""
        self.leave()
        self._inner = next(_numbers)
        _parents[self._inner] = self.number
        if _core.is_installed():
            _core.scope_begins(self._inner, self.number)
        self.enter()

    def is_entered(self) -> bool:
        """Whether code here, in this context, is the block's, and of no block inside it."""
        return _variable.get(0) == self._inner

    def begin_again(self) -> None:
        """While it is entered and nothing was created in it, as if it were made and entered now:
        what still runs in a context copied from here is no longer the block's."""
        if self._inner != self.number:
            _parents.pop(self._inner, None)
        number = self._inner = next(_numbers)
        _parents[number] = self.number
        if _parents.get(self.number):
            _core.scope_begins(number, self.number)
        _variable.set(number)
        _core.enter_scope(number)

    def enter_in(self, context: contextvars.Context) -> None:
        """For good, for code that runs in this context."""
        context.run(_variable.set, self._inner)

    def leave(self) -> None:
        """No longer; also in another context than the one it was entered in."""
        token, self._token = self._token, None
        if token is not None:
            _enter_thread(self._before)
        _reset(token)

    def run(self) -> _Running:
        """For `with`: the code inside is the block's, in any context, several at once."""
        return _Running(self._inner)

    def close(self) -> None:
        """The block's check is done: nobody asks what it contains any more."""
        if _core.is_installed() and _core.mark()[0] == self._epoch:
            _core.count_scopes(-1)
        _open.discard(self.number)
        known = list(_parents)
        if not _open:
            for number in known:
                _parents.pop(number, None)
        elif not _is_asked_for(self.number):
            for number in known:
                if not _is_asked_for(number):
                    _parents.pop(number, None)


class _Running:
    __slots__ = ("_before", "_number", "_token")

    def __init__(self, number: int) -> None:
        self._number = number

    def __enter__(self) -> None:
        self._token = _variable.set(self._number)
        self._before = _enter_thread(self._number)

    def __exit__(self, *_: object) -> None:
        _enter_thread(self._before)
        _reset(self._token)


def _enter_thread(number: int) -> int:
    """For native threads that are created without the GIL: then no context can be read."""
    return _core.enter_scope(number) if _core.is_installed() else 0


def _reset(token: contextvars.Token[int] | None) -> None:
    try:
        if token is not None:
            _variable.reset(token)
    except ValueError:
        pass  # this is another context


def contains(outer: int, scope: int) -> bool:
    """Whether a resource of `scope` was created in `outer`, or in a block inside it."""
    return outer in _line(scope)


def _is_asked_for(scope: int) -> bool:
    """Whether a block that is still open contains it."""
    return any(outer in _open for outer in _line(scope))


def _line(scope: int) -> list[int]:
    """A scope and those it lies in, innermost first."""
    line = []
    while scope:
        line.append(scope)
        scope = _parents.get(scope, 0)
    return line
