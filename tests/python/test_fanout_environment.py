"""LEAKGUARD_MAX_LIVE: limits of a program of which no line was changed."""

import json

BURSTS = """
import asyncio, sys, threading

async def burst(count):
    tasks = []
    for _ in range(count):
        tasks.append(asyncio.create_task(asyncio.sleep(0)))
    await asyncio.gather(*tasks)

asyncio.run(burst(3))
print("between", file=sys.stderr, flush=True)
asyncio.run(burst(9))
event = threading.Event()
threads = [threading.Thread(target=event.wait) for _ in range(3)]
for thread in threads:
    thread.start()
event.set()
for thread in threads:
    thread.join()
"""


def test_the_environment_reports_each_limit_once(program):
    result = program(BURSTS, LEAKGUARD="exit", LEAKGUARD_MAX_LIVE="task:3,thread:2")
    assert result.stderr.splitlines() == [
        "leakguard: 1 limit exceeded at loop end",
        "",
        "fan-out: 4 tasks alive at once, 3 allowed; 3 of them created at app.py:7 in burst",
        "    tasks.append(asyncio.create_task(asyncio.sleep(0)))",
        "between",
        "leakguard: 1 limit exceeded at shutdown",
        "",
        "fan-out: 3 threads alive at once, 2 allowed; all of them created at app.py:16 in <module>",
        "    thread.start()",
    ]
    assert result.returncode == 23


def test_the_environment_is_silent_at_the_limit(program):
    result = program(BURSTS, LEAKGUARD="exit", LEAKGUARD_MAX_LIVE="task:10,thread:3")
    assert (result.stderr, result.returncode) == ("between\n", 0)


def test_the_environment_writes_a_line_for_each_limit_and_show_reads_it(program, run, tmp_path):
    path = tmp_path / "report.jsonl"
    program(BURSTS, LEAKGUARD="1", LEAKGUARD_MAX_LIVE="task:3,thread:2", LEAKGUARD_REPORT=str(path))
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    assert [(it["reason"], it["fanout"]["kind"], it["fanout"]["peak"]) for it in lines] == [
        ("loop end", "task", 4),
        ("shutdown", "thread", 3),
    ]
    shown = run("-m", "leakguard", "show", path, cwd=tmp_path)
    assert "leakguard: no leaks in 1 file of 1 process; 2 limits exceeded" in shown.stdout
    assert (
        "fan-out: 4 tasks alive at once, 3 allowed; 3 of them created at app.py:7" in shown.stdout
    )


def test_the_environment_counts_a_loop_that_has_no_runner_and_a_forked_child_anew(program):
    result = program(
        """
import asyncio, os

async def burst(count):
    tasks = []
    for _ in range(count):
        tasks.append(asyncio.create_task(asyncio.sleep(0)))
    await asyncio.gather(*tasks)

def run(count):
    loop = asyncio.new_event_loop()
    loop.run_until_complete(burst(count))
    loop.close()

run(3)
if not os.fork():
    run(4)
    raise SystemExit(0)
assert os.wait()[1] == 0
""",
        LEAKGUARD="exit",
        LEAKGUARD_MAX_LIVE="task:4",
    )
    assert [line for line in result.stderr.splitlines() if line.startswith("fan-out")] == [
        "fan-out: 5 tasks alive at once, 4 allowed; 4 of them created at app.py:7 in burst"
    ]
    assert result.returncode == 0
