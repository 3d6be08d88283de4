"""Why what was left is still there: one word, one sentence, and the facts behind them.

Worked out at a check, from the live objects and the creator links, for what a check reports. Where
several causes apply, the first in the table of tests, which tells most about the fault, is the
cause; `facts["causes"]` has them all, in that order.
"""

from __future__ import annotations

import sys

from leakguard import _awaits, _core, _executors, _growth, _stacks, _task_causes, _thread_causes
from leakguard._deadlocks import Deadlocks
from leakguard._describe import TASK, THREAD, coroutine_of, qualname

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from types import FrameType
    from typing import Any

    from leakguard._awaits import Waiting
    from leakguard._core import Record
    from leakguard._describe import Resource
    from leakguard._growth import History
    from leakguard._reach import Reach

    Facts = dict[str, Any]

_MOST_LISTED = 20  # tasks, in a fact


class Cause:
    """What is known of one resource: `word`, `why` and `facts`, as a Leak has them."""

    __slots__ = ("facts", "why", "word")

    def __init__(self, facts: Facts, found: list[tuple[str, str]] | None = None) -> None:
        """found: the causes that apply, the first of most weight; None for what is no leak."""
        self.word: str | None = None
        self.why = ""
        self.facts = facts
        if found is not None:
            self.word, self.why = found[0]
            facts["causes"] = [word for word, _ in found]


class Diagnosis:
    """Looks at all live tasks once, and then at each resource that is asked about."""

    def __init__(
        self,
        threads: dict[int, FrameType],
        *,
        reach: Reach | None = None,
        before: dict[int, _stacks.Frames] | None = None,
        history: History | None = None,
    ) -> None:
        """threads: sys._current_frames().
        reach: which tasks wait for ever, as found out before; None where nobody has looked.
        before: by serial, where tasks were at an earlier look.
        history: the counts that the check compares, None for those of all checkpoints.
        """
        self.threads = threads
        self.reach = reach
        self.before = before or {}
        self._history = history
        self._counts: dict[Any, int] | None = None
        self._waits: dict[int, Waiting] = {}
        # By the id of a task. Records, since references to tasks are counted.
        self._records: dict[int, Record] = {}
        self._awaited_by: dict[int, list[Record]] = {}
        self._stacks: dict[int, _stacks.Frames] = {}
        self._deadlocks: Deadlocks | None = None
        self._calls: dict[int, tuple[int, FrameType]] | None = None
        self._queued: set[int] | None = None
        for record in _core.live(0, 1 << TASK):
            key = id(record.object)
            self._records[key] = record
            waiting = self._waits[key] = _waiting_of(record.object)
            for awaited in waiting.tasks:
                self._awaited_by.setdefault(id(awaited), []).append(record)

    def of(self, resource: Resource, *, is_left: bool = True) -> Cause | None:
        """The cause, and the await graph there; None for a kind that has neither.

        is_left: False where it is no leak, so that there is no cause to be found.
        """
        kind = resource.record.kind
        if kind == TASK:
            held = sys.getrefcount(resource.object) - _OWN_REFERENCES
            links = self._links(resource)
            if not is_left:
                return Cause(links)
            task = _task_causes.Left(self, resource, held)
            found = _apply(_task_causes.TESTS, task)
            return Cause({**links, **task.facts}, found)
        if kind == THREAD and is_left:
            thread = _thread_causes.Left(self, resource)
            return Cause(thread.facts, _apply(_thread_causes.TESTS, thread))
        return None

    def waiting(self, task: Any) -> Waiting:
        """What a task waits for."""
        return self._waits.get(id(task)) or _waiting_of(task)

    def awaited_by(self, task: Any) -> list[Record]:
        """The tasks that wait for this one."""
        return self._awaited_by.get(id(task), [])

    @property
    def deadlocks(self) -> Deadlocks:
        """Of all live tasks."""
        if self._deadlocks is None:
            self._deadlocks = Deadlocks(self._records, self._waits)
        return self._deadlocks

    def _links(self, resource: Resource) -> Facts:
        """The edges of the await graph at a task, as facts."""
        waiting = self.waiting(resource.object)
        facts: Facts = {}
        if waiting.tasks:
            facts["awaits"] = [self._node(task) for task in waiting.tasks[:_MOST_LISTED]]
        if waiting.how:
            facts["awaits_by"] = list(dict.fromkeys(waiting.how))
        if waiting.place is not None:
            facts["waits_in"] = waiting.place
        holders = [] if waiting.lock is None else self.deadlocks.holders(waiting.lock)
        if holders:
            facts["lock_held_by"] = self.nodes(holders)
        awaited_by = self.awaited_by(resource.object)
        if awaited_by:
            facts["awaited_by"] = self.nodes(awaited_by)
        return facts

    def nodes(self, records: Sequence[Record]) -> list[Facts]:
        """Tasks as nodes of the graph, as many as facts list."""
        return [self._node(record.object) for record in records[:_MOST_LISTED]]

    def _node(self, task: Any) -> Facts:
        record = self._records.get(id(task))
        serial = _awaits.serial_of(task) if record is None else record.serial
        function = qualname(coroutine_of(task))
        return {"serial": serial, "name": str(task.get_name()), "function": function}

    def growth(self, resource: Resource) -> list[int] | None:
        """How many of its site lived at the last checkpoints, where they grow."""
        site, is_definition = resource.site
        if site is None or is_definition:
            return None
        if self._history is not None:
            return self._history.growth(resource.kind, site, None)
        if self._counts is None:
            self._counts = _growth.counts()
        now = self._counts.get((resource.kind, site), 0)
        return _growth.process.growth(resource.kind, site, now)

    def stack_of_creator(self, resource: Any) -> _stacks.Frames:
        """Where the task that created this one is now; empty where it has ended, or is none."""
        raw = _core.creator(resource)
        living = None if raw is None or raw[0] != TASK else raw[2]
        if living is None:
            return ()
        key = id(living)
        if key not in self._stacks:
            self._stacks[key] = _stacks.of_task(coroutine_of(living), self.threads)
        return self._stacks[key]

    def call_of(self, source: Any) -> tuple[int, FrameType] | None:
        """The thread (its ident, its innermost frame) of a pool that runs the call behind a
        concurrent.futures.Future."""
        if self._calls is None:
            self._calls = {}
            for ident, frame in self.threads.items():
                future = _executors.future_in_worker(frame)
                if future is not None:
                    self._calls[id(future)] = ident, frame
        return self._calls.get(id(source))

    def is_queued(self, source: Any) -> bool:
        """Whether an executor has this future's call, but no thread of this process runs it."""
        if self._queued is None:
            names = ("concurrent.futures.thread", "concurrent.futures.process")
            kinds = tuple(
                module._WorkItem for name in names if (module := sys.modules.get(name)) is not None
            )
            # Another thread may be between the birth of an item and its first attribute.
            items = _core.instances(kinds)
            self._queued = {id(getattr(item, "future", None)) for item in items}
        return id(source) in self._queued


def _waiting_of(task: Any) -> Waiting:
    try:
        return _awaits.Waiting(task)
    except Exception:
        return _awaits.Waiting(None)  # a class of the program's that has its own idea


def _apply(tests: Iterable[tuple[str, Any]], left: Any) -> list[tuple[str, str]]:
    """What applies, of tests in the order of their weight: (word, sentence)."""
    found = [(word, why) for word, test in tests if (why := test(left)) is not None]
    return found or [("still-running", "")]


class _Holder:
    """Holds one object in one attribute."""

    __slots__ = ("object",)

    def __init__(self) -> None:
        self.object = object()


_holder = _Holder()
# Of a task that is asked about: its Resource's, its two records', and what asking itself adds.
_OWN_REFERENCES = sys.getrefcount(_holder.object) + 2
