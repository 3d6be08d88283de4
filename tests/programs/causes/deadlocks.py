"""Tasks that wait for each other."""

import asyncio
import contextlib
import threading


async def wait_for_it(box, name):
    await asyncio.sleep(0)
    await box[name]


async def two_tasks():
    box = {}
    box["a"] = asyncio.create_task(wait_for_it(box, "b"), name="a")  # a
    box["b"] = asyncio.create_task(wait_for_it(box, "a"), name="b")  # b
    await settle()
    with contextlib.suppress(RecursionError):
        box["a"].cancel()
    return box


async def settle():
    for _ in range(5):
        await asyncio.sleep(0)


async def take(first, second):
    async with first:
        await asyncio.sleep(0)
        async with second:
            pass


async def two_locks():
    one, other = asyncio.Lock(), asyncio.Lock()
    tasks = [
        asyncio.create_task(take(one, other), name="a"),  # one, other
        asyncio.create_task(take(other, one), name="b"),  # other, one
    ]
    await settle()
    return tasks


async def in_order():
    """Both take the locks in the same order, and the first has what it needs."""
    one, other = asyncio.Lock(), asyncio.Lock()
    tasks = [
        asyncio.create_task(hold_both(one, other), name="a"),  # holds both
        asyncio.create_task(take(one, other), name="b"),  # waits in turn
    ]
    await settle()
    return tasks


async def hold_both(first, second):
    async with first, second:
        await asyncio.sleep(60)


@contextlib.asynccontextmanager
async def using(lock):
    async with lock:
        yield


async def take_in_a_manager(first, second):
    async with using(first):
        await asyncio.sleep(0)
        async with using(second):
            pass


async def two_locks_in_managers():
    one, other = asyncio.Lock(), asyncio.Lock()
    tasks = [
        asyncio.create_task(take_in_a_manager(one, other), name="a"),  # manages one
        asyncio.create_task(take_in_a_manager(other, one), name="b"),  # manages other
    ]
    await settle()
    return tasks


async def hold_and_wait(lock, box):
    async with lock:
        await box["wants"]


async def want(lock):
    async with lock:
        pass


async def task_and_lock():
    lock, box = asyncio.Lock(), {}
    holder = asyncio.create_task(hold_and_wait(lock, box), name="holder")  # holds
    box["wants"] = asyncio.create_task(want(lock), name="wants")  # wants
    await settle()
    return holder


async def twice(lock):
    async with lock, lock:
        pass


async def itself():
    task = asyncio.create_task(twice(asyncio.Lock()), name="a")  # twice
    await settle()
    return task


async def two_semaphores():
    one, other = asyncio.BoundedSemaphore(1), asyncio.BoundedSemaphore(1)
    tasks = [
        asyncio.create_task(take(one, other), name="a"),  # semaphore one
        asyncio.create_task(take(other, one), name="b"),  # semaphore other
    ]
    await settle()
    return tasks


async def semaphores_with_room():
    """A third task is inside too, and will let go of the one that both want."""
    one, other = asyncio.BoundedSemaphore(2), asyncio.BoundedSemaphore(1)
    tasks = [
        asyncio.create_task(hold(one), name="c"),  # lets go
        asyncio.create_task(take(one, other), name="a"),  # room one
        asyncio.create_task(take(other, one), name="b"),  # room other
    ]
    await settle()
    return tasks


async def hold(lock):
    async with lock:
        await asyncio.sleep(60)


async def wait_for_news(condition, other):
    async with other, condition:
        await condition.wait()


async def condition_and_lock():
    """The one that waits to be notified holds a lock that the one that would notify wants."""
    condition, lock = asyncio.Condition(), asyncio.Lock()
    tasks = [
        asyncio.create_task(wait_for_news(condition, lock), name="waits"),  # waits for news
        asyncio.create_task(take(condition, lock), name="notifies"),  # would notify
    ]
    await settle()
    return tasks


async def two_conditions():
    one, other = asyncio.Condition(), asyncio.Condition()
    tasks = [
        asyncio.create_task(take(one, other), name="a"),  # condition one
        asyncio.create_task(take(other, one), name="b"),  # condition other
    ]
    await settle()
    return tasks


async def gather_them(box):
    await asyncio.sleep(0)
    await asyncio.gather(box["b"], asyncio.sleep(0))


async def through_a_gather():
    box = {}
    box["a"] = asyncio.create_task(gather_them(box), name="a")  # gathers
    box["b"] = asyncio.create_task(wait_for_it(box, "a"), name="b")  # is gathered
    await settle()
    return box


async def wait_for_the_first(box):
    await asyncio.sleep(0)
    await asyncio.wait([box["b"], box["c"]], return_when=asyncio.FIRST_COMPLETED)


async def first_of_two():
    """The wait of a needs only one of them, and c can end."""
    box = {}
    box["c"] = asyncio.create_task(asyncio.sleep(60), name="c")  # can end
    box["a"] = asyncio.create_task(wait_for_the_first(box), name="a")  # first of two
    box["b"] = asyncio.create_task(wait_for_it(box, "a"), name="b")  # one of two
    await settle()
    return box


async def wait_with_timeout(box):
    async with asyncio.timeout(60):
        await wait_for_it(box, "b")


async def with_timeout():
    box = {}
    box["a"] = asyncio.create_task(wait_with_timeout(box), name="a")  # for a minute
    box["b"] = asyncio.create_task(wait_for_it(box, "a"), name="b")  # in no hurry
    await settle()
    return box


async def behind_a_cycle():
    box = await two_tasks()
    box["c"] = asyncio.create_task(wait_for_it(box, "a"), name="c")  # behind
    await settle()
    return box


async def a_ring():
    box = {}
    for number in range(1000):
        following = (number + 1) % 1000
        box[number] = asyncio.create_task(wait_for_it(box, following), name=f"t{number}")  # ring
    await settle()
    return box


async def call_other_loop(loop, box):
    box["a"] = asyncio.current_task()
    future = asyncio.run_coroutine_threadsafe(call_back(box), loop)
    await asyncio.wrap_future(future)


async def call_back(box):
    box["b"] = asyncio.current_task()
    future = asyncio.run_coroutine_threadsafe(wait_for_it(box, "a"), box["loop"])
    await asyncio.wrap_future(future)


async def two_loops():
    """a waits for b in another thread's loop, which waits for c in this one, which waits for a."""
    other = asyncio.new_event_loop()
    threading.Thread(target=other.run_forever, daemon=True).start()  # runs the other loop
    box = {"loop": asyncio.get_running_loop()}
    task = asyncio.create_task(call_other_loop(other, box), name="a")  # in this loop
    while "b" not in box or box["a"]._fut_waiter is None or box["b"]._fut_waiter is None:
        await asyncio.sleep(0.001)
    return task, box
