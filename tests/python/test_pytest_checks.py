"""The pytest plugin: how it is asked for, and what a leak does to a test's outcome."""

import json
import re
from xml.etree import ElementTree

import pytest

LEAKS = """
    import threading, time

    def leak(seconds=60):
        threading.Thread(target=time.sleep, args=(seconds,), daemon=True).start()
"""


def test_the_option_checks_every_test(suite):
    found = suite(
        "--leakguard",
        leaks=LEAKS,
        test_it="""
            from leaks import leak

            def test_clean():
                pass

            def test_short():
                leak(0.05)

            def test_leaks():
                leak()

            def test_clean_after_it():
                pass
        """,
    )
    assert found.clean == ["test_clean", "test_clean_after_it", "test_short"]
    assert found.leaking == ["test_leaks"]
    assert "4 passed, 1 error" in found.text
    head = r"leakguard: 1 leak in test test_it.py::test_leaks \(1 thread; waited [1-9][0-9.]* s\)"
    assert re.search(head, found.text)
    assert "created at leaks.py:5 in leak" in found.text
    assert "called from test_it.py:11 in test_leaks" in found.text
    assert "_pytest" not in found.text
    assert found.status == 1


def test_nothing_is_checked_unasked_and_nothing_is_hooked(suite):
    found = suite(
        leaks=LEAKS,
        test_it="""
            import threading
            import leakguard
            from leaks import leak

            def test_leaks(request):
                leak()
                assert not leakguard.is_installed()
                assert not request.config.pluginmanager.has_plugin("leakguard-checks")
                assert request.config.pluginmanager.has_plugin("leakguard")
        """,
    )
    assert found.clean == ["test_leaks"]
    assert "leakguard: " not in found.text


def test_the_ini_option_checks_every_test_but_those_switched_off(suite, pytester):
    pytester.makeini("[pytest]\nleakguard = true\nleakguard_grace = 0.05\n")
    found = suite(
        leaks=LEAKS,
        test_it="""
            import pytest
            from leaks import leak

            def test_leaks():
                leak()

            @pytest.mark.leakguard(False)
            def test_is_off():
                leak()

            @pytest.mark.leakguard(False)
            class TestOff:
                def test_in_class(self):
                    leak()

                @pytest.mark.leakguard
                def test_on_again(self):
                    leak()
        """,
    )
    assert found.leaking == ["test_leaks", "test_on_again"]
    assert found.clean == ["test_in_class", "test_is_off"]
    assert "waited 0." in found.text
    assert "2 tests checked" in found.text


def test_the_marker_on_tests_classes_and_modules(suite):
    leaks_all = """
        import pytest
        from leaks import leak

        {marked}

        def test_plain():
            leak()

        class TestPlain:
            def test_method(self):
                leak()

        @pytest.mark.leakguard(grace=0.01)
        class TestMarked:
            def test_marked_method(self):
                leak()

        @pytest.mark.leakguard(grace=0.01)
        def test_marked():
            leak()
    """
    found = suite(
        leaks=LEAKS,
        test_some=leaks_all.format(marked=""),
        test_all=leaks_all.format(marked="pytestmark = pytest.mark.leakguard(grace=0)"),
    )
    assert found.outcomes["test_marked"] == ["passed", "passed", "error", "error"]
    assert found.outcomes["test_marked_method"] == ["passed", "passed", "error", "error"]
    assert found.outcomes["test_plain"] == ["passed", "passed", "error"]
    assert found.outcomes["test_method"] == ["passed", "passed", "error"]


def test_the_fixture_checks_the_tests_that_ask_for_it(suite):
    found = suite(
        leaks=LEAKS,
        test_it="""
            import pytest
            from leaks import leak

            def test_plain():
                leak()

            def test_asks(no_leaks):
                leak()

            @pytest.mark.usefixtures("no_leaks")
            class TestClass:
                def test_in_class(self):
                    leak()

            def test_asks_late(request):
                request.getfixturevalue("no_leaks")
                leak()

            def test_asks_late_and_is_clean(request):
                leak()
                request.getfixturevalue("no_leaks")
        """,
    )
    assert found.leaking == ["test_asks", "test_asks_late", "test_in_class"]
    assert found.clean == ["test_asks_late_and_is_clean", "test_plain"]


def test_the_marker_takes_the_arguments_of_guard(suite):
    found = suite(
        "--leakguard",
        leaks=LEAKS,
        test_it="""
            import asyncio
            import pytest
            import leakguard
            from leaks import leak

            known = leakguard.ignore(function="sleep", reason="known")

            @pytest.mark.leakguard(kinds="task")
            def test_tasks_only():
                leak()

            @pytest.mark.leakguard(ignore=known)
            def test_ignored():
                leak()

            @pytest.mark.leakguard(grace=0, label="the label")
            def test_labelled():
                leak(0.2)

            @pytest.mark.leakguard(action="warn", grace=0)
            def test_warns():
                leak()

            @pytest.mark.leakguard(action="log", grace=0)
            def test_logs():
                leak()

            @pytest.mark.leakguard(action=lambda report: print("the action got", report), grace=0)
            def test_calls():
                leak()

            async def leave():
                asyncio.get_running_loop().create_task(asyncio.sleep(3600))

            @pytest.mark.leakguard(action="cancel", grace=0)
            def test_cancels(request):
                loop = asyncio.new_event_loop()
                request.addfinalizer(lambda: None)
                loop.run_until_complete(leave())
        """,
    )
    assert found.leaking == ["test_labelled"]
    assert len(found.clean) == 6
    assert "1 leak in test the label (1 thread; waited 0 s)" in found.text
    assert "LeakWarning: leakguard: 1 leak in test test_it.py::test_warns" in found.text
    assert "LeakWarning: leakguard: 1 leak in test test_it.py::test_cancels" in found.text
    assert "WARNING  leakguard:" in found.text
    assert "the action got <Report test 'test_it.py::test_calls': 1 leak>" in found.text
    assert "1 hidden by rules" in found.text


def test_scope_process_also_charges_what_other_code_started_but_no_wider_fixture(suite):
    found = suite(
        leaks=LEAKS,
        test_it="""
            import threading, time
            import pytest
            from leaks import leak

            wanted, started = threading.Event(), threading.Event()

            def start_one():
                wanted.wait()
                leak()
                started.set()

            threading.Thread(target=start_one, daemon=True).start()

            @pytest.fixture(scope="module")
            def helper():
                threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
                yield

            @pytest.mark.leakguard(grace=0, scope="process")
            def test_process(helper):
                wanted.set()
                started.wait()
        """,
    )
    assert found.outcomes["test_process"] == ["passed", "error"]
    assert "1 leak in test test_it.py::test_process" in found.text
    assert "1 leak in fixture helper (module scope of test_it.py)" in found.text


@pytest.mark.parametrize(
    ("marker", "complaint"),
    [
        (
            "grac=1",
            "unknown argument 'grac'; allowed: action, blocking, grace, ignore, kinds, label, "
            "max_live, scope",
        ),
        ("grace=-1", "grace must be a finite number of seconds"),
        ("kinds='taks'", "unknown kind 'taks'"),
        ("action='explode'", "action must be one of"),
        ("'off'", "allowed are True or False, and keyword arguments, not ('off',)"),
    ],
)
def test_a_wrong_marker_is_an_error_of_its_test_only(suite, marker, complaint):
    found = suite(
        test_it=f"""
            import pytest

            @pytest.mark.leakguard({marker})
            def test_wrong():
                pass

            @pytest.mark.leakguard
            def test_right():
                pass
        """,
    )
    assert found.outcomes == {"test_right": ["passed"], "test_wrong": ["error"]}
    assert f"@pytest.mark.leakguard: {complaint}" in found.text


@pytest.mark.parametrize(
    ("ini", "options", "complaint"),
    [
        ("leakguard_grace = long", (), "leakguard_grace is 'long'; allowed: a number of seconds"),
        ("leakguard_grace = -1", (), "leakguard_grace is '-1'; allowed: a number of seconds"),
        ("leakguard_ignore = function", (), "allowed: an inline table of TOML like"),
        ("leakguard_ignore = function='x'", (), "the rule has no reason"),
        ("leakguard_ignore = fun='x', reason='y'", (), "unknown key 'fun'; allowed: kind, name"),
        ("", ("--leakguard-update-baseline",), "needs --leakguard-baseline FILE"),
        ("", ("--leakguard-baseline=none.json",), "add --leakguard-update-baseline"),
    ],
)
def test_wrong_settings_end_the_run_with_a_clear_error(suite, pytester, ini, options, complaint):
    pytester.makeini(f"[pytest]\n{ini}\n")
    found = suite(*options, test_it="def test_it(): pass")
    assert found.status == pytest.ExitCode.USAGE_ERROR
    assert complaint in found.text
    assert "Traceback" not in found.text


def test_ini_rules_hide_what_they_match(suite, pytester):
    pytester.makeini(
        """
        [pytest]
        leakguard = true
        leakguard_grace = 0
        leakguard_ignore =
            { function = "sleep", site = "leaks.py:*", reason = "a library, issue 7" }
            kind = "task", name = "known-*", reason = "another"
        """
    )
    found = suite(
        leaks=LEAKS,
        test_it="""
            import threading
            from leaks import leak

            def test_ignored():
                leak()

            def test_leaks():
                leak()
                threading.Thread(target=threading.Event().wait, daemon=True).start()
        """,
    )
    assert found.clean == ["test_ignored"]
    assert found.leaking == ["test_leaks"]
    assert 'hidden: 1 by rule "function=sleep site=leaks.py:*" (a library, issue 7)' in found.text
    assert "2 hidden by rules" in found.text


def test_a_failing_test_keeps_its_failure_and_shows_the_leaks_as_a_section(suite):
    found = suite(
        "--leakguard",
        leaks=LEAKS,
        test_it="""
            import pytest
            from leaks import leak

            def test_fails():
                leak()
                assert 1 == 2

            @pytest.fixture
            def broken():
                leak()
                raise ValueError("no set-up")

            def test_cannot_begin(broken):
                pass

            @pytest.fixture
            def breaks():
                yield
                raise ValueError("no teardown")

            def test_cannot_end(breaks):
                leak()

            @pytest.mark.xfail(strict=True)
            def test_expected():
                leak()
                assert 1 == 2

            def test_skips():
                pytest.skip("not here")

            @pytest.mark.skip
            def test_skipped():
                leak()
        """,
    )
    assert found.outcomes == {
        "test_fails": ["failed"],
        "test_cannot_begin": ["error"],
        "test_cannot_end": ["passed", "error"],
        "test_expected": ["xfail"],
    }
    assert "1 failed, 1 passed, 2 skipped, 1 xfailed, 2 errors" in found.text
    assert "5 tests checked" in found.text  # not what was skipped instead of being set up
    for name in ("test_fails", "test_cannot_begin", "test_cannot_end"):
        assert f"leakguard: 1 leak in test test_it.py::{name} (" in found.text
    failure = found.text.index("assert 1 == 2")
    assert failure < found.text.index("leakguard: 1 leak in test test_it.py::test_fails")
    assert "LeakError" not in found.text


def test_a_leak_may_be_expected(suite):
    found = suite(
        "--leakguard",
        leaks=LEAKS,
        test_it="""
            import pytest, leakguard
            from leaks import leak

            @pytest.mark.xfail(raises=leakguard.LeakError)
            def test_expected():
                leak()
        """,
    )
    assert "1 xfailed, 1 xpassed" in found.text
    assert found.status == 0


def test_a_guard_inside_a_test_has_reported_its_own(suite):
    found = suite(
        "--leakguard",
        leaks=LEAKS,
        test_it="""
            import leakguard, pytest
            from leaks import leak

            def test_guards():
                with pytest.raises(leakguard.LeakError):
                    with leakguard.guard(grace=0):
                        leak()
        """,
    )
    assert found.clean == ["test_guards"]


def test_a_test_that_ends_the_tracking_is_not_called_clean(suite):
    found = suite(
        "--leakguard",
        test_it="""
            import leakguard

            def test_ends_it():
                leakguard.uninstall()

            def test_next():
                pass
        """,
    )
    assert found.leaking == ["test_ends_it"]
    assert found.clean == ["test_next"]
    assert "leakguard was uninstalled" in found.text


def test_what_was_hooked_is_put_back_at_the_end(suite):
    found = suite(
        "--leakguard",
        "--leakguard",
        conftest="""
            import asyncio, atexit, leakguard
            close = asyncio.Runner.close

            def at_exit():
                assert not leakguard.is_installed()
                assert asyncio.Runner.close is close
                print("all is as it was")

            atexit.register(at_exit)
        """,
        test_it="""
            import leakguard

            def test_it():
                assert leakguard.is_installed()
        """,
    )
    assert found.clean == ["test_it"]
    assert "all is as it was" in found.text


def test_stopping_at_the_first_leak_and_running_the_last_failed(suite):
    files = {
        "leaks": LEAKS,
        "test_it": """
            from leaks import leak

            def test_clean():
                pass

            def test_leaks():
                leak()

            def test_after():
                pass
        """,
    }
    first = suite("--leakguard", "-x", **files)
    assert first.clean == ["test_clean"]
    assert first.leaking == ["test_leaks"]
    assert "stopping after 1 failures" in first.text
    again = suite("--leakguard", "--lf", **files)
    assert again.outcomes == {"test_leaks": ["passed", "error"]}


def test_without_the_plugin_the_run_is_as_ever(suite):
    files = {"leaks": LEAKS, "test_it": "from leaks import leak\ndef test_it(): leak()"}
    found = suite("-p", "no:leakguard", leakguard=None, **files)
    assert found.clean == ["test_it"]
    assert "leakguard" not in found.text
    unknown = suite("-p", "no:leakguard", "--leakguard", leakguard=None, **files)
    assert unknown.status == pytest.ExitCode.USAGE_ERROR


def test_junit_has_the_report_as_a_property(suite, pytester):
    suite(
        "--leakguard",
        "--junitxml=found.xml",
        leaks=LEAKS,
        test_it="""
            from leaks import leak

            def test_clean():
                pass

            def test_leaks():
                leak()

            def test_fails():
                leak()
                assert False
        """,
    )
    cases = {
        case.get("name"): case
        for case in ElementTree.parse(pytester.path / "found.xml").iter("testcase")
    }
    properties = {
        name: [(it.get("name"), it.get("value")) for it in case.iter("property")]
        for name, case in cases.items()
    }
    assert properties["test_clean"] == []
    for name in ("test_leaks", "test_fails"):
        [(key, value)] = properties[name]
        found = json.loads(value)
        assert key == "leakguard"
        assert found["reason"] == "test"
        assert found["label"] == f"test_it.py::{name}"
        assert found["leaks"][0]["site"]["function"] == "leak"
    assert "leakguard: 1 leak" in cases["test_leaks"].find("error").get("message")


def test_xdist_each_worker_checks_its_own_and_one_summary_tells(suite):
    found = suite(
        "--leakguard",
        "-n2",
        plugins=["xdist"],
        leaks=LEAKS,
        test_it="""
            import pytest
            from leaks import leak

            @pytest.mark.parametrize("number", range(8))
            def test_clean(number):
                pass

            @pytest.mark.parametrize("number", range(3))
            def test_leaks(number):
                leak()

            def test_fails():
                leak()
                assert False
        """,
    )
    assert "1 failed, 11 passed, 3 errors" in found.text
    assert "4 tests  thread sleep, created at leaks.py:5 in leak" in found.text
    assert "leakguard: 12 tests checked, leaks from 1 site" in found.text
    assert found.text.count("1 leak in test test_it.py::test_fails") == 1


def test_a_rerun_gets_a_check_of_its_own(suite):
    found = suite(
        "--leakguard",
        "--reruns=2",
        plugins=["rerunfailures"],
        leaks=LEAKS,
        test_it="""
            from leaks import leak

            runs = []

            def test_flaky():
                runs.append(1)
                if len(runs) == 1:
                    leak()

            def test_fails_once():
                runs.append(2)
                leak(0.01)
                assert runs.count(2) == 2

            def test_leaks_always():
                leak()
        """,
    )
    assert found.clean == ["test_fails_once"]
    assert found.outcomes["test_flaky"] == ["passed"] * 2
    assert found.outcomes["test_leaks_always"] == ["passed"] * 3 + ["error"]
    assert "4 rerun" in found.text
    assert "3 tests checked" in found.text


def test_the_summary_counts_tests_by_site_most_first(suite):
    found = suite(
        "--leakguard",
        leaks=LEAKS,
        test_it="""
            import asyncio, threading
            import pytest
            from leaks import leak

            def test_clean():
                pass

            def test_other():
                async def main():
                    asyncio.create_task(asyncio.sleep(3600))
                asyncio.run(main())

            @pytest.mark.parametrize("number", [1, 2])
            def test_leaks(number):
                leak()
                leak()

            @pytest.fixture(scope="module")
            def wide():
                leak()

            def test_with_fixture(wide):
                pass
        """,
    )
    summary = found.text[found.text.index("= leakguard =") :].splitlines()[1:4]
    assert summary == [
        "2 tests, 1 fixture  thread sleep, created at leaks.py:5 in leak",
        "1 test              task sleep, created at test_it.py:11 in test_other.<locals>.main",
        "leakguard: 5 tests checked, leaks from 2 sites",
    ]


def test_the_summary_of_a_clean_run_is_one_line(suite):
    found = suite("--leakguard", test_it="def test_a(): pass\ndef test_b(): pass")
    said = [line for line in found.text.splitlines() if line.startswith("leakguard")]
    assert said == ["leakguard: 2 tests checked, no leaks"]


def test_a_record_that_was_dropped_makes_an_error(suite):
    found = suite(
        "--leakguard",
        conftest="""
            import leakguard
            from leakguard import _ledger
        """,
        test_it="""
            from leakguard import _ledger

            def test_drops():
                _ledger._overflow[0] += 1

            def test_next():
                pass
        """,
    )
    assert found.leaking == ["test_drops"]
    assert found.clean == ["test_next"]
    assert "1 record was dropped" in found.text


def test_an_interrupted_run_ends_at_once(suite):
    found = suite(
        "--leakguard",
        leaks=LEAKS,
        test_it="""
            from leaks import leak

            def test_interrupted():
                leak()
                raise KeyboardInterrupt
        """,
    )
    assert found.status == pytest.ExitCode.INTERRUPTED
    assert "1 leak" not in found.text


def test_a_frozen_clock_does_not_hold_up_the_check(suite):
    found = suite(
        "--leakguard",
        leaks=LEAKS,
        test_it="""
            import time
            import pytest
            from leaks import leak

            @pytest.fixture(scope="module", autouse=True)
            def frozen():
                with pytest.MonkeyPatch.context() as patch:
                    patch.setattr(time, "monotonic", lambda: 7.0)
                    yield

            @pytest.mark.leakguard(grace=0.1)
            def test_leaks():
                leak()
        """,
    )
    assert found.leaking == ["test_leaks"]
    assert "waited 0." in found.text


def test_pytest_timeout_leaves_nothing(suite):
    found = suite(
        "--leakguard",
        "--timeout=60",
        "--timeout-method=thread",
        plugins=["timeout"],
        test_it="""
            import pytest

            def test_it():
                pass

            @pytest.mark.timeout(50, func_only=True)
            def test_func_only():
                pass
        """,
    )
    assert found.clean == ["test_func_only", "test_it"]


def test_the_environment_mode_and_the_plugin_together(suite, monkeypatch):
    monkeypatch.setenv("LEAKGUARD", "1")
    found = suite(
        "--leakguard",
        "-W", "error",
        test_it="""
            import asyncio, os
            os.environ["LEAKGUARD"] = "1"

            def test_leaks():
                async def main():
                    asyncio.create_task(asyncio.sleep(3600))
                asyncio.run(main())
        """,
    )  # fmt: skip
    assert found.leaking == ["test_leaks"]
    assert "at loop end" not in found.text
