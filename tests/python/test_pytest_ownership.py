"""The pytest plugin: which resources belong to a test, and which to a fixture that outlives it."""

LEAKS = """
    import threading, time

    def leak(seconds=60):
        threading.Thread(target=time.sleep, args=(seconds,), daemon=True).start()

    class Server:
        '''Starts a thread for each request, in a thread of its own.'''

        def __init__(self):
            self.asked, self.served = threading.Semaphore(0), threading.Semaphore(0)
            threading.Thread(target=self.serve, daemon=True).start()

        def serve(self):
            while True:
                self.asked.acquire()
                leak()
                self.served.release()

        def ask(self):
            self.asked.release()
            self.served.acquire()
"""


def test_a_function_scoped_fixture_is_the_tests(suite):
    found = suite(
        "--leakguard",
        leaks=LEAKS,
        test_it="""
            import threading
            import pytest
            from leaks import leak

            @pytest.fixture
            def stopped():
                stop = threading.Event()
                thread = threading.Thread(target=stop.wait)
                thread.start()
                yield
                stop.set()

            @pytest.fixture
            def joins():
                threads = []
                yield threads
                for stop, thread in threads:
                    stop.set()
                    thread.join()

            @pytest.fixture
            def leaking():
                leak()

            @pytest.fixture
            def leaks_at_the_end():
                yield
                leak()

            def test_stopped(stopped):
                pass

            def test_fixture_joins_what_the_test_started(joins):
                stop = threading.Event()
                joins.append((stop, threading.Thread(target=stop.wait)))
                joins[0][1].start()

            def test_fixture_leaks(leaking):
                pass

            def test_teardown_leaks(leaks_at_the_end):
                pass

            def test_finalizer_stops(request):
                stop = threading.Event()
                threading.Thread(target=stop.wait).start()
                request.addfinalizer(stop.set)
        """,
    )
    assert found.leaking == ["test_fixture_leaks", "test_teardown_leaks"]
    assert len(found.clean) == 3


def test_a_wider_fixture_answers_for_itself_and_its_server(suite):
    found = suite(
        "--leakguard",
        leaks=LEAKS,
        test_it="""
            import pytest
            from leaks import Server, leak

            @pytest.fixture(scope="module")
            def server():
                return Server()

            @pytest.fixture(scope="class")
            def of_class():
                yield
                leak(0.05)

            def test_asks(server):
                server.ask()

            class TestClass:
                def test_asks_too(self, server, of_class):
                    server.ask()

                def test_leaks_itself(self, server):
                    server.ask()
                    leak()

            def test_last(server):
                pass
        """,
    )
    assert found.clean == ["test_asks", "test_asks_too"]
    assert found.leaking == ["test_last", "test_leaks_itself"]
    assert "1 leak in test test_it.py::TestClass::test_leaks_itself (" in found.text
    assert "4 leaks in fixture server (module scope of test_it.py) (4 threads" in found.text
    assert "in test test_it.py::test_last" not in found.text


def test_a_wider_fixture_that_stops_what_it_started_is_clean(suite):
    found = suite(
        "--leakguard",
        test_it="""
            import threading
            from concurrent.futures import ThreadPoolExecutor
            import pytest

            @pytest.fixture(scope="session")
            def pool():
                with ThreadPoolExecutor(8) as pool:
                    yield pool

            @pytest.fixture(scope="session", autouse=True)
            def ticker():
                stop = threading.Event()
                thread = threading.Thread(target=stop.wait)
                thread.start()
                yield
                stop.set()
                thread.join()

            @pytest.mark.parametrize("number", range(3))
            def test_the_pool_grows(pool, number):
                together = threading.Barrier(number + 1)
                for job in [pool.submit(together.wait) for _ in range(number + 1)]:
                    job.result()

            def test_a_pool_of_its_own():
                with ThreadPoolExecutor() as pool:
                    pool.submit(int).result()

            def test_a_forgotten_pool():
                global kept
                kept = ThreadPoolExecutor()
                kept.submit(int).result()
        """,
    )
    assert len(found.clean) == 4
    assert found.leaking == ["test_a_forgotten_pool"]
    assert "its executor was never shut down" in found.text


def test_a_parametrised_fixture_torn_down_at_the_next_set_up_fails_no_set_up(suite):
    found = suite(
        "--leakguard",
        leaks=LEAKS,
        test_it="""
            import pytest
            from leaks import leak

            @pytest.fixture(scope="module", params=[1, 2])
            def number(request):
                if request.param == 1:
                    leak()
                yield request.param

            def test_it(number):
                pass
        """,
    )
    assert found.outcomes["test_it[1]"] == ["passed"]
    assert found.outcomes["test_it[2]"] == ["passed", "error"]
    assert "ERROR at teardown of test_it[2]" in found.text
    assert "1 leak in fixture number (module scope of test_it.py)" in found.text


def test_what_leaked_once_is_not_charged_again(suite):
    found = suite(
        "--leakguard",
        leaks=LEAKS,
        test_it="""
            from leaks import Server, leak

            servers = []

            def test_leaks_a_server():
                servers.append(Server())

            def test_uses_it():
                servers[0].ask()

            def test_goes_on():
                pass
        """,
    )
    assert found.leaking == ["test_leaks_a_server"]
    assert found.clean == ["test_goes_on", "test_uses_it"]


def test_a_coroutine_that_a_test_gives_to_a_fixtures_loop_is_the_tests(suite):
    found = suite(
        "--leakguard",
        test_it="""
            import asyncio, threading
            import pytest

            @pytest.fixture(scope="module")
            def loop():
                loop = asyncio.new_event_loop()
                thread = threading.Thread(target=loop.run_forever)
                thread.start()
                yield loop
                loop.call_soon_threadsafe(loop.stop)
                thread.join()
                loop.close()

            async def forget():
                asyncio.create_task(asyncio.sleep(3600))

            def test_leaks(loop):
                asyncio.run_coroutine_threadsafe(forget(), loop).result()

            def test_ends(loop):
                asyncio.run_coroutine_threadsafe(asyncio.sleep(0.05), loop)

            def test_clean(loop):
                asyncio.run_coroutine_threadsafe(asyncio.sleep(0), loop).result()
        """,
    )
    assert found.leaking == ["test_leaks"]
    assert found.clean == ["test_clean", "test_ends"]


def test_with_the_marker_on_one_test_its_wider_fixtures_are_checked_too(suite):
    found = suite(
        leaks=LEAKS,
        test_it="""
            import pytest
            from leaks import leak

            @pytest.fixture(scope="module")
            def first():
                leak()

            @pytest.fixture(scope="module")
            def second():
                leak()

            def test_unchecked(first):
                leak()

            @pytest.mark.leakguard
            def test_checked(first, second):
                pass
        """,
    )
    assert found.clean == ["test_unchecked"]
    assert found.leaking == ["test_checked"]
    assert "1 leak in fixture second" in found.text
    assert "fixture first" not in found.text


def test_after_a_stop_wider_fixtures_are_checked_too(suite):
    found = suite(
        "--leakguard",
        "-x",
        leaks=LEAKS,
        test_it="""
            import pytest
            from leaks import leak

            @pytest.fixture(scope="module")
            def wide():
                leak()

            def test_fails(wide):
                assert False

            def test_next(wide):
                pass
        """,
    )
    assert found.outcomes == {"test_fails": ["error", "failed"]}
    assert "stopping after 2 failures" in found.text
    assert "1 fixture  thread sleep, created at leaks.py" in found.text


def test_fixtures_that_fail_or_are_asked_for_dynamically(suite):
    found = suite(
        "--leakguard",
        leaks=LEAKS,
        test_it="""
            import pytest
            from leaks import leak

            @pytest.fixture(scope="module")
            def fails():
                leak()
                raise ValueError("no")

            @pytest.fixture(scope="module")
            def outer(request):
                request.getfixturevalue("inner")
                leak()

            @pytest.fixture(scope="session")
            def inner():
                yield 1

            def test_fails(fails):
                pass

            def test_asks(request):
                request.getfixturevalue("outer")

            def test_last():
                leak()
        """,
    )
    assert found.outcomes["test_fails"] == ["error"]
    assert found.clean == ["test_asks"]
    assert "1 leak in test test_it.py::test_last (" in found.text
    assert "1 leak in fixture fails (module scope of test_it.py)" in found.text
    assert "1 leak in fixture outer (module scope of test_it.py)" in found.text
    assert "fixture inner" not in found.text


def test_a_leak_after_clean_tests_is_the_one_tests_own(suite):
    """Clean tests share what they are checked with: neither what is started between them nor what a
    fixture begins meanwhile is another's."""
    found = suite(
        "--leakguard",
        leaks=LEAKS,
        test_it="""
            import pytest
            from leaks import Server, leak

            @pytest.fixture(scope="module")
            def server():
                return Server()

            def test_clean():
                pass

            def test_also_clean():
                pass

            def test_leaks():
                leak()

            def test_clean_again():
                pass

            def test_with_a_server(server):
                pass

            def test_asks(server):
                server.ask()

            def test_leaks_beside_a_server(server):
                leak()

            def test_last():
                pass
        """,
    )
    errors = [line for line in found.text.splitlines() if line.startswith("ERROR ")]
    assert [line.split()[1] for line in errors] == [
        "test_it.py::test_leaks",
        "test_it.py::test_leaks_beside_a_server",
        "test_it.py::test_last",  # at its end the module's fixture is checked
    ], found.text
    assert "8 passed, 3 errors" in found.text
    assert "leakguard: 8 tests checked" in found.text
