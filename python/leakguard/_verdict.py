"""Decides what is a leak: the one place where a fact becomes a verdict."""

from __future__ import annotations

import threading

from leakguard import _builtin, _core, _describe, _executors, _ledger, _native, _resources, _scope
from leakguard._describe import NATIVE, TASK, THREAD, Resource
from leakguard._tracking import is_alive as is_thread_alive
from leakguard._tracking import mask_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from typing import Any

    from leakguard._report import Leak
    from leakguard._rules import IgnoreRule
    from leakguard._stacks import Frames


_MOST_PLACES = 1000


class Question:
    """What a check asks: which resources, since when, and what may be hidden."""

    __slots__ = (
        "ancestor",
        "asker",
        "found",
        "is_narrow",
        "kinds",
        "outside",
        "pools_since",
        "rules",
        "scope",
        "since",
    )

    def __init__(
        self,
        *,
        since: int,
        kinds: Sequence[str],
        rules: Sequence[IgnoreRule] = (),
        scope: int = 0,
        outside: Iterable[int] = (),
        ancestor: int = 0,
        asker: object = None,
        pools_since: int | None = None,
        found: bool = False,
    ) -> None:
        self.since = since
        self.found = found  # also what was there before tracking began
        self.pools_since = since if pools_since is None else pools_since
        self.kinds = tuple(kinds)
        self.rules = tuple(rules)
        # Both 0: the whole process. Else only what was created in this block, or by this one.
        self.scope = scope
        self.outside = tuple(outside)  # nor what was created in one of these blocks
        self.ancestor = ancestor
        self.asker = asker  # None: a look that is not put off by what others have reported
        self.is_narrow = bool(scope or self.outside or ancestor)  # not the whole process


class Found:
    """What one look saw."""

    __slots__ = ("abandoned", "context", "growth", "hidden", "resources", "whys")

    def __init__(self, context: _describe.Context) -> None:
        self.context = context
        self.resources: list[Resource] = []
        self.whys: dict[int, str] = {}
        self.growth: dict[int, str] = {}  # by serial: that its site has more than before
        self.abandoned: list[Leak] = []
        self.hidden: dict[IgnoreRule, int] = {}

    @property
    def can_change(self) -> bool:
        """Whether waiting could end any of it."""
        return any(can_end(resource) for resource in self.resources)

    def places(self) -> dict[int, Frames]:
        """Where tasks are at this look, of not too many, by serial."""
        tasks = [one for one in self.resources if one.record.kind == TASK]
        try:
            return {one.serial: one.current() for one in tasks[:_MOST_PLACES]}
        except Exception:
            return {}  # a property of the program's own class raised
        finally:
            self.context.forget_frames()

    @property
    def notes(self) -> tuple[str, ...]:
        """What limits the description of what was found."""
        if any(one.record.kind == TASK for one in self.resources) and self.context.is_crowded:
            return ("so many tasks are alive that it was not worked out why each was left",)
        return ()

    def leaks(self) -> list[Leak]:
        try:
            self.context.find_unreachable(self.resources)
            samples = sample(self.resources)
            leaks = [
                resource.leak(
                    why=self.whys.get(resource.serial, ""),
                    also=self.growth.get(resource.serial, ""),
                    samples=samples,
                )
                for resource in self.resources
            ]
        finally:
            self.context.forget_frames()
        if not self.abandoned:
            return leaks  # in order of birth, as the core tells them
        return sorted([*self.abandoned, *leaks], key=lambda leak: leak.serial)


def sample(resources: Iterable[Resource]) -> _native.Samples | None:
    """Where the threads among these are now, in C. It interrupts them: for checks only that
    somebody asked for."""
    threads = [resource for resource in resources if resource.record.kind in (THREAD, NATIVE)]
    if not threads:
        return None
    return _native.Samples.of([(resource.tid, resource.native) for resource in threads])


def look(question: Question) -> Found:
    """One look: everything that is a leak if it stays."""
    found = Found(_describe.Context())
    try:
        return _look(question, found)
    finally:
        found.context.forget_frames()


def _look(question: Question, found: Found) -> Found:
    context = found.context
    _look_at_abandoned(question, found)
    if _core.newest_live() <= question.since:
        return found
    exempt = {*_core.line(None), *(leak.serial for leak in found.abandoned)}
    for record in _core.live(question.since, mask_of(question.kinds)):
        if (record.found and not question.found) or record.serial in exempt:
            continue
        if question.is_narrow and not in_scope(question, record.scope, record.object):
            continue
        if _ledger.is_reported(record.serial, question.asker):
            continue
        resource = Resource(record, context)
        try:
            why = why_left(resource, question.pools_since)
            if why is None or _builtin.matching(resource) is not None:
                continue
        except Exception:
            # A property of the program's own class raised: what cannot be judged is no less left.
            why = ""
        if not _hide(question, found, resource):
            found.resources.append(resource)
            if why:
                found.whys[resource.serial] = why
    return found


def everything(kinds: Sequence[str], *, native: bool = False) -> list[Leak]:
    """All that lives, leaks or not.

    native: also where each thread is in C, which interrupts it.
    """
    context = _describe.Context()
    try:
        found = [Resource(record, context) for record in _core.live(0, mask_of(kinds))]
        living = [it for it in found if is_live(it)]
        samples = sample(living) if native else None
        return [resource.leak(samples=samples, depth="links") for resource in living]
    finally:
        context.forget_frames()


def finished_tasks() -> list[Leak]:
    """The tasks that have ended, by themselves or not, and that something still holds."""
    context = _describe.Context()
    try:
        found = _core.live(0, 1 << TASK, True)
        return [Resource(record, context).leak(state="done", depth="name") for record in found]
    finally:
        context.forget_frames()


def stranded_tasks(since: int) -> list[Leak]:
    """At shutdown: tasks of loops that run nowhere any more, and that nothing has closed."""
    context = _describe.Context()
    try:
        return [
            resource.leak(why=why, otherwise="its loop does not run any more")
            for resource, why in _left(since, TASK, context)
            if not can_move(resource)
        ]
    finally:
        context.forget_frames()


def left_at_exit(since: int, kinds: Sequence[str], *, late: bool = False) -> list[Leak]:
    """At shutdown: what nobody ends any more, of the kinds beyond tasks and threads.

    late: what is left once all exit callbacks have run, instead.
    """
    context = _describe.Context()
    chosen = [kind for kind in map(_resources.named, kinds) if kind is not None]
    left = []
    for kind in chosen:
        is_now = kind.left_after_exit if late else kind.left_at_exit
        for resource, _ in _left(since, kind.number, context) if is_now else ():
            try:
                if is_left(resource) and not kind.runs(resource.object):
                    left.append(resource.leak(why=kind.why(resource.object)))
            except Exception:
                continue  # a property of the program's own class raised
    return left


def holding_exit(since: int, joined: threading.Thread | None = None) -> list[Leak]:
    """At shutdown: the threads that Python waits for before it exits. An idle worker of a pool is
    none: Python stops it.

    joined: the thread that an exit callback joins now: Python waits for that one, or for pools.
    """
    context = _describe.Context()
    try:
        return [
            resource.leak(
                cause="held-exit", why="it is not a daemon: Python waits for it before it exits"
            )
            for resource, _ in _left(since, THREAD, context)
            if _is_joined(resource)
            and (
                joined is None
                or resource.thread is joined
                or _executors.charge_of(resource.object, resource.thread) is not None
            )
        ]
    finally:
        context.forget_frames()


def holding_loop(since: int, upto: int, loop: Any) -> list[Leak]:
    """At the end of a loop: the tasks that have not let themselves be cancelled, and the calls in
    its default executor.

    upto: the newest serial when that end began: what is younger belongs to the end itself.
    """
    context = _describe.Context()
    held = []
    try:
        for resource, _ in _left(since, TASK, context):
            if resource.serial <= upto and loop_of(resource.object) is loop:
                held.append(
                    resource.leak(otherwise="it was cancelled, and the end of its loop waits")
                )
        for resource, _ in _left(since, THREAD, context):
            run, thread = resource.object, resource.thread
            if _executors.is_busy_for(loop, run, thread, resource.current_frame):
                why = "nothing can cancel a call in a thread: the end of the loop waits for it"
                held.append(resource.leak(why=why))
        return held
    finally:
        context.forget_frames()


def alive_at_exit(since: int, *, at_once: bool = False) -> list[Leak]:
    """What lives on when a process ends: neither the code that runs here, nor the main thread, nor
    known infrastructure, nor an idle worker of a running loop's default executor.

    at_once: no exit callback runs any more, so what these could still end is left, too.
    """
    context = _describe.Context()
    try:
        kinds = [TASK, THREAD, NATIVE, *_resources.left_at_exit()]
        if at_once:
            kinds += _resources.left_after_exit()
        found = [pair[0] for kind in kinds for pair in _left(since, kind, context)]
        return [resource.leak() for resource in found if why_left(resource, since) is not None]
    finally:
        context.forget_frames()


def _is_joined(resource: Resource) -> bool:
    """Whether Python waits for this thread at exit."""
    thread = resource.thread
    return thread is not None and not thread._daemonic and not is_idle(resource)


def _left(since: int, kind: int, context: _describe.Context) -> Iterator[tuple[Resource, str]]:
    line = set(_core.line(None))
    for record in _core.live(since, 1 << kind):
        if record.found or record.serial in line or _ledger.is_abandoned(record.serial):
            continue
        resource = Resource(record, context)
        if kind == THREAD and (
            resource.thread is threading.main_thread() or not is_alive(resource)
        ):
            continue
        if _builtin.matching(resource) is None:
            yield resource, _why_task(resource) if kind == TASK else ""


def is_idle(resource: Resource) -> bool:
    """Whether a thread is a thread pool's worker that runs no call."""
    return _executors.is_idle_worker(resource.thread, resource.current_frame())


def in_scope(question: Question, scope: int, resource: object) -> bool:
    """Whether what a question asks for includes this."""
    if not _is_in_blocks(question, scope):
        return False
    return not question.ancestor or question.ancestor in _core.line(resource)


def _is_in_blocks(question: Question, scope: int) -> bool:
    if question.scope and not _scope.contains(question.scope, scope):
        return False
    if not question.outside:
        return True
    return not any(_scope.contains(outer, scope) for outer in question.outside)


def _look_at_abandoned(question: Question, found: Found) -> None:
    for entry in _ledger.since(question.since):
        if entry.leak.kind not in question.kinds or not _is_in_blocks(question, entry.scope):
            continue
        if question.ancestor and question.ancestor not in entry.line:
            continue
        if _ledger.is_reported(entry.leak.serial, question.asker):
            continue
        if not _hide(question, found, entry.leak):
            found.abandoned.append(entry.leak)


def _hide(question: Question, found: Found, leak: Leak | Resource) -> bool:
    """Whether an ignore rule hides this (a Leak or a Resource); counts it if so."""
    if not question.rules:
        return False
    subject = leak.leak(depth="name") if isinstance(leak, Resource) else leak
    for rule in question.rules:
        if rule.matches(subject):
            found.hidden[rule] = found.hidden.get(rule, 0) + 1
            return True
    return False


def why_left(resource: Resource, since: int) -> str | None:
    """None where this is no leak; else why it was left, which may be empty."""
    if resource.record.kind == TASK:
        return _why_task(resource)
    if resource.record.kind == THREAD:
        return _why_thread(resource, since)
    return resource.own.why_left(resource.object, since) if is_left(resource) else None


def is_left(resource: Resource) -> bool:
    """Whether a resource of a kind beyond tasks and threads is one that nobody has ended, and that
    belongs to nothing else."""
    kind, subject = resource.own, resource.object
    if not (kind.is_live(subject) and kind.is_left(subject)):
        return False
    return _builtin.matching(resource) is None and not kind.is_held(subject, resource.memo)


def _why_task(resource: Resource) -> str:
    loop = loop_of(resource.object)
    return "its loop is closed" if loop is not None and loop.is_closed() else ""


def _why_thread(resource: Resource, since: int) -> str | None:
    thread = resource.thread
    if thread is threading.main_thread() or not is_alive(resource):
        return None
    charge = _executors.charge_of(resource.object, thread)
    return "" if charge is None else _why_pool_thread(resource, charge, since)


def is_live(resource: Resource) -> bool:
    """Whether it has not ended, in the sense of its kind."""
    if resource.record.kind == THREAD:
        return is_alive(resource)
    try:
        return resource.own.is_live(resource.object)
    except Exception:
        return True  # a property of the program's own class raised


def is_alive(resource: Resource) -> bool:
    """Whether a thread has not ended. While it is starting, is_alive() is not yet true."""
    thread = resource.thread
    return thread is None or resource.state == "starting" or is_thread_alive(thread)


def _why_pool_thread(resource: Resource, charge: _executors.Charge, since: int) -> str | None:
    executor = charge.executor
    if _executors.is_usable(executor) and _executors.default_of_live_loop(executor):
        # Nothing can cancel a call in a thread; an idle worker waits for the next one.
        frame = resource.current_frame()
        return "" if _executors.call_in_worker(frame) is not None else None
    return _executors.why_left(charge, since)


def loop_of(task: Any) -> Any:
    """A task's loop; None where it does not say."""
    try:
        return task.get_loop()
    except Exception:
        # A subclass of the program's that has its own idea.
        return None


def can_end(resource: Resource) -> bool:
    """Whether waiting could end it."""
    if resource.record.kind == TASK:
        return can_move(resource)
    try:
        return resource.own.can_end(resource.object)
    except Exception:
        return True


def can_move(resource: Resource) -> bool:
    """Whether a task could still end by itself: its loop is open and runs in some thread."""
    loop = loop_of(resource.object)
    try:
        return loop is None or bool(not loop.is_closed() and loop.is_running())
    except Exception:
        return True
