"""Which tasks wait for ever: what each waits for is reached from nothing that can still run."""

from __future__ import annotations

import sys

from leakguard import _core

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

BUDGET = 2.0  # seconds; the whole process stands still meanwhile

# (module, attribute): a class whose bound methods cancel the task that an instance refers to, once
# its time is over.
_TIMEOUTS = (
    ("asyncio.timeouts", "Timeout"),
    ("async_timeout", "Timeout"),
    ("anyio._backends._asyncio", "CancelScope"),
)


class Reach:
    """What the marking found, by serial; `gave_up` says why it found nothing, or is empty."""

    __slots__ = ("forever", "gave_up", "unheld")

    def __init__(self, found: tuple[list[int], list[int]] | str, gave_up: str = "") -> None:
        forever, unheld = ([], []) if isinstance(found, str) else found
        self.forever = frozenset(forever)  # wait for what nothing that can run reaches
        self.unheld = frozenset(unheld)  # wait, and nothing that can run holds them
        self.gave_up = gave_up
        if isinstance(found, str):
            after = f"gave up after {BUDGET} s"
            self.gave_up = after if found == "time" else "gave up: too large a heap"


def of_tasks(own: tuple[type, ...]) -> Reach:
    """Of all live tasks that wait, now. To be called before leakguard itself refers to the futures
    and coroutines of tasks.

    own: types of leakguard's whose instances refer to tasks.
    """
    try:
        return Reach(_core.waiting_forever(own, _cancellers(), BUDGET))
    except Exception as error:  # what it calls was replaced: the report comes all the same
        return Reach(([], []), f"gave up: {error}")


def _cancellers() -> tuple[Any, ...]:
    found = [getattr(sys.modules.get(module), name, None) for module, name in _TIMEOUTS]
    # Up to 3.11 it has a task of its own for what it waits for, and cancels that.
    wait_for = getattr(sys.modules.get("asyncio.tasks"), "wait_for", None)
    found.append(getattr(wait_for, "__code__", None))
    return tuple(one for one in found if one is not None)
