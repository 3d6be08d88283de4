"""fork: the child keeps the forking thread's own records, and old guards check nothing there."""

import pytest


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_the_child_keeps_the_forking_threads_records_only(program):
    result = program("""
import os, threading, warnings
warnings.simplefilter("ignore")
import leakguard
leakguard.install()
release = threading.Event()
threading.Thread(target=release.wait, name="other").start()
read, write = os.pipe()
child = os.fork()
if child == 0:
    names = [leak.name for leak in leakguard.snapshot(kinds="thread")]
    stats = leakguard.stats()["thread"]
    with leakguard.guard() as guarded:
        thread = threading.Thread(target=int)
        thread.start()
        thread.join()
    os.write(write, repr((names, stats["created"] == stats["ended"] + stats["live"])).encode())
    os._exit(0)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), os.read(read, 1000).decode())
print(sorted(leak.name for leak in leakguard.snapshot(kinds="thread")))
release.set()
""")
    assert result.stdout.splitlines() == [
        "0 (['MainThread'], True)",
        "['MainThread', 'other']",
    ], result.stderr


def test_a_guard_entered_before_the_fork_checks_nothing_in_the_child(program):
    result = program("""
import os, sys, threading, warnings
warnings.simplefilter("ignore")
import leakguard
release = threading.Event()
child = None
try:
    with leakguard.guard(grace=0):
        child = os.fork()
        threading.Thread(target=release.wait, daemon=True).start()
except leakguard.LeakError as error:
    print(len(error.report), "in the", "child" if child == 0 else "parent", flush=True)
if child == 0:
    os._exit(5)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
""")
    assert sorted(result.stdout.splitlines()) == ["1 in the parent", "5"], result.stderr


def test_a_child_forked_inside_a_loop_goes_on(program):
    result = program("""
import asyncio, os, warnings
warnings.simplefilter("ignore")
import leakguard
leakguard.install()
async def nothing():
    await asyncio.sleep(0)
async def main():
    other = asyncio.create_task(asyncio.sleep(3600), name="sleeper")
    child = os.fork()
    if child == 0:
        names = sorted(leak.name for leak in leakguard.snapshot(kinds="task"))
        os._exit(0 if "sleeper" in names and len(names) == 2 else 1)
    await nothing()
    other.cancel()
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
asyncio.run(main())
""")
    assert result.stdout == "0\n", result.stderr


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_multiprocessing_works_with_each_start_method(method, program):
    result = program(
        "import multiprocessing, leakguard\n"
        "def work(number):\n    return number * 2\n"
        "if __name__ == '__main__':\n"
        f"    context = multiprocessing.get_context({method!r})\n"
        "    leakguard.install()\n"
        "    with leakguard.guard(grace=10):\n"
        "        with context.Pool(2) as pool:\n"
        "            print(pool.map(work, [1, 2]))\n"
        "        pool.join()\n",
        LEAKGUARD="exit",
    )
    assert (result.stdout, result.returncode) == ("[2, 4]\n", 0), result.stderr
