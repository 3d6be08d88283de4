"""Turns a record of the core and the live object behind it into a Leak."""

from __future__ import annotations

import threading
from types import CoroutineType

from leakguard import _core, _executors, _native, _resources, _stacks
from leakguard._kinds import KINDS, known_kinds
from leakguard._report import Creator, Leak

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from types import FrameType
    from typing import Any

    from leakguard._causes import Cause, Diagnosis
    from leakguard._growth import History
    from leakguard._reach import Reach

TASK = KINDS.index("task")
THREAD = KINDS.index("thread")
NATIVE = KINDS.index("native_thread")

_STARTING, _RUNNING, _ENDED = range(3)

_PLAIN = _resources.Kind()

# Why one was left depends on all others: more than these would keep a person waiting.
_MOST_TASKS = 50_000


class Context:
    """What several descriptions made at one moment share."""

    def __init__(self) -> None:
        self._creations: dict[int, _stacks.Creation] = {}
        self._threads: dict[int, FrameType] | None = None
        self._diagnosis: Diagnosis | None = None
        self._has_failed = False
        self._creators: dict[int, Creator] = {}
        # By the core's key of a place: the stack there, and the code that the key is made of.
        self._places: dict[bytes, tuple[_stacks.Frames, object]] = {}
        self._is_crowded: bool | None = None
        self._reach: Reach | None = None
        self.now: int = _core.now()
        self.native_frames = _native.Frames()
        self.memo: dict[str, Any] = {}
        self.before: dict[int, _stacks.Frames] = {}  # by serial: where tasks were earlier on
        self.history: History | None = None  # None: the process's

    def forget_frames(self) -> None:
        """Let go of the threads' frames: they hold this object, and all locals of the program."""
        self._threads = None
        self._diagnosis = None
        self._has_failed = False
        self._places.clear()

    @property
    def is_crowded(self) -> bool:
        """Whether too many tasks live to look at each, so that no cause is found out."""
        if self._is_crowded is None:
            created, ended = _core.stats()["kinds"][TASK]
            self._is_crowded = created - ended > _MOST_TASKS
        return self._is_crowded

    def creator_of(self, resource: Resource) -> Creator | None:
        """The creator of a resource; one object for all that it has created."""
        serial: int = resource.record.creator
        if not serial:
            return None
        found = self._creators.get(serial)
        if found is None:
            found = creator_of(resource.object)
            if found is not None:
                self._creators[serial] = found
        return found

    def find_unreachable(self, resources: Iterable[Resource]) -> None:
        """Where there are tasks among these, find out which wait for ever, for `look_into`. For
        checks only that somebody asked for: the process stands still meanwhile."""
        if not self.is_crowded and any(resource.record.kind == TASK for resource in resources):
            from leakguard import _awaits, _reach

            # Another thread may be in a check of its own.
            self._reach = _reach.of_tasks((Resource, _awaits.Waiting))

    def look_into(self, resource: Resource, depth: str) -> Cause | None:
        """The cause and its facts, or with "links" the facts only; None where the program's own
        code raised, and in a crowd."""
        if self.is_crowded:
            return None
        try:
            if self._diagnosis is None and not self._has_failed:
                self._has_failed = True
                from leakguard._causes import Diagnosis

                self._diagnosis = Diagnosis(
                    self.threads, reach=self._reach, before=self.before, history=self.history
                )
            if self._diagnosis is not None:
                return self._diagnosis.of(resource, is_left=depth == "cause")
        except Exception:
            pass  # the leak is reported all the same
        return None

    def creation(self, stack: int) -> _stacks.Creation:
        found = self._creations.get(stack)
        if found is None:
            frames, inner, _ = _core.stack(stack)
            found = self._creations[stack] = _stacks.Creation(frames, inner)
        return found

    def stack_of_task(self, coroutine: Any) -> _stacks.Frames:
        """Where a task is now; one tuple for all that wait at the same place."""
        key = _core.waiting_place(coroutine)
        if key is None:
            return _stacks.of_task(coroutine, self.threads)
        known = self._places.get(key)
        if known is not None:
            return known[0]
        code = [link[1].f_code for link in _stacks.links(coroutine) if link[1] is not None]
        frames = _stacks.of_task(coroutine, {})
        if _core.waiting_place(coroutine) == key:  # else it has gone on, in another thread
            self._places[key] = frames, code
        return frames

    @property
    def threads(self) -> dict[int, FrameType]:
        """Thread ident -> innermost frame, taken at the first use."""
        if self._threads is None:
            self._threads = _stacks.current_frames()
        return self._threads


class Resource:
    """One live resource at one look: what rules and verdicts ask for, found out when asked."""

    __slots__ = (
        "_context",
        "_creation",
        "_function",
        "_info",
        "_native",
        "kind",
        "object",
        "record",
    )

    def __init__(self, record: Any, context: Context) -> None:
        self.record = record
        self.object: Any = record.object
        number: int = record.kind
        self.kind = KINDS[number] if number < len(KINDS) else known_kinds()[number]
        self._context = context
        self._info: tuple[Any, Any, str | None, int, int] | None = None
        self._function: str | None = None
        self._creation: _stacks.Creation | None = None
        self._native: _native.Info | None = None

    @property
    def serial(self) -> int:
        serial: int = self.record.serial
        return serial

    @property
    def creator(self) -> Creator | None:
        """The resource in which it was created."""
        return self._context.creator_of(self)

    @property
    def own(self) -> _resources.Kind:
        """What its kind says of it; of a task or a thread, nothing."""
        return _resources.numbered(self.record.kind) or _PLAIN

    @property
    def memo(self) -> dict[str, Any]:
        """What this look has found out, for the kinds."""
        return self._context.memo

    @property
    def info(self) -> tuple[Any, Any, str | None, int, int]:
        """Of a thread: (function, Thread or None, label, ident, state)."""
        if self._info is None:
            self._info = _core.thread_info(self.object)
        return self._info

    @property
    def thread(self) -> Any:
        return self.info[1]

    @property
    def native(self) -> _native.Info | None:
        """Of a thread: what is known of it as one of the operating system's."""
        if self._native is None:
            self._native = _native.info_of(self.object)
        return self._native

    @property
    def tid(self) -> int:
        """Of a thread: its kernel id, 0 where that is not known."""
        if self.native is not None:
            return self.native.tid
        thread = self.thread if self.record.kind == THREAD else None
        return getattr(thread, "native_id", None) or 0

    @property
    def creation(self) -> _stacks.Creation:
        if self._creation is None:
            if self.record.kind == NATIVE:
                frames = self.native.caller if self.native is not None else ()
                self._creation = _stacks.Creation(frames, len(frames))
            else:
                self._creation = self._context.creation(self.record.stack)
        return self._creation

    @property
    def coroutine(self) -> Any:
        return coroutine_of(self.object)

    @property
    def name(self) -> str:
        if self.record.kind == TASK:
            return str(self.object.get_name())
        if self.record.kind == THREAD:
            return thread_name(self.info)
        if self.record.kind == NATIVE:
            return _native.thread_name(self.tid) or "unknown"
        if self._is_foreign:
            return _core.resource_info(self.object)[0]
        return self.own.name_of(self.object)

    @property
    def function(self) -> str:
        if self._function is None:
            if self.record.kind == TASK:
                self._function = qualname(self.coroutine)
            elif self.record.kind == THREAD:
                self._function = self._thread_function()
            elif self.record.kind == NATIVE:
                routine = self.native.routine if self.native is not None else None
                self._function = "unknown" if routine is None else routine.place
            elif self._is_foreign:
                self._function = self.name
            else:
                self._function = self.own.function_of(self.object)
        return self._function

    def _thread_function(self) -> str:
        _, thread, label, _, _ = self.info
        call = None
        if label == "_worker":
            call = _executors.call_in_worker(self.current_frame())
        if call is not None:
            return qualname(call)
        if label is not None:
            return label
        return thread_function(thread)

    @property
    def made_by_loop(self) -> bool:
        """Whether no line of the program, run by the loop, created it."""
        return self.creation.site is None

    @property
    def is_main(self) -> bool:
        """Whether Runner.run made it, to run the coroutine that it was given."""
        return self.creation.made_by_run

    @property
    def _is_foreign(self) -> bool:
        """Whether another extension has registered it."""
        return bool(self.record.kind >= len(KINDS))

    def current_frame(self) -> FrameType | None:
        """Of a thread: its innermost frame now."""
        if self.record.kind == NATIVE:
            ident = self.native.ident if self.native is not None else 0
            return self._context.threads.get(ident)
        return self._context.threads.get(self.info[3])

    @property
    def site(self) -> tuple[_stacks.Frame | None, bool]:
        """The site, and whether it is a definition."""
        site = self.creation.site
        if site is not None or self.record.found:
            return site, False
        defined = self._definition()
        if defined is not None:
            return defined, True
        frames = self.creation.frames
        return (frames[-1] if frames else None), False

    def _definition(self) -> _stacks.Frame | None:
        if self.record.kind == TASK:
            return _stacks.definition(self.coroutine)
        if self.record.kind == THREAD:
            function, thread, label = self.info[:3]
            if label == "_worker":
                call = _executors.call_in_worker(self.current_frame())
                if call is not None:
                    return _stacks.definition(call)
            target = getattr(thread, "_target", None) if thread is not None else function
            return _stacks.definition(target if target is not None else type(thread).run)
        defined = self.own.definition(self.object)
        return None if defined is None else _stacks.definition(defined)

    @property
    def state(self) -> str | None:
        if self.record.kind == TASK:
            return self._task_state()
        if self.record.kind == NATIVE:
            return "running" if self.tid else "starting"
        if self._is_foreign:
            return _core.resource_info(self.object)[1]
        if self.record.kind != THREAD:
            return self.own.state(self.object)
        return "starting" if self.info[4] == _STARTING else "running"

    def _task_state(self) -> str:
        coroutine = self.coroutine
        if type(coroutine) is CoroutineType and coroutine.cr_suspended:  # nearly always
            return "waiting"
        for prefix in ("cr", "gi"):
            if not hasattr(coroutine, f"{prefix}_frame"):
                continue
            if getattr(coroutine, f"{prefix}_running"):
                return "running"
            suspended = getattr(coroutine, f"{prefix}_suspended", True)
            begun = suspended or getattr(coroutine, f"{prefix}_frame") is None
            return "waiting" if begun else "pending"
        return "waiting"

    def current(self) -> _stacks.Frames:
        """Where it is now, outermost first."""
        if self.record.kind == TASK:
            return self._context.stack_of_task(self.coroutine)
        if self.record.kind not in (THREAD, NATIVE):
            return self.own.current(self.object)
        return _stacks.of_frame(self.current_frame())

    def leak(
        self,
        *,
        state: str | None = None,
        why: str = "",
        cause: str | None = None,
        otherwise: str = "",
        also: str = "",
        depth: str = "cause",
        samples: _native.Samples | None = None,
    ) -> Leak:
        """A Leak of what is seen now.

        why, cause: in the place of those that are found out, if given.
        otherwise: why, if nothing is found out.
        also: a sentence that stands before the other.
        depth: how much of it: "cause" for all; "links" without a cause, for what is no leak;
            "name" without the await graph either, for rules.
        """
        try:
            return self._whole_leak(state, why, cause, otherwise, also, depth, samples)
        except Exception as error:
            # A property of the program's own class raised: the leak is reported all the same.
            return self._bare_leak(error)

    def _bare_leak(self, error: Exception) -> Leak:
        creation = self.creation
        return Leak(
            kind=self.kind,
            serial=self.serial,
            name=None,
            function=type(self.object).__qualname__,
            state=None,
            age=max(0.0, (self._context.now - self.record.born) / 1e9),
            creation=creation.frames,
            site=creation.site,
            why=f"it could not be described: {type(error).__name__} in the program's own code",
        )

    def _thread_facts(self) -> dict[str, Any]:
        """Of a thread: what the kernel says, and of a native one what it runs."""
        facts = _native.kernel_facts(self.tid) if self.tid else {}
        routine = self.native.routine if self.native is not None else None
        if self.record.kind == NATIVE and routine is not None:
            facts["start_routine"] = routine.place
            facts["module"] = routine.module
        return facts

    def _whole_leak(
        self,
        state: str | None,
        why: str,
        cause: str | None,
        otherwise: str,
        also: str,
        depth: str,
        samples: _native.Samples | None,
    ) -> Leak:
        site, is_definition = self.site
        native = current = facts = None
        if self.record.kind in (THREAD, NATIVE):
            frames = self._context.native_frames
            if self.native is not None and self.native.addresses:
                native = frames.stack(self.native.addresses)
            here = samples.stack(self.tid) if samples is not None else None
            current = None if here is None else frames.stack(here)
            facts = self._thread_facts()
            refusal = samples.refusal(self.tid) if samples is not None else None
            if refusal is not None:
                facts["unanswered"] = refusal
        elif self.record.kind != TASK:
            facts = self.own.facts(self.object)
            cause = self.own.cause(self.object) if why else None
        has_causes = self.record.kind in (TASK, THREAD) and depth != "name"
        found = self._context.look_into(self, depth) if has_causes else None
        if found is not None:
            cause, why = cause or found.word, why or found.why
            if found.word == "accumulating":
                also = ""  # it says the same, of more calls
            facts = {**(facts or {}), **found.facts} or None
        return Leak(
            kind=self.kind,
            serial=self.serial,
            name=self.name,
            function=self.function,
            state=state or self.state,
            age=max(0.0, (self._context.now - self.record.born) / 1e9),
            creation=self.creation.frames,
            current=self.current(),
            native=native,
            current_native=current,
            facts=facts,
            site=site,
            site_is_definition=is_definition,
            creator=self.creator,
            cause=cause,
            why="; ".join(filter(None, (also, why or otherwise))),
        )


def coroutine_of(task: Any) -> Any:
    """A task's coroutine, None where it has let go of it.

    Not get_coro(): early 3.12 releases crash there once an eager task has ended.
    """
    return getattr(task, "_coro", None)


def qualname(callable_: Any) -> str:
    """The __qualname__ of what is run (of a partial: what it wraps), else its type's name."""
    return _core.function_name(callable_)


def thread_name(info: tuple[Any, Any, str | None, int, int]) -> str:
    """A Thread's name; for a raw thread one made of its ident."""
    thread = info[1]
    return str(thread.name) if thread is not None else f"raw-thread-{info[3]}"


def thread_function(thread: Any) -> str:
    """What a Thread runs: its overridden run, else its target, else its class."""
    if thread is None:
        return "unknown"
    if type(thread).run is not threading.Thread.run:
        return qualname(type(thread).run)
    target = getattr(thread, "_target", None)
    return qualname(target) if target is not None else type(thread).__qualname__


def creator_of(resource: Any) -> Creator | None:
    """The creator of a recorded object, also where it has ended."""
    return creator_from(_core.creator(resource))


def creator_from(
    raw: tuple[int, int, Any, str | None, str | None, str | None] | None,
) -> Creator | None:
    """The creator that the core tells of in this way."""
    if raw is None:
        return None
    kind, serial, living, name, function, ended = raw
    if living is not None:
        lost, (name, function, ended) = function, _living_creator(kind, living)
        function = lost or function
    return Creator(known_kinds()[kind], serial, name, function or "unknown", ended)


def _living_creator(kind: int, living: Any) -> tuple[str, str, str | None]:
    if kind == TASK:
        return str(living.get_name()), qualname(coroutine_of(living)), how_ended(living)
    if kind == THREAD:
        info = _core.thread_info(living)
        return thread_name(info), info[2] or thread_function(info[1]), None
    return type(living).__name__, type(living).__qualname__, None


def how_ended(task: Any) -> str | None:
    """returned, cancelled, raised; None while it lives.

    `_exception` is read: exception() would mark it as retrieved.
    """
    if not task.done():
        return None
    if task.cancelled():
        return "cancelled"
    return "raised" if getattr(task, "_exception", None) is not None else "returned"
