"""The causes of what is left of threads: a test for each, and their order."""

from __future__ import annotations

from leakguard import _executors, _stacks
from leakguard._describe import qualname
from leakguard._text import frame_text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType
    from typing import Any

    from leakguard._causes import Diagnosis
    from leakguard._describe import Resource

    Facts = dict[str, Any]


class Left:
    """A thread that was left, and what the tests ask of it."""

    __slots__ = ("diagnosis", "facts", "resource")

    def __init__(self, diagnosis: Diagnosis, resource: Resource) -> None:
        self.diagnosis = diagnosis
        self.resource = resource
        self.facts: Facts = {}


def call_facts(thread: str, frame: FrameType) -> Facts:
    """Of a pool's thread that runs a call: which thread, which call, where it is now."""
    stack = _stacks.of_frame(frame)
    return {
        "thread": thread,
        "function": qualname(_executors.call_in_worker(frame)),
        "at": frame_text(_stacks.innermost_own(stack) or stack[-1]),
    }


def _has_lost_executor(left: Left) -> str | None:
    charge = _executors.charge_of(left.resource.object, left.resource.thread)
    if charge is None:
        return None
    executor = charge.executor
    if executor is None:
        return "its executor was collected"
    if _executors.is_shut_down(executor) or _executors.default_of_live_loop(executor):
        return None
    return "its executor was never shut down"


def _is_call_stuck(left: Left) -> str | None:
    frame = left.resource.current_frame()
    if frame is None or _executors.call_in_worker(frame) is None:
        return None
    found = left.facts["executor"] = call_facts(left.resource.name, frame)
    return f"nothing can cancel its call of {found['function']}, now at {found['at']}"


def _holds_exit(left: Left) -> str | None:
    thread = left.resource.thread
    if thread is None or thread.daemon:
        return None
    return "it is not a daemon: Python waits for it before it exits"


def is_accumulating(left: Any) -> str | None:
    """Of a task or a thread: whether its site grew at each of the last checkpoints."""
    numbers = left.diagnosis.growth(left.resource)
    if numbers is None:
        return None
    left.facts["growth"] = numbers
    return f"there are more at each checkpoint: {' → '.join(map(str, numbers))}"


TESTS: tuple[tuple[str, Callable[[Left], str | None]], ...] = (
    ("executor-not-shut-down", _has_lost_executor),
    ("blocked-in-executor", _is_call_stuck),
    ("held-exit", _holds_exit),
    ("accumulating", is_accumulating),
)
