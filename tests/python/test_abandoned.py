"""Tasks that asyncio cancels or drops silently are leaks of the block they were born in."""

import asyncio
import threading

import pytest

import leakguard
from leakguard import LeakError

from .conftest import line_of


async def sleeper():
    await asyncio.sleep(3600)


def test_what_asyncio_run_cancels_silently_is_found():
    async def main():
        asyncio.create_task(sleeper(), name="left")  # left behind
        await asyncio.sleep(0)

    with pytest.raises(LeakError) as caught:
        with leakguard.guard():
            asyncio.run(main())
    (leak,) = caught.value.report
    assert (leak.name, leak.state) == ("left", "abandoned")
    assert leak.site.lineno == line_of("left behind")
    assert leak.current_stack[-1].name == "sleep"
    assert leak.creator.function.endswith("main")


def test_a_task_that_the_program_cancelled_is_not_abandoned():
    async def main():
        task = asyncio.create_task(sleeper())
        await asyncio.sleep(0)
        task.cancel()

    with leakguard.guard():
        asyncio.run(main())


def test_a_runner_may_await_in_its_second_run_what_the_first_left():
    async def first():
        return asyncio.create_task(asyncio.sleep(0.01, "result"))

    async def second(task):
        return await task

    with leakguard.guard():
        with asyncio.Runner() as runner:
            task = runner.run(first())
            assert runner.run(second(task)) == "result"


def test_a_task_that_lives_at_loop_close_is_abandoned():
    async def main():
        main.task = asyncio.create_task(sleeper(), name="left")
        await asyncio.sleep(0)

    loop = asyncio.new_event_loop()
    with pytest.raises(LeakError) as caught:
        with leakguard.guard():
            loop.run_until_complete(main())
            loop.close()
    (leak,) = caught.value.report
    assert (leak.name, leak.state) == ("left", "abandoned")
    main.task._log_destroy_pending = False


def test_a_task_of_a_loop_that_stopped_gets_no_grace():
    async def main():
        main.task = asyncio.create_task(sleeper())
        await asyncio.sleep(0)

    loop = asyncio.new_event_loop()
    with pytest.raises(LeakError) as caught:
        with leakguard.guard(grace=3600):
            loop.run_until_complete(main())
    assert len(caught.value.report) == 1
    loop.run_until_complete(asyncio.sleep(0))
    main.task.cancel()
    loop.run_until_complete(asyncio.sleep(0))
    loop.close()


def test_the_loop_of_a_live_task_that_was_closed_is_said():
    async def main():
        main.task = asyncio.create_task(sleeper())
        await asyncio.sleep(0)

    leakguard.install()
    point = leakguard.checkpoint()
    loop = asyncio.new_event_loop()
    loop.run_until_complete(main())
    leakguard.uninstall()  # so that nobody sees the loop's close
    loop.close()
    main.task._log_destroy_pending = False
    del point


def test_an_abandoned_task_is_reported_once():
    async def main():
        async with leakguard.guard(action=reports.append, grace=0):
            asyncio.create_task(sleeper())
            await asyncio.sleep(0)

    reports = []
    with leakguard.guard() as outer:
        asyncio.run(main())
    assert [len(report) for report in reports] == [1]
    assert not outer.report


def test_a_handler_task_has_its_definition_as_site():
    async def handle(reader, writer):  # the handler
        await asyncio.sleep(3600)

    async def main():
        server = await asyncio.start_server(handle, "127.0.0.1", 0)
        point = leakguard.checkpoint()
        _, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        while not (report := point.leaks(kinds="task")):
            await asyncio.sleep(0)
        writer.close()
        server.close()
        return report

    (leak,) = asyncio.run(main())
    assert leak.function.endswith("handle")
    assert (leak.site.filename, leak.site.lineno) == (__file__, line_of("the handler"))


def test_async_for_left_by_break_is_clean():
    async def numbers():
        try:
            for number in range(3):
                yield number
        finally:
            await asyncio.sleep(0)

    async def main():
        async for _ in numbers():
            break

    with leakguard.guard():
        asyncio.run(main())


def test_a_task_group_is_clean():
    async def main():
        async with asyncio.TaskGroup() as group:
            for _ in range(5):
                group.create_task(asyncio.sleep(0))

    with leakguard.guard():
        asyncio.run(main())


def test_a_loop_in_another_thread_is_looked_at_with_grace():
    async def other():
        await asyncio.sleep(0.05)

    with leakguard.guard():
        thread = threading.Thread(target=asyncio.run, args=(other(),))
        thread.start()


def test_the_main_task_of_an_interrupted_run_is_not_abandoned(program):
    """A task that raises SystemExit stops the loop; the main task did not leave itself behind."""
    found = program(
        """
import asyncio, sys

async def leave():
    sys.exit(3)

async def main():
    forgotten = asyncio.create_task(asyncio.sleep(3600))
    await asyncio.gather(asyncio.create_task(leave()))

asyncio.run(main())
""",
        LEAKGUARD="1",
    )
    assert found.returncode == 3
    assert "1 leak at loop end (1 task" in found.stderr
    assert "task sleep, 1 alive" in found.stderr
