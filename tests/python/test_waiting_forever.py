"""Tasks that wait for what nothing that can still run reaches."""

import asyncio
import contextlib
import gc
import socket
import sys
import threading
import weakref

import pytest

import leakguard
from leakguard import _core

KEPT = []


@pytest.fixture(autouse=True)
def nothing_kept():
    yield
    KEPT.clear()


def look(*, cancellers=(), timeout=60.0):
    """(names of the tasks that wait for ever, of those that nobody holds)"""
    found = _core.waiting_forever((), cancellers, timeout)
    if isinstance(found, str):
        return found
    names = {record.serial: record.object.get_name() for record in tasks()}
    return tuple(sorted(names[one] for one in serials if one in names) for serials in found)


def tasks():
    """The records of the tasks of this loop."""
    loop = asyncio.get_running_loop()
    return [record for record in _core.live(0, 1) if record.object.get_loop() is loop]


def forever(make, **options):
    """What is said of the tasks that `make`, a coroutine function, starts and that then wait."""
    leakguard.install(kinds="task")

    async def main():
        kept = await make()
        for _ in range(5):
            await asyncio.sleep(0)
        result = look(**options)
        del kept
        for record in tasks():  # 3.14's all_tasks() lacks the pure-Python ones
            if record.object is not asyncio.current_task():
                record.object.cancel()
        return result

    return asyncio.run(main())


def start(coroutine, name="it", **options):
    """A task that only asyncio knows."""
    asyncio.get_running_loop().create_task(coroutine, name=name, **options)


async def wait_for_own_event():
    await asyncio.Event().wait()


def test_an_event_that_nobody_else_has():
    async def make():
        start(wait_for_own_event())

    assert forever(make) == (["it"], ["it"])


def test_a_task_that_is_held_waits_for_ever_all_the_same():
    async def make():
        return [asyncio.create_task(wait_for_own_event(), name="it")]

    assert forever(make) == (["it"], [])


def test_a_coroutine_that_is_held_is_no_way_to_its_event():
    async def make():
        coroutine = wait_for_own_event()
        start(coroutine)
        return coroutine

    assert forever(make) == (["it"], ["it"])


def test_a_put_into_a_full_queue_that_nobody_reads():
    async def produce(queue):
        while True:
            await queue.put(1)

    async def make():
        start(produce(asyncio.Queue(maxsize=1)))

    assert forever(make) == (["it"], ["it"])


def test_two_tasks_that_wait_for_what_the_other_would_set():
    async def wait(mine, other):
        await mine.wait()
        other.set()

    async def make():
        one, two = asyncio.Event(), asyncio.Event()
        start(wait(one, two), "one")
        start(wait(two, one), "two")

    assert forever(make) == (["one", "two"], ["one", "two"])


def test_a_chain_through_gather_task_and_shield():
    async def inner():
        await asyncio.gather(wait_for_own_event(), wait_for_own_event())

    async def outer():
        await asyncio.shield(asyncio.create_task(inner(), name="inner"))

    async def make():
        start(outer(), "outer")

    names, unheld = forever(make)
    assert len(names) == 4
    assert {"inner", "outer"} < set(names)
    assert names == unheld


def test_an_async_generator_in_the_chain():
    async def numbers():
        await asyncio.Event().wait()
        yield 1

    async def consume():
        async for _ in numbers():
            pass

    async def make():
        start(consume())

    assert forever(make) == (["it"], ["it"])


def test_a_task_group_whose_child_waits_for_ever():
    async def parent():
        async with asyncio.TaskGroup() as group:
            group.create_task(wait_for_own_event(), name="child")

    async def make():
        start(parent(), "parent")

    assert forever(make) == (["child", "parent"], ["child", "parent"])


def test_the_pure_python_task():
    async def make():
        start_pure = asyncio.tasks._PyTask
        start_pure(wait_for_own_event(), loop=asyncio.get_running_loop(), name="it")

    names, _ = forever(make)
    assert names == ["it"]


def test_a_subclass_of_the_task():
    class Own(asyncio.Task):
        pass

    async def make():
        Own(wait_for_own_event(), loop=asyncio.get_running_loop(), name="it")

    assert forever(make) == (["it"], ["it"])


async def wait_for(event):
    await event.wait()


def held_by_a_global():
    event = asyncio.Event()
    KEPT.append(event)
    return wait_for(event)


def held_by_a_weak_reference():
    async def wait():
        event = asyncio.Event()
        KEPT.append(weakref.ref(event))
        await event.wait()

    return wait()


def set_by_the_callback_of_a_weak_reference():
    class Owner:
        pass

    owner, event = Owner(), asyncio.Event()
    KEPT.extend([owner, weakref.ref(owner, lambda _: event.set())])
    return wait_for(event)


def set_by_a_finalizer_of_garbage():
    event = asyncio.Event()

    class Last:
        def __init__(self):
            self.me = self

        def __del__(self):
            event.set()

    gc.collect()
    Last()
    return wait_for(event)


def set_by_a_timer():
    event = asyncio.Event()
    asyncio.get_running_loop().call_later(3600, event.set)
    return wait_for(event)


def cancelled_by_a_timer():
    async def wait():
        task = asyncio.current_task()
        asyncio.get_running_loop().call_later(3600, task.cancel)
        await asyncio.Event().wait()

    return wait()


def sleeps():
    return asyncio.sleep(3600)


def waits_with_a_limit():
    return asyncio.wait_for(asyncio.Event().wait(), 3600)


def set_by_a_task_that_sleeps():
    event = asyncio.Event()

    async def setter():
        await asyncio.sleep(3600)
        event.set()

    start(setter(), "setter")
    return wait_for(event)


def reads_from_a_socket():
    async def read():
        one, two = socket.socketpair()
        one.setblocking(False)
        KEPT.append(two)
        with one, two:
            await asyncio.get_running_loop().sock_recv(one, 1)

    return read()


def reads_from_a_stream():
    async def read():
        one, two = socket.socketpair()
        KEPT.append(two)
        reader, writer = await asyncio.open_connection(sock=one)
        del writer
        await reader.read(1)

    return read()


def waits_for_a_call_in_an_executor():
    done = threading.Event()
    KEPT.append(done)
    weakref.finalize(asyncio.get_running_loop(), done.set)
    return asyncio.to_thread(done.wait, 1)


def waits_for_a_process():
    async def wait():
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", "import time; time.sleep(3600)"
        )
        try:
            await process.wait()
        finally:
            process.kill()
            await process.wait()

    return wait()


@pytest.mark.parametrize(
    "near_miss",
    [
        held_by_a_global,
        held_by_a_weak_reference,
        set_by_the_callback_of_a_weak_reference,
        set_by_a_finalizer_of_garbage,
        set_by_a_timer,
        cancelled_by_a_timer,
        sleeps,
        waits_with_a_limit,
        set_by_a_task_that_sleeps,
        reads_from_a_socket,
        reads_from_a_stream,
        waits_for_a_call_in_an_executor,
        waits_for_a_process,
    ],
)
def test_a_task_that_something_can_still_wake(near_miss):
    async def make():
        start(near_miss())
        await asyncio.sleep(0.05)

    cancellers = (asyncio.timeouts.Timeout, asyncio.wait_for.__code__)
    enabled = gc.isenabled()
    gc.disable()
    try:
        names, _ = forever(make, cancellers=cancellers)
    finally:
        if enabled:
            gc.enable()
    assert names == []


def test_a_local_variable_of_a_running_thread_holds_the_event(release):
    def work(loop, event):
        release.wait()
        with contextlib.suppress(RuntimeError):  # the loop is closed by then
            loop.call_soon_threadsafe(event.set)

    async def make():
        event = asyncio.Event()
        threading.Thread(target=work, args=(asyncio.get_running_loop(), event)).start()
        start(wait_for(event))

    try:
        assert forever(make)[0] == []
    finally:
        KEPT.clear()


def test_a_local_variable_of_a_coroutine_that_runs_holds_the_event():
    async def make():
        event = asyncio.Event()
        start(wait_for(event))
        return event

    assert forever(make)[0] == []


def test_a_local_variable_of_a_suspended_generator_holds_the_event():
    def generator(event):
        yield
        event.set()

    async def make():
        event = asyncio.Event()
        suspended = generator(event)
        next(suspended)
        start(wait_for(event))
        return suspended

    assert forever(make)[0] == []


def test_an_event_in_a_frozen_heap_counts_as_held():
    async def make():
        start(wait_for_own_event())
        await asyncio.sleep(0)
        gc.freeze()

    try:
        assert forever(make)[0] == []
    finally:
        gc.unfreeze()


def test_it_gives_up_in_time():
    async def make():
        KEPT.extend([[] for _ in range(10_000)])
        start(wait_for_own_event())

    assert forever(make, timeout=0.0) == "time"


@pytest.fixture
def alone():
    """No other thread gets its turn: pytest-xdist's would let go of the buffer it reads into."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1000)
    yield
    sys.setswitchinterval(interval)


def test_it_leaves_all_counts_as_they_were(alone):
    async def make():
        for _ in range(20):
            start(wait_for_own_event())
        await asyncio.sleep(0)
        objects = gc.get_objects()
        before = list(map(sys.getrefcount, objects))
        found = _core.waiting_forever((), (), 60.0)
        after = list(map(sys.getrefcount, objects))
        changed = [one for one, x, y in zip(objects, before, after, strict=True) if x != y]
        assert len(found) == 2
        assert [type(one) for one in changed if one not in (objects, before)] == []
        del objects, changed
        gc.collect()

    forever(make)


def test_many_tasks_in_a_row():
    async def follow(task):
        await task

    async def make():
        task = asyncio.create_task(wait_for_own_event())
        for _ in range(300):
            task = asyncio.create_task(follow(task))

    names, unheld = forever(make)
    assert len(names) == len(unheld) == 301


@pytest.mark.parametrize("bad", [((), ()), ([], (), 1.0), ((), [], 1.0), ((), (), "1")])
def test_wrong_arguments(bad):
    leakguard.install()
    with pytest.raises(TypeError):
        _core.waiting_forever(*bad)


def test_a_replaced_get_objects_is_said(monkeypatch):
    monkeypatch.setattr(gc, "get_objects", lambda: ())

    async def wait():
        await asyncio.get_running_loop().create_future()

    async def make():
        start(wait())

    with pytest.raises(TypeError, match=r"gc.get_objects.* returned tuple, leakguard needs a list"):
        forever(make)
    with pytest.raises(TypeError, match=r"gc.get_objects.* returned tuple, leakguard needs a list"):
        _core.instances((int,))


def test_a_replaced_get_objects_costs_a_report_no_more_than_this_fact(monkeypatch):
    leakguard.install(kinds="task")
    monkeypatch.setattr(gc, "get_objects", lambda: ())

    async def main():
        async with leakguard.guard():
            kept = asyncio.create_task(asyncio.Event().wait(), name="it")
            await asyncio.sleep(0)
        return kept

    with pytest.raises(leakguard.LeakError) as caught:
        asyncio.run(main())
    (leak,) = caught.value.report
    said = "gave up: gc.get_objects() was replaced: it returned tuple, leakguard needs a list"
    assert (leak.name, leak.facts["reachability"]) == ("it", said)
