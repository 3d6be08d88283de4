"""The pytest plugin pays for what a test needs only: what that must not change."""

LEAKS = """
    import threading, time

    def leak(seconds=60):
        threading.Thread(target=time.sleep, args=(seconds,), daemon=True).start()
"""


def test_reports_have_a_hook_from_the_first_leak_on_only(suite):
    found = suite(
        "--leakguard",
        leaks=LEAKS,
        test_it="""
            from leaks import leak

            def is_telling(request):
                return request.config.pluginmanager.has_plugin("leakguard-telling")

            def test_before(request):
                assert not is_telling(request)

            def test_leaks(request):
                leak()
                assert not is_telling(request)

            def test_after(request):
                assert is_telling(request)
        """,
    )
    assert found.leaking == ["test_leaks"]
    assert found.clean == ["test_after", "test_before"]
    assert "leakguard: 3 tests checked, leaks from 1 site" in found.text


def test_a_test_that_fails_by_its_report_alone_gets_a_section(suite):
    files = {
        "leaks": LEAKS,
        "conftest": """
            import pytest

            @pytest.hookimpl(wrapper=True)
            def pytest_runtest_makereport(item, call):
                report = yield
                if call.when == "call" and item.name == "test_soft":
                    report.outcome = "failed"
                    report.longrepr = "one of its soft assertions failed"
                return report
        """,
        "test_it": """
            import pytest
            from leaks import leak

            def test_soft():
                leak()

            @pytest.mark.xfail(strict=True)
            def test_passes_unexpectedly():
                leak()

            def test_soft_again():
                leak()
        """,
    }
    found = suite("--leakguard", **files)
    assert found.outcomes["test_soft"] == ["failed"]
    assert found.outcomes["test_passes_unexpectedly"] == ["failed"]
    assert found.leaking == ["test_soft_again"]
    assert found.text.count("1 leak in test test_it.py::test_soft (") == 1
    late = suite("--leakguard", "--reruns=1", plugins=["rerunfailures"], **files)
    assert "2 failed, 2 passed, 1 error, 3 rerun" in late.text


def test_the_users_own_filter_for_the_warning_wins(suite, pytester):
    pytester.makeini("[pytest]\nfilterwarnings = error::leakguard.LeakWarning\n")
    found = suite(
        "--leakguard",
        leaks=LEAKS,
        test_it="""
            import pytest
            from leaks import leak

            @pytest.mark.leakguard(action="warn", grace=0)
            def test_warns():
                leak()

            @pytest.mark.filterwarnings("ignore::leakguard.LeakWarning")
            @pytest.mark.leakguard(action="warn", grace=0)
            def test_ignores():
                leak()
        """,
    )
    assert found.outcomes["test_warns"] == ["passed", "error"]
    assert found.clean == ["test_ignores"]


def test_an_async_test_that_asks_late_is_checked_in_its_loop(suite, pytester):
    pytester.makeini("[pytest]\nasyncio_mode = auto\n")
    found = suite(
        plugins=["asyncio"],
        test_it="""
            import asyncio
            import pytest

            @pytest.fixture
            def asks(request):
                request.getfixturevalue("no_leaks")

            async def test_first(asks):
                asyncio.create_task(asyncio.sleep(3600))

            async def test_second(asks):
                asyncio.create_task(asyncio.sleep(3600))

            async def test_clean(asks):
                await asyncio.sleep(0)
        """,
    )
    assert found.leaking == ["test_first", "test_second"]
    assert found.clean == ["test_clean"]


def test_tests_with_the_same_marker_are_checked_each_by_itself(suite):
    found = suite(
        leaks=LEAKS,
        test_it="""
            import pytest
            from leaks import leak

            pytestmark = pytest.mark.leakguard(grace=0, label="all")

            @pytest.mark.parametrize("number", range(4))
            def test_one(number):
                if number == 2:
                    leak()

            @pytest.mark.leakguard(kinds="task")
            def test_other():
                leak()
        """,
    )
    assert found.leaking == ["test_one[2]"]
    assert found.clean == ["test_one[0]", "test_one[1]", "test_one[3]", "test_other"]
    assert "1 leak in test all (1 thread; waited 0 s)" in found.text
    assert "leakguard: 5 tests checked, leaks from 1 site" in found.text


def test_what_was_put_on_an_item_is_taken_off(suite):
    found = suite(
        "--leakguard",
        conftest="""
            import pytest

            def pytest_collection_modifyitems(items):
                for item in items:
                    if item.name == "test_own":
                        item.teardown = lambda own=item.teardown: (own(), print("own teardown"))

            @pytest.hookimpl(wrapper=True, tryfirst=True)
            def pytest_runtest_protocol(item):
                result = yield
                print("left on", item.name, "teardown" in vars(item))
                return result
        """,
        test_it="""
            import pytest

            def test_plain():
                pass

            def test_own():
                pass

            @pytest.mark.skip
            def test_skipped():
                pass
        """,
    )
    assert "own teardown" in found.text
    for name, left in (("test_plain", False), ("test_own", True), ("test_skipped", False)):
        assert f"left on {name} {left}" in found.text


def test_what_only_a_leak_needs_is_loaded_with_the_first_one(suite):
    found = suite(
        "--leakguard",
        leaks=LEAKS,
        test_it="""
            import sys
            from leaks import leak

            LATER = {"_baseline", "_causes", "_checkpoint", "_config", "_growth", "_text"}

            def loaded():
                return {name for name in LATER if "leakguard." + name in sys.modules}

            def test_before():
                assert loaded() == set()

            def test_leaks():
                leak()
                assert loaded() == set()

            def test_after():
                assert loaded() == {"_causes", "_growth", "_text"}
        """,
    )
    assert found.leaking == ["test_leaks"]
    assert found.clean == ["test_after", "test_before"]


def test_the_package_is_loaded_past_the_hook_that_rewrites_asserts(suite):
    """Which would read and hash the source of each module."""
    found = suite(
        "--leakguard",
        test_it="""
            import sys

            def test_loaders():
                ours = [it for it in sys.modules.values() if it.__name__.startswith("leakguard.")]
                assert len(ours) > 20
                assert {type(it.__loader__).__module__ for it in ours} == {
                    "_frozen_importlib_external"
                }
                hooks = [type(it).__module__ for it in sys.meta_path]
                assert hooks.count("_pytest.assertion.rewrite") == 1
                assert "_leakguard_pytest" not in hooks

            def test_that_fails():
                number = 1
                assert number == 2
        """,
    )
    assert found.clean == ["test_loaders"]
    assert "assert 1 == 2" in found.text  # rewritten, as ever


def test_a_run_that_asks_for_no_check_loads_no_more_than_the_options(suite):
    found = suite(
        test_it="""
            import sys

            def test_modules():
                assert not any(name.partition(".")[0] == "leakguard" for name in sys.modules)
        """,
    )
    assert found.clean == ["test_modules"]


def test_the_plugin_is_also_known_by_its_module(suite):
    found = suite("--leakguard", leakguard="leakguard.pytest_plugin", leaks=LEAKS, test_it="""
        from leaks import leak

        def test_leaks(no_leaks):
            leak()
    """)  # fmt: skip
    assert found.leaking == ["test_leaks"]
    assert "leakguard: 1 test checked, leaks from 1 site" in found.text


def test_what_other_plugins_put_around_a_test_is_theirs(suite):
    """Begun before the test's set-up, and ended after its teardown."""
    found = suite(
        "--leakguard",
        conftest="""
            import threading
            import pytest

            @pytest.hookimpl(wrapper=True)
            def pytest_runtest_setup(item):
                item.stop = threading.Event()
                item.thread = threading.Thread(target=item.stop.wait)
                item.thread.start()
                return (yield)

            @pytest.hookimpl(wrapper=True)
            def pytest_runtest_teardown(item):
                try:
                    return (yield)
                finally:
                    item.stop.set()
                    item.thread.join()
        """,
        leaks=LEAKS,
        test_it="""
            from leaks import leak

            def test_first():
                pass

            def test_leaks():
                leak()

            def test_last():
                pass
        """,
    )
    assert found.leaking == ["test_leaks"]
    assert found.clean == ["test_first", "test_last"]


def test_a_skipped_test_is_not_a_checked_one(suite):
    found = suite(
        "--leakguard",
        conftest="""
            def pytest_report_teststatus(report):
                if report.skipped and "own_word" in report.nodeid:
                    return "left out", "o", "LEFT OUT"
        """,
        test_it="""
            import pytest

            @pytest.fixture
            def skipping():
                pytest.skip("in its set-up")

            def test_checked():
                pass

            @pytest.mark.skip
            def test_marked():
                pass

            @pytest.mark.skip
            def test_marked_own_word():
                pass

            def test_by_fixture(skipping):
                pass

            def test_in_its_call():
                pytest.skip("half-way")
        """,
    )
    assert "leakguard: 2 tests checked, no leaks" in found.text


def test_without_pytest_s_reporter_leaks_are_found_as_well(suite):
    files = {
        "leaks": LEAKS,
        "conftest": """
            import pytest

            @pytest.hookimpl(trylast=True)
            def pytest_configure(config):
                config.pluginmanager.unregister(name="terminalreporter")

            def pytest_runtest_logreport(report):
                print(report.nodeid, report.when, report.outcome, [it[0] for it in report.sections])
        """,
        "test_it": """
            from leaks import leak

            def test_clean():
                pass

            def test_leaks():
                leak()

            def test_fails():
                leak()
                assert False
        """,
    }
    found = suite("--leakguard", "-s", **files)
    assert found.status == 1
    assert "test_it.py::test_clean teardown passed []" in found.text
    assert "test_it.py::test_leaks teardown failed []" in found.text
    told = "['leakguard teardown: left by the test']"
    assert f"test_it.py::test_fails teardown passed {told}" in found.text


def test_the_last_test_is_checked_though_its_module_fails_before_and_after_it(suite):
    """Its own set-up and teardown are never called, and pytest's teardown raises."""
    files = {
        "leaks": LEAKS,
        "conftest": """
            import pytest
            from leaks import leak

            class Broken(pytest.Module):
                def setup(self):
                    leak()
                    raise OSError("no set-up")

                def teardown(self):
                    raise OSError("no teardown")

            def pytest_pycollect_makemodule(module_path, parent):
                return Broken.from_parent(parent, path=module_path)
        """,
        "test_it": """
            def test_last():
                pass
        """,
    }
    found = suite("--leakguard", **files)
    assert found.status == 1
    assert "leakguard: 1 test checked, leaks from 1 site" in found.text
    assert "leaks.py:5" in found.text


def test_an_item_s_own_set_up_is_left_as_it_was(suite):
    found = suite(
        "--leakguard",
        conftest="""
            def pytest_runtest_logfinish(nodeid, location):
                print("left", nodeid, sorted({"setup", "teardown"} & vars(ITEMS[nodeid]).keys()))

            ITEMS = {}

            def pytest_collection_modifyitems(items):
                for item in items:
                    ITEMS[item.nodeid] = item
                (item,) = [it for it in items if it.name == "test_own"]
                own = item.setup
                item.setup = lambda: (print("own set-up"), own())
        """,
        test_it="""
            import pytest
            import unittest

            class TestIt(unittest.IsolatedAsyncioTestCase):
                async def test_own(self):
                    pass

                async def test_async(self):
                    pass

                @pytest.mark.skip
                async def test_skipped(self):
                    pass
        """,
    )
    assert "own set-up" in found.text
    assert "left test_it.py::TestIt::test_async []" in found.text
    assert "left test_it.py::TestIt::test_own ['setup']" in found.text
    assert "left test_it.py::TestIt::test_skipped []" in found.text


def test_what_a_later_plugin_puts_around_set_up_and_teardown_stays(suite):
    files = {
        "leaks": LEAKS,
        "conftest": """
            ITEMS, CALLED = {}, {}

            def around(item, name):
                before = getattr(item, name)

                def wrapper():
                    CALLED[item.name].append(name)
                    before()

                setattr(item, name, wrapper)
                return wrapper

            def pytest_runtest_setup(item):
                CALLED[item.name] = []
                ITEMS[item.nodeid] = item, [around(item, name) for name in ("setup", "teardown")]

            def pytest_runtest_logfinish(nodeid, location):
                item, put = ITEMS[nodeid]
                stays = [vars(item).get("setup"), vars(item).get("teardown")] == put
                print("of", item.name, stays, *CALLED[item.name])
        """,
        "test_it": """
            import pytest
            import unittest
            from leaks import leak

            def test_leaks():
                leak()

            @pytest.mark.leakguard(nonsense=1)
            def test_is_asked_for_nonsense():
                pass

            class TestIt(unittest.IsolatedAsyncioTestCase):
                async def test_async(self):
                    leak()
        """,
    }
    tests = ("test_leaks", "test_async", "test_is_asked_for_nonsense")
    found = suite("--leakguard", **files)
    assert found.leaking == ["test_async", "test_leaks"]
    assert "unknown argument 'nonsense'" in found.text
    for name in tests:
        assert f"of {name} True setup teardown" in found.text
    again = suite("--leakguard", "--reruns=1", plugins=["rerunfailures"], **files)
    assert "4 passed, 3 errors, 3 rerun" in again.text
    for name in tests:
        assert f"of {name} True setup setup teardown teardown" in again.text
