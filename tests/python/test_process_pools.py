"""Processes of multiprocessing, and of pools: a pool's worker is a leak where its pool is."""

import multiprocessing
import os
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest

import leakguard

from .conftest import Since, line_of, place

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

HERE = str(Path(__file__))


@pytest.fixture
def point():
    return Since("process", "task", "thread")


METHODS = ("fork", "spawn", "forkserver")


def wait_for(event):
    event.wait()


@pytest.fixture(params=METHODS)
def context(request):
    return multiprocessing.get_context(request.param)


def test_a_multiprocessing_process(point, context):
    event = context.Event()
    process = context.Process(target=wait_for, args=(event,), name="mine")
    process.start()  # starts
    leak = point.only()
    assert place(leak) == (HERE, line_of("starts"))
    assert (leak.name, leak.function, leak.state) == ("mine", "wait_for", "running")
    assert leak.facts["pid"] == process.pid
    event.set()
    process.join()
    assert point.leaks() == []
    assert process.exitcode == 0


class Worker(multiprocessing.get_context("fork").Process):
    def run(self):
        time.sleep(1000)


def test_a_process_class_that_overrides_run_and_is_a_daemon(point):
    worker = Worker(daemon=True)
    worker.start()
    assert point.only().function == "Worker.run"
    worker.kill()
    worker.join()
    assert point.leaks() == []


def test_the_helpers_of_multiprocessing_are_none(program):
    result = program(
        """
import multiprocessing
import leakguard
if __name__ == "__main__":
    leakguard.install(kinds=("process",))
    point = leakguard.checkpoint()
    process = multiprocessing.get_context("forkserver").Process(target=int)
    process.start()
    process.join()
    print(list(point.leaks(kinds="process")))
    found = leakguard.snapshot(kinds="process")
    print(sorted(leak.function for leak in found), leakguard._core.failures())
"""
    )
    assert result.stdout.splitlines() == ["[]", "['ForkServer', 'ResourceTracker'] 0"], (
        result.stderr
    )


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_a_process_pool_that_was_not_shut_down(point, method):
    pool = ProcessPoolExecutor(2, mp_context=multiprocessing.get_context(method))  # the pool
    list(pool.map(abs, range(4)))
    found = point.leaks()
    assert found
    assert {leak.why for leak in found} == {"its executor was never shut down"}
    assert {leak.cause for leak in found} == {"executor-not-shut-down"}
    assert {leak.creator.kind for leak in found} == {"executor"}
    assert {leak.function for leak in found} == {"_process_worker"}
    pool.shutdown()
    assert point.leaks() == []


def test_a_process_pool_from_before_may_grow(context):
    leakguard.install(kinds=("process",))
    with ProcessPoolExecutor(2, mp_context=context) as pool:
        point = Since("process")
        list(pool.map(abs, range(4)))
        assert point.leaks() == []
    assert point.leaks() == []


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_a_multiprocessing_pool(point, method):
    pool = multiprocessing.get_context(method).Pool(2)
    pool.map(abs, range(4))
    assert [leak.why for leak in point.leaks()] == ["its executor was never shut down"] * 2
    pool.terminate()
    pool.join()
    assert point.leaks() == []


def test_a_worker_that_a_pool_replaces_is_charged_to_the_pool():
    leakguard.install(kinds=("process",))
    with multiprocessing.get_context("fork").Pool(1, maxtasksperchild=1) as pool:
        first = pool.apply(os.getpid)
        point = Since("process")
        assert pool.apply(os.getpid) != first  # started by the pool's own thread
        assert point.leaks() == []
