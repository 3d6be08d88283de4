"""The kinds beyond tasks and threads: one table says what each is, and when it is a leak."""

from __future__ import annotations

import importlib

from leakguard import _core, _imports
from leakguard._kinds import KINDS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from leakguard._stacks import Frames

# Kind -> the module and the name in it, loaded when somebody asks for the kind: a process that
# watches tasks and threads only pays for none of it.
_MODULES = {
    "timer": "_kind_timer.KIND",
    "asyncgen": "_kind_asyncgen.KIND",
    "loop": "_kind_loop.KIND",
    "executor": "_kind_executor.KIND",
    "transport": "_kind_transport.TRANSPORT",
    "server": "_kind_transport.SERVER",
    "process": "_kind_process.KIND",
    "tempdir": "_kind_tempdir.KIND",
}

AVAILABLE = tuple(_MODULES)
"""The kinds that this table knows."""

_loaded: dict[str, Kind] = {}


class Kind:
    """What one kind is. A subclass says what differs from a plain object with a class name.

    Every method gets the recorded object, which is alive; what it raises is the program's own
    (a property of a subclass), and whoever asks takes care of that.
    """

    name = ""

    @property
    def number(self) -> int:
        """As the core counts."""
        return KINDS.index(self.name)

    def hook(self) -> None:
        """Begin to see births, and record what is there already where that can be found."""
        raise NotImplementedError

    def sweep(self) -> None:
        """End the records of what has ended where no hook of ours sees it."""

    def is_live(self, subject: Any) -> bool:
        """Whether it still is what has to end: a loop that is not closed."""
        del subject
        return True

    def is_left(self, subject: Any) -> bool:
        """Whether it is a leak of its own where it was born since: False for what belongs to
        another resource, and ends with that."""
        del subject
        return True

    def is_held(self, subject: Any, memo: dict[str, Any]) -> bool:
        """As `is_left`, of what takes a look at all that lives: whether it belongs to something.

        memo: what one look has found out already, by names of the kind's choice.
        """
        del subject, memo
        return False

    def why_left(self, subject: Any, since: int) -> str | None:
        """As `why`, where a check decides; None where it is no leak after all.

        since: the serial from which on the check looks, also at an executor that it belongs to.
        """
        del since
        return self.why(subject)

    def can_end(self, subject: Any) -> bool:
        """Whether it could still end by itself: else a check does not wait for it."""
        del subject
        return True

    lost_at = ""
    """Of a kind that has a loop: `runner close`, where a runner ends what nobody has ended, or
    `loop close`, where it is lost with the loop."""
    tells_destruction = False
    left_at_exit = False
    """Whether it is a leak at the end of a process; else whoever ends it may do so later."""
    left_after_exit = False
    """Whether it is one only once all exit callbacks of the program have run."""
    why_lost = ""
    """The why for what is found then."""

    def loop_of(self, subject: Any) -> Any:
        """The loop that it is lost with; None for what outlives a loop."""
        del subject

    def runs(self, subject: Any) -> bool:
        """Whether it belongs to a loop that runs: at exit, in a daemon thread."""
        loop = self.loop_of(subject)
        return loop is not None and bool(loop.is_running())

    def name_of(self, subject: Any) -> str:
        return type(subject).__name__

    def function_of(self, subject: Any) -> str:
        return type(subject).__qualname__

    def definition(self, subject: Any) -> Any:
        """What defines it, where no line of the program created it: its callback; or None."""
        del subject

    def state(self, subject: Any) -> str | None:
        del subject
        return None

    def current(self, subject: Any) -> Frames:
        """Where it is suspended now, outermost first."""
        del subject
        return ()

    def cause(self, subject: Any) -> str | None:
        """One word for a machine."""
        del subject
        return None

    def why(self, subject: Any) -> str:
        """One sentence for a person, or nothing."""
        del subject
        return ""

    def facts(self, subject: Any) -> dict[str, Any]:
        """What else is known, as JSON values."""
        del subject
        return {}


def named(name: str) -> Kind | None:
    """The kind of this name; None for one that is not in this table."""
    found = _loaded.get(name)
    if found is None and name in _MODULES:
        module, _, attribute = _MODULES[name].partition(".")
        found = getattr(importlib.import_module(f"leakguard.{module}"), attribute)
        _loaded[name] = found
    return found


def numbered(number: int) -> Kind | None:
    """The kind of this number in the core; None for one that is not in this table."""
    return named(KINDS[number]) if number < len(KINDS) else None


def left_at_exit() -> list[int]:
    """The numbers of the kinds that are leaks at the end of a process, of those asked for."""
    return [kind.number for kind in _loaded.values() if kind.left_at_exit]


def left_after_exit() -> list[int]:
    """Likewise, of what is left when all exit callbacks have run."""
    return [kind.number for kind in _loaded.values() if kind.left_after_exit]


def mask_lost(moment: str) -> int:
    """The bits of the kinds that are lost at this moment, of those that somebody has asked for."""
    return sum(1 << kind.number for kind in _loaded.values() if kind.lost_at == moment)


def see_destruction(kind: Kind, *classes: Any) -> None:
    """Have what is freed before it was closed taken down for the checks that it was born in: at
    its `__del__`, and before that where the garbage collector frees it."""
    kind.tells_destruction = True
    for cls in classes:
        _imports.replace(cls, "__del__", _core.Hook(vars(cls)["__del__"], before=_unclosed))
    told = (it for it in _loaded.values() if it.tells_destruction)
    _core.set_unclosed(_unclosed, sum(1 << it.number for it in told))


def _unclosed(subject: Any) -> None:
    from leakguard import _abandoned

    _abandoned.take_down_unclosed(subject)


def see_births(kind: Kind, cls: Any) -> None:
    """Have the birth of each instance of a Python class recorded, at its `__init__`: subclasses
    come through here too, unless theirs does not call it."""
    born, failed = _core.announcer(kind.number), _core.birth_failed
    _imports.replace(cls, "__init__", _core.Hook(cls.__init__, before=born, failed=failed))
