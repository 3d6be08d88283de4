"""The stack of a birth is the one it was born on, however often a similar one was seen before."""

import _thread
import asyncio
import random
import sys
import threading

import pytest

import leakguard
from leakguard import _core


@pytest.fixture(autouse=True)
def installed():
    leakguard.install()
    yield
    leakguard.uninstall()


async def nothing():
    pass


def outer_frames(frame):
    """The frames from the outermost to this one, as the core tells them."""
    found = []
    while frame is not None:
        found.append((frame.f_code.co_filename, frame.f_lineno, frame.f_code.co_qualname))
        frame = frame.f_back
    return tuple(reversed(found))


def make(loop):
    return outer_frames(sys._getframe()), loop.create_task(nothing())


def inside(frames):
    """How many of them lie inside `_run_once` of a running loop; all where none runs."""
    runs = [i for i, frame in enumerate(frames) if frame[2] == "BaseEventLoop._run_once"]
    return len(frames) - 1 - runs[-1] if runs else len(frames)


def first_inside():
    """How far the border that the core sees is from there: seen at a first birth of all."""
    loop = asyncio.new_event_loop()

    async def run():
        return make(loop)[1]

    frames, inner, _ = _core.stack(_core.find(loop.run_until_complete(run())).stack)
    loop.run_until_complete(asyncio.sleep(0))
    loop.close()
    return inner - inside(frames)


def check(expected, task, border):
    frames, inner, truncated = _core.stack(_core.find(task).stack)
    assert frames[: len(expected)] == expected
    assert inner == len(frames) or inner == inside(frames) + border
    assert (inner == len(frames)) == (asyncio._get_running_loop() is None)
    assert not truncated


def check_creator(task):
    running = asyncio.current_task() if asyncio._get_running_loop() is not None else None
    if running is not None:
        assert _core.find(task).creator == _core.find(running).serial


class Wanderer:
    """Calls itself by many ways, and makes a task at the end of each."""

    def __init__(self, loop):
        self.loop = loop
        self.random = random.Random(20261125)
        self.border = first_inside() if loop is not None else None
        self.tasks = []

    def end(self):
        expected, task = make(self.loop)
        check(expected, task, self.border)
        check_creator(task)
        self.tasks.append(task)

    def plain(self, left):
        if left == 0:
            return self.end()
        if self.random.random() < 0.5:
            return self.plain(left - 1)
        return (lambda: self.plain(left - 1))()

    def generator(self, left):
        yield self.plain(left) if left < 2 else [*self.generator(left - 1)]

    async def awaiting(self, left):
        if left == 0 or self.random.random() < 0.2:
            self.plain(left)
        elif self.random.random() < 0.2:
            [_ async for _ in self.iterating(left - 1)]
        elif self.random.random() < 0.5:
            await self.awaiting(left - 1)
        else:
            await self.awaiting(left - 1)
            await asyncio.sleep(0)
            await self.awaiting(0)

    async def iterating(self, left):
        await self.awaiting(left)
        yield
        [*self.generator(left)]

    async def wander(self):
        for _ in range(60):
            await asyncio.gather(*(self.awaiting(self.random.randrange(6)) for _ in range(5)))
            await asyncio.gather(*self.tasks)
            self.tasks.clear()


def test_a_stack_is_never_taken_for_another():
    loop = asyncio.new_event_loop()
    wanderer = Wanderer(loop)
    for _ in range(3):
        loop.run_until_complete(wanderer.wander())
        wanderer.plain(3)  # outside the running loop
        loop.run_until_complete(asyncio.gather(*wanderer.tasks))
        wanderer.tasks.clear()
    loop.close()


def test_the_tasks_of_loops_in_two_threads_are_not_taken_for_each_other():
    """Both threads are in the midst of a step, and make tasks in turns."""
    turns = [threading.Semaphore(1), threading.Semaphore(0)]
    kept = []

    async def make_in_turns(own, other):
        loop = asyncio.get_running_loop()
        for _ in range(5):
            turns[own].acquire()
            task = make(loop)[1]
            kept.append((_core.find(task).creator, _core.find(asyncio.current_task()).serial))
            turns[other].release()

    threads = [
        threading.Thread(target=lambda own=own: asyncio.run(make_in_turns(own, 1 - own)))
        for own in (0, 1)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(kept) == 10
    assert [creator for creator, _ in kept] == [serial for _, serial in kept]


def test_the_same_frames_inside_a_loop_and_outside_are_two_stacks():
    loop = asyncio.new_event_loop()

    def place():
        return make(loop)

    made = []
    for running in (None, loop, None, loop, loop, None):
        asyncio._set_running_loop(running)
        made.append((running, place()[1]))
    asyncio._set_running_loop(None)
    stacks = [(running, _core.find(task).stack) for running, task in made]
    assert len({stack for running, stack in stacks if running is None}) == 1
    assert len({stack for running, stack in stacks if running is loop}) == 1
    for running, stack in stacks:
        frames, inner, _ = _core.stack(stack)
        outside = [] if running is None else frames[: len(frames) - inner]
        assert (outside == []) or outside[-1][2].endswith("are_two_stacks")
    loop.run_until_complete(asyncio.gather(*(task for _, task in made)))
    loop.close()


def test_the_same_frames_under_other_ones_are_another_stack():
    loop = asyncio.new_event_loop()
    made = []

    async def main():
        made.append(make(loop))

    def one():
        loop.run_until_complete(main())

    def other():
        loop.run_until_complete(main())

    for call in (one, other, one, other):
        call()
    for expected, task in made:
        assert _core.stack(_core.find(task).stack)[0][: len(expected)] == expected
    loop.run_until_complete(asyncio.gather(*(task for _, task in made)))
    loop.close()


def test_a_loop_that_never_says_that_it_ends_is_no_run_of_its_callers():
    """Twice the same function at the same place in memory, called from two lines, and the loop that
    began in the first is still said to run in the second."""
    loop = asyncio.new_event_loop()
    made = []

    def deeper(left):
        made.append(make(loop)) if left == 0 else deeper(left - 1)

    def begin(first):
        if first:
            asyncio._set_running_loop(loop)
        for _ in range(3):
            deeper(4)

    try:
        begin(True)
        begin(False)
    finally:
        asyncio._set_running_loop(None)
    for expected, task in made:
        assert _core.stack(_core.find(task).stack)[0][: len(expected)] == expected
    assert len({_core.find(task).stack for _, task in made}) == 2
    loop.run_until_complete(asyncio.gather(*(task for _, task in made)))
    loop.close()


def test_a_coroutine_elsewhere_in_memory_has_the_same_stack():
    """Those of one run, whose own frames lie at other addresses."""
    loop = asyncio.new_event_loop()
    made = []

    async def one():
        made.append(make(loop))
        await asyncio.sleep(0)
        made.append(make(loop))

    async def main():
        await asyncio.gather(*(one() for _ in range(20)))
        await asyncio.gather(*(task for _, task in made))

    loop.run_until_complete(main())
    loop.run_until_complete(main())
    for expected, task in made:
        assert _core.stack(_core.find(task).stack)[0][: len(expected)] == expected
    assert len({_core.find(task).stack for _, task in made}) == 4
    loop.close()


def test_a_stack_is_not_taken_for_one_that_goes_on():
    """The outermost frame of one is an inner one of the next, at the same instruction."""
    loop = asyncio.new_event_loop()
    made = []

    def deeper(left, done):
        made.append(make(loop)) if left == 0 else deeper(left - 1, done)
        done.set()

    for left in (2, 3, 2, 4, 3):
        done = threading.Event()
        _thread.start_new_thread(deeper, (left, done))
        done.wait()
        expected, task = made[-1]
        assert len(expected) == left + 2
        assert _core.stack(_core.find(task).stack)[0][: len(expected)] == expected
    loop.run_until_complete(asyncio.gather(*(task for _, task in made)))
    loop.close()


def test_the_depth_that_is_set_last_counts():
    loop = asyncio.new_event_loop()
    tasks = []

    def deep(left):
        if left:
            deep(left - 1)
        else:
            tasks.append(make(loop))

    for depth in (1024, 4, 1024, 9, 4):
        _core.install(depth, 1 << 26)
        deep(12)
        expected, task = tasks[-1]
        frames, _, truncated = _core.stack(_core.find(task).stack)
        whole = expected + tuple(f for f in frames if f[2].endswith("create_task"))
        assert frames == whole[-depth:]
        assert truncated == (len(whole) > depth)
    loop.run_until_complete(asyncio.gather(*(task for _, task in tasks)))
    loop.close()


def test_code_that_is_gone_is_not_taken_for_new_code_at_its_place():
    """Thousands of functions come and go; the depot lets go of those that nothing was made by any
    more, and their memory is used again."""
    loop = asyncio.new_event_loop()
    for number in range(4000):
        names = {}
        exec(f"def made_by_{number}(make, loop): return make(loop)", names)
        expected, task = names[f"made_by_{number}"](make, loop)
        assert expected[-2][2] == f"made_by_{number}"
        frames = _core.stack(_core.find(task).stack)[0]
        assert frames[: len(expected)] == expected
        loop.run_until_complete(task)
    assert _core.stats()["stacks"] < 2000
    loop.close()
