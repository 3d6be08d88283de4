"""The causes of what is left of tasks: a test for each, and their order."""

from __future__ import annotations

import gc
import sys
import threading

from leakguard import _awaits, _stacks
from leakguard._describe import coroutine_of
from leakguard._text import frame_text
from leakguard._thread_causes import call_facts, is_accumulating

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from leakguard._awaits import Waiting
    from leakguard._causes import Diagnosis
    from leakguard._describe import Resource
    from leakguard._report import Creator

    Facts = dict[str, Any]

_MOST_NAMED = 4  # in a sentence
_MOST_LISTED = 20  # in facts


class Left:
    """A task that was left, and what the tests ask of it."""

    __slots__ = ("cancellation", "creator", "diagnosis", "facts", "held", "resource", "waiting")

    def __init__(self, diagnosis: Diagnosis, resource: Resource, held: int) -> None:
        """held: how many references there are to the task besides leakguard's own."""
        self.diagnosis = diagnosis
        self.resource = resource
        self.held = held
        self.facts: Facts = {}
        self.creator: Creator | None = resource.creator
        self.waiting: Waiting = diagnosis.waiting(resource.object)
        self.cancellation = _after_cancellation(resource.object, self.facts)

    @property
    def is_awaited(self) -> bool:
        """Whether a task waits for it."""
        return bool(self.diagnosis.awaited_by(self.resource.object))

    @property
    def is_unheld(self) -> bool:
        """Whether it is known that only itself, and tasks that wait for ever, lead to it."""
        reach = self.diagnosis.reach
        return reach is not None and self.resource.serial in reach.unheld


def _is_loop_closed(left: Left) -> str | None:
    return "its loop is closed" if _has_closed_loop(left.resource.object) else None


def _is_deadlocked(left: Left) -> str | None:
    deadlocks = left.diagnosis.deadlocks
    length, steps = deadlocks.cycle(left.resource.object, _MOST_LISTED)
    if not steps:
        return None
    left.facts["cycle"] = left.diagnosis.nodes([record for record, _ in steps])
    named = steps[: _MOST_NAMED - 1] if length > _MOST_NAMED else steps
    names = [f"task {str(record.object.get_name())!r}" for record, _ in named]
    after = [*names[1:], names[0] if length > 1 else "itself"]
    if length > len(named):
        after[-1] = f"{length - len(named)} more, and the last of them for {names[0]}"
    parts = []
    for (_, lock), name, other in zip(named, names, after, strict=True):
        what = "" if lock is None else f"a {type(lock).__name__} held by "
        parts.append(f"{name} waits for {what}{other}")
    return f"deadlock: {', '.join(parts)}"


def _waits_for_ever(left: Left) -> str | None:
    reach = left.diagnosis.reach
    if reach is None:
        return None
    if reach.gave_up:
        left.facts["reachability"] = reach.gave_up
    if left.resource.serial not in reach.forever:
        return None
    return "it waits for ever: nothing that can still run has a way to what it waits for"


def _is_blocked_in_executor(left: Left) -> str | None:
    for leaf in left.waiting.leaves:
        source = _awaits.source_of(leaf)
        if source is None or source.done():
            continue
        call = left.diagnosis.call_of(source)
        if call is not None:
            ident, frame = call
            found = left.facts["executor"] = call_facts(_name_of_thread(ident), frame)
            return (
                f"it waits for {found['function']} in thread {found['thread']!r}, "
                f"now at {found['at']}"
            )
        if left.diagnosis.is_queued(source):
            left.facts["executor"] = {"queued": not source.running()}
            if source.running():
                return "it waits for a call in a process of an executor"
            return "it waits for a call that its executor has not begun: all its workers are busy"
    return None


def _has_swallowed_cancel(left: Left) -> str | None:
    found = left.cancellation
    return found[1] if found is not None and found[0] == "swallowed-cancel" else None


def _is_winding_down(left: Left) -> str | None:
    found = left.cancellation
    return found[1] if found is not None and found[0] == "winding-down" else None


def _is_moving(left: Left) -> str | None:
    """Whether it has come further since an earlier look: to a later line, and round no loop."""
    before = left.diagnosis.before.get(left.resource.serial)
    if before is None or left.cancellation is not None:
        return None
    passed: list[tuple[str, int, int]] = []
    for earlier, now in zip(before, left.resource.current(), strict=False):
        file, line, function = now
        passed.append((file, earlier[1], line))
        if earlier == now:
            continue
        if (file, function) != (earlier[0], earlier[2]) or line < earlier[1]:
            return None
        from leakguard import _source

        if any(_source.is_in_one_loop(*lines) for lines in passed):
            return None
        return f"it was still going on: at line {earlier[1]}, then at {frame_text(now)}"
    return None


def _has_survived_sibling(left: Left) -> str | None:
    task = left.resource.object
    if left.is_awaited:
        return None
    outer = _awaits.callback_cell(task, "_done_callback", "outer")
    if _awaits.is_future(outer):
        return _survived_gather(outer) if outer.done() else None
    return _survived_wait(left)


def _survived_gather(outer: Any) -> str:
    if outer.cancelled():
        ended = "was cancelled"
    elif getattr(outer, "_exception", None) is not None:
        ended = f"ended by {type(outer._exception).__name__}"
    else:
        ended = "ended"
    return f"the gather() that it was given to {ended}, and left it running"


def _survived_wait(left: Left) -> str | None:
    """A wait leaves no trace on a task: the source tells that its creator gives it to one that can
    end early, and the creator's stack whether that is over."""
    site, is_definition = left.resource.site
    creator = left.creator
    if site is None or is_definition or creator is None or creator.ended == "cancelled":
        return None
    from leakguard import _source

    file, line, _ = site
    found = _source.early_wait(file, line)
    if found is None:
        return None
    name, first, last = found
    for frame_file, frame_line, _ in left.diagnosis.stack_of_creator(left.resource.object):
        if frame_file == file and line <= frame_line <= last:
            return None  # it is on its way there, or in it
    left.facts["wait"] = {"file": file, "line": first}
    where = frame_text((file, first, site[2]))
    return f"the {name}() at {where} ended, and left it running"


def _has_cancelled_parent(left: Left) -> str | None:
    creator = left.creator
    if creator is None or creator.ended != "cancelled" or left.is_awaited:
        return None
    return f"its creator, {_creator_text(creator)}, was cancelled and left it running"


def _is_orphaned(left: Left) -> str | None:
    creator = left.creator
    if creator is None or creator.ended is None or creator.kind != "task" or left.is_awaited:
        return None
    if not left.is_unheld and left.held > _held_by_asyncio(left.waiting, left.resource.object):
        return None
    ended = {"returned": "has ended", "raised": "has failed"}.get(creator.ended, "was cancelled")
    return f"its creator, {_creator_text(creator)}, {ended}, and nobody holds or awaits it"


def _creator_text(creator: Creator) -> str:
    return f"{creator.kind} {creator.name!r} ({creator.function})"


def _held_by_asyncio(waiting: Waiting, task: Any) -> int:
    """How many references to a task the loop has, and those from its own coroutines."""
    future = getattr(task, "_fut_waiter", None)
    count = 1  # the step that is to be run next
    if future is not None:
        callbacks = getattr(future, "_callbacks", None) or ()
        count = sum(getattr(entry[0], "__self__", None) is task for entry in callbacks)
    awaited = {id(one): one for one in (future, *waiting.tasks, *waiting.leaves)}
    for one in awaited.values():
        count += task in (getattr(one, "_asyncio_awaited_by", None) or ())
    for link, _, _ in _stacks.links(coroutine_of(task)):
        count += sum(found is task for found in gc.get_referents(link))
    for block in _awaits.blocks_of(task):
        if type(block).__module__.startswith("asyncio."):
            count += sum(found is task for found in gc.get_referents(block))
    return count


def _has_closed_loop(task: Any) -> bool:
    try:
        return bool(task.get_loop().is_closed())
    except Exception:
        return False  # a subclass of the program's that has its own idea


def _after_cancellation(task: Any, facts: Facts) -> tuple[str, str] | None:
    """Of a cancelled task that lives: it cleans up, or has caught the CancelledError."""
    cancelling = getattr(task, "cancelling", None)
    if cancelling is None or not cancelling():
        return None
    future = getattr(task, "_fut_waiter", None)
    if getattr(task, "_must_cancel", False) or (future is not None and future.cancelled()):
        return "winding-down", "it was cancelled, and has not run since"
    from leakguard import _source

    links = [
        (link, frame.f_code, frame.f_lineno or frame.f_code.co_firstlineno)
        for link, frame, _ in _stacks.links(coroutine_of(task))
        if frame is not None
    ]
    for link, code, line in reversed(links):
        if _handles_cancellation(link):
            if _source.is_cleaning_up(code, line):
                where = facts["handler"] = frame_text((code.co_filename, line, code.co_qualname))
                return "winding-down", f"it was cancelled, and cleans up at {where}"
            break
    for _, code, _ in reversed(links):
        caught = None if _awaits.is_asyncio(code) else _source.swallowing_line(code)
        if caught is not None:
            where = facts["handler"] = frame_text((code.co_filename, caught, code.co_qualname))
            return "swallowed-cancel", f"it was cancelled, and caught that at {where}"
    return "swallowed-cancel", "it was cancelled, and a call in it caught that"


def _handles_cancellation(coroutine: Any) -> bool:
    """Whether a CancelledError is being handled in this frame: then it lies on its stack."""
    exceptions = sys.modules.get("asyncio.exceptions")
    error = getattr(exceptions, "CancelledError", ())
    return any(isinstance(found, error) for found in gc.get_referents(coroutine))


def _name_of_thread(ident: int) -> str:
    for thread in threading.enumerate():
        if thread.ident == ident:
            return str(thread.name)
    return f"raw-thread-{ident}"


TESTS: tuple[tuple[str, Callable[[Left], str | None]], ...] = (
    ("loop-closed", _is_loop_closed),
    ("deadlock", _is_deadlocked),
    ("waiting-forever", _waits_for_ever),
    ("blocked-in-executor", _is_blocked_in_executor),
    ("swallowed-cancel", _has_swallowed_cancel),
    ("winding-down", _is_winding_down),
    ("sibling-survived", _has_survived_sibling),
    ("cancelled-parent", _has_cancelled_parent),
    ("accumulating", is_accumulating),
    ("winding-down", _is_moving),
    ("orphaned", _is_orphaned),
)
