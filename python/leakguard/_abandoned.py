"""Sees the moments at which asyncio silently cancels or drops what is left of a loop."""

from __future__ import annotations

from leakguard import (
    _builtin,
    _core,
    _describe,
    _destroyed,
    _imports,
    _ledger,
    _resources,
    _verdict,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import ModuleType
    from typing import Any

    from leakguard._report import Leak

_listeners: list[Callable[[list[Leak]], None]] = []
_ending: dict[int, Any] = {}  # id of a runner that closes now -> its loop
_closing: list[Callable[[Any], None]] = []
_around: list[tuple[Callable[[Any], None], Callable[[Any], None]]] = []


def hook() -> None:
    """Look at Runner.close (asyncio.run ends in it) and at loop.close, once these are loaded; and
    at tasks that are freed."""
    _core.set_destroyed(_destroyed.told)
    _imports.after("asyncio.runners", _hook_runners)
    _imports.after("asyncio.base_events", _hook_base_events)
    _imports.after("uvloop", _hook_uvloop)


def listen(listener: Callable[[list[Leak]], None]) -> None:
    """Have `listener` called with the tasks that are abandoned at one of these moments, and those
    that were freed while pending until then."""
    _destroyed.keep()
    if listener not in _listeners:
        _listeners.append(listener)


def before_close(action: Callable[[Any], None]) -> None:
    """Have `action` called with each loop that is about to be closed, before its tasks are looked
    at; it may still run the loop."""
    _closing.append(action)


def no_longer_before_close(action: Callable[[Any], None]) -> None:
    """Takes back `before_close`."""
    if action in _closing:
        _closing.remove(action)


def around_close(begin: Callable[[Any], None], end: Callable[[Any], None]) -> None:
    """Have `begin` called with a runner's loop after its tasks were looked at and before the runner
    cancels them, and `end` when it has closed, or could not."""
    if (begin, end) not in _around:
        _around.append((begin, end))


def _hook_runners(module: ModuleType) -> None:
    cls = module.Runner
    hook = _core.Hook(
        cls.close,
        before=_before_runner_close,
        after=_after_runner_close,
        failed=_after_runner_close,
    )
    _imports.replace(cls, "close", hook)


def _hook_base_events(module: ModuleType) -> None:
    cls = module.BaseEventLoop
    _imports.replace(cls, "close", _core.Hook(cls.close, before=_before_loop_close))


def _hook_uvloop(module: ModuleType) -> None:
    cls = module.Loop
    if "close" not in cls.__dict__:
        # The method is the C base's, whose type cannot be written; the subclass can.
        _imports.add(cls, "close", _core.Hook(cls.close, before=_before_loop_close))


def _before_runner_close(runner: Any) -> None:
    loop = getattr(runner, "_loop", None)
    if loop is not None and not loop.is_closed():
        _abandon(loop, "left running when its runner closed, which cancelled it")
        _ending[id(runner)] = loop
        for begin, _ in _around:
            begin(loop)


def _after_runner_close(runner: Any) -> None:
    loop = _ending.pop(id(runner), None)
    if loop is not None:
        for _, end in _around:
            end(loop)


def _before_loop_close(loop: Any) -> None:
    if not loop.is_closed() and not loop.is_running():
        _abandon(loop, "left pending when its loop was closed", closed=True)


def _abandon(loop: Any, why: str, *, closed: bool = False) -> None:
    """Take down what lives on `loop`; tasks that somebody had cancelled only where it is closed."""
    if not _core.is_installed():
        return
    for action in tuple(_closing):
        action(loop)
    first = _ledger.oldest()
    if first is None and not _listeners:
        return
    context = _describe.Context()
    since = 0 if _listeners else first or 0
    reason: dict[str, Any] = {"otherwise": why}
    if closed:
        reason = {"cause": "loop-closed", "why": why}
    tasks = list(_tasks_on(loop, since, context, closed))
    if first is not None and not closed:
        context.find_unreachable(tasks)
    found = [(resource, resource.leak(state="abandoned", **reason)) for resource in tasks]
    found += [
        (resource, resource.leak(why=resource.own.why_lost))
        for resource in _lost_with(loop, since, context, at_close=closed)
    ]
    context.forget_frames()
    for resource, leak in found:
        _keep(resource, leak)
    leaks = [leak for _, leak in found] + _destroyed.take()
    for listener in _listeners if leaks else ():
        listener(leaks)


def _keep(resource: _describe.Resource, leak: Leak) -> None:
    takers = _ledger.takers()
    creators = takers.intersection(_core.line(resource.object)) if takers else ()
    _ledger.abandon(leak, resource.record.scope, frozenset(creators))


def take_down_unclosed(subject: Any) -> None:
    """Keep what is about to be freed, and was never closed, for the checks that it was born in."""
    first = _ledger.oldest() if _core.is_installed() else None
    record = _core.find(subject) if first is not None else None
    if first is None or record is None or record.found or record.serial <= first:
        return
    if record.serial in _core.line(None) or _ledger.is_abandoned(record.serial):
        return
    resource = _describe.Resource(record, _describe.Context())
    if _verdict.is_left(resource):
        why = "it was freed before anybody closed it"
        _keep(resource, resource.leak(state="destroyed", why=why))


def _records(since: int, mask: int) -> Iterator[Any]:
    """What was born since, is in no line of the code that runs here, and is not taken down yet."""
    line = set(_core.line(None))
    for record in _core.live(since, mask):
        if not (record.found or record.serial in line or _ledger.is_abandoned(record.serial)):
            yield record


def _tasks_on(
    loop: Any, since: int, context: _describe.Context, closed: bool
) -> Iterator[_describe.Resource]:
    for record in _records(since, 1 << _describe.TASK):
        # Not by a name, which would be one more reference to the task: they are counted.
        if _verdict.loop_of(record.object) is not loop:
            continue
        if not closed and _is_cancelled(record.object):
            continue
        resource = _describe.Resource(record, context)
        if _builtin.matching(resource) is not None:
            continue
        if resource.is_main and not closed:
            continue  # the run was interrupted (SystemExit in another task) and left nothing behind
        yield resource


def _lost_with(
    loop: Any, since: int, context: _describe.Context, at_close: bool
) -> Iterator[_describe.Resource]:
    """What a runner ends that nobody has ended, or `at_close` what is lost with a closed loop."""
    mask = _resources.mask_lost("loop close" if at_close else "runner close")
    for record in _records(since, mask) if mask else ():
        resource = _describe.Resource(record, context)
        try:
            if resource.own.loop_of(record.object) is loop and _verdict.is_left(resource):
                yield resource
        except Exception:
            continue  # a property of the program's own class raised: it does not say where it is


def _is_cancelled(task: Any) -> bool:
    cancelling = getattr(task, "cancelling", None)
    return bool(cancelling is not None and cancelling())
