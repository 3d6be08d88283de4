"""The pytest plugin's baseline: today's leaks are known, new ones fail."""

import json

LEAKS = """
    import threading, time

    def leak(target=time.sleep):
        threading.Thread(target=target, args=(60,), daemon=True).start()
"""

TESTS = """
    import asyncio
    import pytest
    from leaks import leak

    def test_clean():
        pass

    @pytest.mark.parametrize("number", [1, 2])
    def test_leaks(number):
        leak()

    def test_task():
        async def main():
            asyncio.create_task(asyncio.sleep(3600))
        asyncio.run(main())
"""

CHECKED = ("--leakguard", "--leakguard-baseline=known.json")
UPDATE = (*CHECKED, "--leakguard-update-baseline")


def read(pytester):
    return json.loads((pytester.path / "known.json").read_text())


def test_known_leaks_pass_and_new_ones_fail(suite, pytester):
    written = suite(*UPDATE, leaks=LEAKS, test_it=TESTS)
    assert written.status == 0
    assert "known.json (2 entries)" in written.text
    known = read(pytester)
    assert known["schema"] == 1
    task, thread = known["leaks"]
    assert task["stack"] == [
        {"file": "test_it.py", "function": "test_task.<locals>.main", "calls": "create_task"}
    ]
    assert thread["kind"] == "thread"
    assert thread["function"] == "sleep"
    assert thread["stack"] == [
        {"file": "leaks.py", "function": "leak", "calls": "Thread.start"},
        {"file": "test_it.py", "function": "test_leaks", "calls": "leak"},
    ]
    assert thread["tests"] == ["test_it.py::test_leaks"]
    assert thread["reason"].startswith("known since 20")

    again = suite(*CHECKED, leaks=LEAKS, test_it=TESTS)
    assert again.status == 0
    assert "no longer" not in again.text
    assert "3 hidden by rules" in again.text

    moved = (
        "\n\n\n"
        + TESTS.replace("leak()", "pass; leak()")
        + """
    def test_new():
        leak()
    """
    )
    new = suite(*CHECKED, leaks="\n\n    import sys\n" + LEAKS, test_it=moved)
    assert new.leaking == ["test_new"]
    assert "1 failed" not in new.text


def test_what_no_longer_occurs_is_said_and_an_update_takes_it_out(suite, pytester):
    suite(*UPDATE, leaks=LEAKS, test_it=TESTS)
    known = read(pytester)
    known["leaks"][0]["reason"] = "issue 7: the task is meant to stay"
    (pytester.path / "known.json").write_text(json.dumps(known))
    mended = TESTS.replace("        leak()", "        pass")

    only_one = suite(*CHECKED, "-k", "test_task", leaks=LEAKS, test_it=mended)
    assert "no longer" not in only_one.text
    found = suite(*CHECKED, leaks=LEAKS, test_it=mended)
    assert found.status == 0
    assert "1 entry of " in found.text
    assert "no longer occur" in found.text
    assert "  thread sleep created in leak (leaks.py)" in found.text
    assert len(read(pytester)["leaks"]) == 2

    updated = suite(*UPDATE, leaks=LEAKS, test_it=mended)
    assert "(1 entry); 1 taken out" in updated.text
    [entry] = read(pytester)["leaks"]
    assert entry["reason"] == "issue 7: the task is meant to stay"


def test_an_update_of_a_part_keeps_the_rest(suite, pytester):
    suite(*UPDATE, leaks=LEAKS, test_it=TESTS)
    before = read(pytester)
    suite(*UPDATE, "-k", "test_clean", leaks=LEAKS, test_it=TESTS)
    assert read(pytester) == before


def test_workers_share_one_baseline(suite, pytester):
    written = suite(*UPDATE, "-n2", plugins=["xdist"], leaks=LEAKS, test_it=TESTS)
    assert written.status == 0
    assert [entry["tests"] for entry in read(pytester)["leaks"]] == [
        ["test_it.py::test_task"],
        ["test_it.py::test_leaks"],
    ]
    again = suite(*CHECKED, "-n2", plugins=["xdist"], leaks=LEAKS, test_it=TESTS)
    assert again.status == 0
    mended = TESTS.replace("        leak()", "        pass")
    found = suite(*CHECKED, "-n2", plugins=["xdist"], leaks=LEAKS, test_it=mended)
    assert "no longer occur" in found.text


def test_a_broken_baseline_ends_the_run_with_a_clear_error(suite, pytester):
    path = pytester.path / "known.json"
    suite(*UPDATE, leaks=LEAKS, test_it=TESTS)
    known = read(pytester)
    for change, complaint in [
        (lambda: "{", "it is no JSON"),
        (lambda: json.dumps({"schema": 2}), 'allowed: an object with "schema": 1'),
        (lambda: json.dumps(known | {"leaks": [known["leaks"][0] | {"reason": " "}]}),
         "entry 1: the reason is empty; say why this leak may stay"),
        (lambda: json.dumps(known | {"leaks": [known["leaks"][0] | {"kind": "taks"}]}),
         "entry 1: unknown kind 'taks'"),
        (lambda: json.dumps(known | {"leaks": [known["leaks"][0] | {"stack": [{}]}]}),
         "entry 1: a frame of 'stack' has a file, a function and calls"),
        (lambda: json.dumps(known | {"leaks": [7]}), "entry 1: an entry is an object, not 7"),
    ]:  # fmt: skip
        path.write_text(change())
        found = suite(*CHECKED, leaks=LEAKS, test_it=TESTS)
        assert f"--leakguard-baseline known.json: {complaint}" in found.text
        assert found.status == 4
