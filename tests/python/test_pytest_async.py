"""The pytest plugin and asynchronous tests: checked inside their loop, whoever runs it."""

import pytest

FORGETS = """
    import asyncio

    def forget(seconds=3600):
        '''Leaves a task. (The loop holds it by its timer; the garbage collector cannot take it.)'''
        return asyncio.get_running_loop().create_task(asyncio.sleep(seconds))
"""

STRICT = "[pytest]\nasyncio_mode = strict\nasyncio_default_fixture_loop_scope = function\n"
AUTO = "[pytest]\nasyncio_mode = auto\nasyncio_default_fixture_loop_scope = function\n"


@pytest.mark.parametrize("loop_scope", ["function", "class", "module", "session"])
@pytest.mark.parametrize("ini", [STRICT, AUTO], ids=["strict", "auto"])
def test_pytest_asyncio(suite, pytester, loop_scope, ini):
    pytester.makeini(ini)
    found = suite(
        "--leakguard",
        plugins=["asyncio"],
        forgets=FORGETS,
        test_it=f"""
            import asyncio
            import pytest
            from forgets import forget

            pytestmark = pytest.mark.asyncio(loop_scope="{loop_scope}")

            async def test_clean():
                await asyncio.sleep(0)

            async def test_ends_in_time():
                forget(0.05)

            async def test_cancels_without_waiting():
                forget().cancel()

            async def test_leaks():
                forget()

            async def test_after_it():
                pass

            async def test_leaves_no_executor_behind():
                await asyncio.to_thread(int)

            class TestMethods:
                @pytest.mark.parametrize("number", [1, 2])
                async def test_method(self, number):
                    forget(3600 if number == 1 else 0.01)
        """,
    )
    assert found.leaking == ["test_leaks", "test_method[1]"]
    assert len(found.clean) == 6
    assert "created at forgets.py:6 in forget" in found.text
    assert "called from test_it.py:18 in test_leaks" in found.text
    assert "7 tests checked" not in found.text
    assert "8 tests checked, leaks from 1 site" in found.text


@pytest.mark.parametrize("ini", [STRICT, AUTO], ids=["strict", "auto"])
def test_a_fixtures_tasks_are_judged_after_its_teardown(suite, pytester, ini):
    pytester.makeini(ini)
    found = suite(
        "--leakguard",
        plugins=["asyncio"],
        forgets=FORGETS,
        test_it="""
            import asyncio
            import pytest, pytest_asyncio
            from forgets import forget

            pytestmark = pytest.mark.asyncio

            class Client:
                def connect(self):
                    self.reader = forget()

                async def close(self):
                    self.reader.cancel()

            @pytest_asyncio.fixture
            async def client():
                client = Client()
                client.connect()
                yield client
                await client.close()

            @pytest_asyncio.fixture
            async def forgetful():
                yield forget()

            @pytest_asyncio.fixture
            async def returned():
                return forget()

            async def test_closed(client):
                await asyncio.sleep(0)

            async def test_reconnects(client):
                await client.close()
                client.connect()

            async def test_forgets(client):
                client.connect()

            async def test_fixture_forgets(forgetful):
                pass

            async def test_fixture_that_returns_forgets(returned):
                pass

            class TestMethods:
                @pytest_asyncio.fixture
                async def own(self):
                    self.value = 1
                    yield forget()

                async def test_method_forgets(self, own):
                    assert self.value == 1
        """,
    )
    assert found.clean == ["test_closed", "test_reconnects"]
    assert found.leaking == [
        "test_fixture_forgets",
        "test_fixture_that_returns_forgets",
        "test_forgets",
        "test_method_forgets",
    ]


def test_a_wider_fixtures_tasks_are_its_own(suite, pytester):
    pytester.makeini(STRICT)
    found = suite(
        "--leakguard",
        plugins=["asyncio"],
        forgets=FORGETS,
        test_it="""
            import asyncio
            import pytest, pytest_asyncio
            from forgets import forget

            pytestmark = pytest.mark.asyncio(loop_scope="module")

            async def serve(reader, writer):
                forget(60)
                writer.write(await reader.readline())
                await asyncio.sleep(60)

            @pytest_asyncio.fixture(scope="module", loop_scope="module")
            async def server():
                server = await asyncio.start_server(serve, "127.0.0.1")
                yield server
                server.close()

            @pytest_asyncio.fixture(scope="module", loop_scope="module")
            async def stopped():
                task = forget()
                yield
                task.cancel()

            async def test_echo(server):
                reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
                writer.write(b"hello\\n")
                assert await reader.readline() == b"hello\\n"
                writer.close()

            async def test_stopped(stopped):
                pass

            async def test_last():
                pass
        """,
    )
    assert found.clean == ["test_echo", "test_stopped"]
    assert found.leaking == ["test_last"]
    assert "2 leaks in fixture server (module scope of test_it.py) (2 tasks" in found.text
    assert "1 leak in test" not in found.text
    assert "1 fixture  task serve, defined at test_it.py" in found.text
    assert "1 fixture  task sleep, created at forgets.py" in found.text


@pytest.mark.parametrize("mode", ["strict", "auto"])
def test_anyio(suite, pytester, mode):
    found = suite(
        "--leakguard",
        f"--anyio-mode={mode}",
        plugins=["anyio"],
        forgets=FORGETS,
        test_it="""
            import asyncio, threading, time
            import anyio
            import pytest
            from forgets import forget

            pytestmark = pytest.mark.anyio

            @pytest.fixture(params=["asyncio", pytest.param(
                ("asyncio", {"use_uvloop": True}), id="uvloop")])
            def anyio_backend(request):
                return request.param

            @pytest.fixture
            async def closed():
                task = forget()
                yield
                task.cancel()

            @pytest.fixture
            async def forgotten():
                yield forget()

            async def test_clean():
                async with anyio.create_task_group() as group:
                    group.start_soon(anyio.sleep, 0.01)

            async def test_ends_in_time():
                forget(0.05)

            async def test_leaks():
                forget()

            async def test_leaks_next_to_a_fixture(closed):
                forget()

            async def test_closes(closed):
                pass

            async def test_fixture_leaks(forgotten):
                pass

            async def test_thread():
                await anyio.to_thread.run_sync(time.sleep, 0.01)

            class TestMethods:
                async def test_method(self):
                    forget()
        """,
    )
    both = ("asyncio", "uvloop")
    leaks = ("test_fixture_leaks", "test_leaks", "test_leaks_next_to_a_fixture", "test_method")
    clean = ("test_clean", "test_closes", "test_ends_in_time", "test_thread")
    assert found.leaking == sorted(f"{name}[{loop}]" for name in leaks for loop in both)
    assert found.clean == sorted(f"{name}[{loop}]" for name in clean for loop in both)


def test_anyio_with_a_wider_fixture_that_keeps_the_loop_open(suite):
    found = suite(
        "--leakguard",
        plugins=["anyio"],
        forgets=FORGETS,
        test_it="""
            import pytest
            from forgets import forget

            pytestmark = pytest.mark.anyio

            @pytest.fixture(scope="module")
            def anyio_backend():
                return "asyncio"

            @pytest.fixture(scope="module")
            async def wide():
                task = forget()
                yield
                task.cancel()

            async def test_ends_in_time(wide):
                forget(0.05)

            async def test_leaks(wide):
                forget()

            async def test_next(wide):
                pass
        """,
    )
    assert found.leaking == ["test_leaks"]
    assert found.clean == ["test_ends_in_time", "test_next"]


def test_trio_is_left_alone_and_its_threads_are_checked(suite):
    found = suite(
        "--leakguard",
        plugins=["anyio"],
        test_it="""
            import threading, time
            import pytest, trio

            pytestmark = pytest.mark.anyio

            @pytest.fixture
            def anyio_backend():
                return "trio"

            @pytest.fixture
            async def nursery():
                async with trio.open_nursery() as nursery:
                    yield nursery
                    nursery.cancel_scope.cancel()

            async def test_clean(nursery):
                nursery.start_soon(trio.sleep_forever)
                await trio.to_thread.run_sync(time.sleep, 0.01)

            async def test_leaks():
                threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
        """,
    )
    assert found.clean == ["test_clean"]
    assert found.leaking == ["test_leaks"]


def test_unittest(suite):
    found = suite(
        "--leakguard",
        forgets=FORGETS,
        test_it="""
            import asyncio, threading, time, unittest
            import pytest
            from forgets import forget

            class Plain(unittest.TestCase):
                def test_plain_clean(self):
                    pass

                def test_plain_leaks(self):
                    threading.Thread(target=time.sleep, args=(60,), daemon=True).start()

                def test_plain_closes(self):
                    stop = threading.Event()
                    thread = threading.Thread(target=stop.wait)
                    thread.start()
                    self.addCleanup(thread.join)
                    self.addCleanup(stop.set)

            class Async(unittest.IsolatedAsyncioTestCase):
                async def asyncSetUp(self):
                    self.task = forget()

                async def asyncTearDown(self):
                    self.task.cancel()

                async def test_async_clean(self):
                    await asyncio.sleep(0)

                async def test_async_ends_in_time(self):
                    forget(0.05)

                async def test_async_leaks(self):
                    forget()

                async def test_async_leaks_from_a_callback(self):
                    asyncio.get_running_loop().call_soon(forget)
                    await asyncio.sleep(0.01)

                async def test_async_closes(self):
                    task = forget()
                    self.addAsyncCleanup(asyncio.sleep, 0)
                    self.addCleanup(task.cancel)

                def test_sync_in_async(self):
                    pass

            @pytest.mark.leakguard(False)
            class Off(unittest.IsolatedAsyncioTestCase):
                async def test_async_off(self):
                    forget()
        """,
    )
    assert found.leaking == [
        "test_async_leaks",
        "test_async_leaks_from_a_callback",
        "test_plain_leaks",
    ]
    assert found.clean == [
        "test_async_clean",
        "test_async_closes",
        "test_async_ends_in_time",
        "test_async_off",
        "test_plain_clean",
        "test_plain_closes",
        "test_sync_in_async",
    ]


def test_set_up_class_and_module_are_wider(suite):
    found = suite(
        "--leakguard",
        test_it="""
            import threading, time, unittest

            def leak():
                threading.Thread(target=time.sleep, args=(60,), daemon=True).start()

            class TestUnit(unittest.TestCase):
                @classmethod
                def setUpClass(cls):
                    leak()

                def test_a(self):
                    pass

                def test_b(self):
                    pass

            class TestPlain:
                def setup_class(cls):
                    leak()

                def test_c(self):
                    pass

                def test_d(self):
                    pass

            def setup_module():
                leak()

            def test_e():
                pass

            class TestMethod:
                def setup_method(self):
                    leak()

                def test_f(self):
                    pass
        """,
    )
    assert found.clean == ["test_a", "test_c", "test_e"]
    assert found.leaking == ["test_b", "test_d", "test_f"]
    assert found.text.count("\nleakguard: 1 leak in fixture ") == 3
    assert "1 leak in test test_it.py::TestMethod::test_f" in found.text


def test_pytest_aiohttp(suite, pytester):
    pytester.makeini(AUTO)
    found = suite(
        "--leakguard",
        plugins=["asyncio", "aiohttp"],
        forgets=FORGETS,
        test_it="""
            import asyncio
            import pytest
            from aiohttp import web
            from forgets import forget

            async def hello(request):
                return web.Response(text="hello")

            async def forgets(request):
                forget()
                return web.Response(text="hello")

            @pytest.fixture
            def app():
                app = web.Application()
                app.router.add_get("/", hello)
                app.router.add_get("/forgets", forgets)
                return app

            async def test_clean(aiohttp_client, app):
                client = await aiohttp_client(app)
                assert await (await client.get("/")).text() == "hello"

            async def test_handler_leaks(aiohttp_client, app):
                client = await aiohttp_client(app)
                assert await (await client.get("/forgets")).text() == "hello"

            async def test_leaks(aiohttp_server, app):
                await aiohttp_server(app)
                forget()
        """,
    )
    assert found.clean == ["test_clean"]
    assert found.leaking == ["test_handler_leaks", "test_leaks"]


def test_the_plugin_inside_aiohttp_which_keeps_wrapped_fixtures_for_good(suite):
    found = suite(
        "--leakguard",
        plugins=["aiohttp's own"],
        forgets=FORGETS,
        test_it="""
            import asyncio
            import pytest
            from forgets import forget

            @pytest.fixture
            async def closed(loop):
                task = forget()
                yield
                task.cancel()

            @pytest.fixture
            async def forgotten(loop):
                yield forget()

            async def test_first(closed, forgotten):
                pass

            async def test_second(closed):
                pass

            async def test_third(forgotten):
                pass

            async def test_fourth():
                forget()

            async def test_fifth():
                forget(0.05)
        """,
    )
    assert found.leaking == ["test_first[pyloop]", "test_fourth", "test_third[pyloop]"]
    assert found.clean == ["test_fifth", "test_second[pyloop]"]


def test_asyncio_run_in_the_body(suite):
    found = suite(
        "--leakguard",
        forgets=FORGETS,
        test_it="""
            import asyncio
            import pytest
            from forgets import forget

            def test_clean():
                async def main():
                    async with asyncio.TaskGroup() as group:
                        group.create_task(asyncio.sleep(0.01))
                asyncio.run(main())

            def test_leaks():
                async def main():
                    forget()
                asyncio.run(main())

            def test_loop_left_open():
                async def main():
                    forget()
                asyncio.new_event_loop().run_until_complete(main())

            @pytest.fixture
            def loop():
                with asyncio.Runner() as runner:
                    yield runner

            def test_in_a_fixtures_runner(loop):
                async def main():
                    forget()
                loop.run(main())

            @pytest.fixture(scope="module")
            def shared():
                with asyncio.Runner() as runner:
                    yield runner

            def test_in_a_shared_runner(shared):
                async def main():
                    forget()
                shared.run(main())

            def test_next_in_a_shared_runner(shared):
                async def main():
                    await asyncio.sleep(0)
                shared.run(main())
        """,
    )
    assert found.clean == ["test_clean", "test_next_in_a_shared_runner"]
    assert found.leaking == [
        "test_in_a_fixtures_runner",
        "test_in_a_shared_runner",
        "test_leaks",
        "test_loop_left_open",
    ]


def test_hypothesis_with_async_tests(suite, pytester):
    pytester.makeini(AUTO)
    found = suite(
        "--leakguard",
        plugins=["asyncio", "hypothesis"],
        forgets=FORGETS,
        test_it="""
            from hypothesis import given, settings, strategies
            from forgets import forget

            @settings(max_examples=3, database=None)
            @given(strategies.integers())
            async def test_ends_in_time(number):
                forget(0.01)

            @settings(max_examples=3, database=None)
            @given(strategies.integers())
            async def test_leaks(number):
                forget()
        """,
    )
    assert found.clean == ["test_ends_in_time"]
    assert found.leaking == ["test_leaks"]


def test_what_peers_get_wrong(suite, pytester):
    """pyleak 0.2.0: its marker breaks methods of classes, its thread check on an async function
    never reports, two overlapping calls give a false leak, and the body's error is lost."""
    pytester.makeini(AUTO)
    found = suite(
        plugins=["asyncio"],
        forgets=FORGETS,
        test_it="""
            import asyncio, threading, time
            import leakguard
            import pytest
            from forgets import forget

            @pytest.mark.leakguard
            class TestMethods:
                def test_method(self):
                    assert self is not None

                async def test_async_method(self):
                    await asyncio.sleep(0)

                def test_leaking_method(self):
                    threading.Thread(target=time.sleep, args=(60,), daemon=True).start()

            @pytest.mark.leakguard(kinds="thread")
            async def test_thread_of_an_async_test():
                threading.Thread(target=time.sleep, args=(60,), daemon=True).start()

            @leakguard.guard(kinds="thread", grace=0.05)
            async def decorated():
                threading.Thread(target=time.sleep, args=(60,), daemon=True).start()

            async def test_thread_of_a_decorated_coroutine():
                with pytest.raises(leakguard.LeakError, match="1 thread"):
                    await decorated()

            @leakguard.guard(scope="descendants")
            async def overlapping(seconds):
                await asyncio.create_task(asyncio.sleep(seconds))

            @pytest.mark.leakguard
            async def test_overlapping_calls():
                await asyncio.gather(overlapping(0.05), overlapping(0.01), overlapping(0.03))

            @pytest.mark.leakguard
            async def test_body_error():
                forget()
                raise ValueError("the body's own")
        """,
    )
    assert found.clean == [
        "test_async_method",
        "test_method",
        "test_overlapping_calls",
        "test_thread_of_a_decorated_coroutine",
    ]
    assert found.leaking == ["test_leaking_method", "test_thread_of_an_async_test"]
    assert found.outcomes["test_body_error"] == ["failed"]
    assert found.text.index("ValueError: the body's own") < found.text.index(
        "leakguard: 1 leak in test test_it.py::test_body_error"
    )
