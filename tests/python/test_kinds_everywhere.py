"""The kinds beyond tasks and threads in the environment mode, in pytest, and in real servers."""

import pytest

import leakguard

ALL = "task,thread,timer,asyncgen,loop,executor,transport,server"

LEAVES = """
import asyncio, concurrent.futures

async def numbers():
    yield 1
    yield 2

async def answer(reader, writer):
    pass

async def main():
    loop = asyncio.get_running_loop()
    kept.append(loop.call_later(3600, print))
    kept.append(numbers())
    await anext(kept[-1])
    kept.append(await asyncio.start_server(answer, "127.0.0.1", 0))
    datagrams = await loop.create_datagram_endpoint(
        asyncio.DatagramProtocol, local_addr=("127.0.0.1", 0)
    )
    kept.append(datagrams)

kept = []
asyncio.run(main())
kept.append(asyncio.new_event_loop())
kept.append(concurrent.futures.ThreadPoolExecutor())
print("done")
"""


def test_what_is_left_is_reported_where_the_kinds_are_asked_for(program):
    result = program(LEAVES, LEAKGUARD="exit", LEAKGUARD_KINDS=ALL)
    assert (result.stdout, result.returncode) == ("done\n", 23)
    ended, *others = result.stderr.split("leakguard: ")[1:]
    assert ended.startswith("1 leak at loop end (1 asyncgen;")
    assert "created at app.py:15 in main" in ended
    assert others[0].startswith("3 leaks at loop end (1 timer, 1 transport, 1 server;")
    for line in (13, 16, 17):
        assert f"created at app.py:{line} in main" in others[0]
    assert others[1].startswith("2 leaks at shutdown (1 loop, 1 executor;")
    for line in (24, 25):
        assert f"created at app.py:{line} in <module>" in others[1]
    assert len(others) == 2


def test_without_the_kinds_the_same_program_is_clean(program):
    result = program(LEAVES, LEAKGUARD="exit")
    assert (result.stdout, result.stderr, result.returncode) == ("done\n", "", 0)


CLEAN = """
import asyncio, concurrent.futures, contextlib

async def numbers():
    yield 1
    yield 2

async def answer(reader, writer):
    writer.write(await reader.readline())
    writer.close()

async def main():
    asyncio.get_running_loop().call_later(3600, print).cancel()
    async for number in numbers():
        break
    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        writer.write(b"x\\n")
        await reader.read()
        writer.close()
        await writer.wait_closed()
    await asyncio.to_thread(int)
    async with asyncio.timeout(60):
        await asyncio.sleep(0.01)

asyncio.run(main())
with contextlib.closing(asyncio.new_event_loop()) as loop:
    loop.run_until_complete(main())
    loop.run_until_complete(loop.shutdown_asyncgens())
    loop.run_until_complete(loop.shutdown_default_executor())
with concurrent.futures.ThreadPoolExecutor() as pool:
    pool.submit(int).result()
print("done")
"""


def test_a_program_that_ends_all_is_clean(program):
    result = program(CLEAN, LEAKGUARD="exit", LEAKGUARD_KINDS=ALL)
    assert (result.stdout, result.stderr, result.returncode) == ("done\n", "", 0)


def test_a_loop_that_a_daemon_thread_runs_is_a_note(program, tmp_path):
    report = tmp_path / "report.jsonl"
    result = program(
        """
import asyncio, threading

async def main():
    asyncio.get_running_loop().call_later(3600, print)
    begun.set()
    await asyncio.Event().wait()

begun = threading.Event()
threading.Thread(target=lambda: asyncio.run(main()), daemon=True).start()
begun.wait()
print("done")
""",
        LEAKGUARD="exit",
        LEAKGUARD_KINDS=ALL,
        LEAKGUARD_REPORT=str(report),
    )
    assert (result.stdout, result.returncode) == ("done\n", 0)
    import json

    notes = [json.loads(line) for line in report.read_text().splitlines()]
    assert {note["kind"] for note in notes} == {"task", "thread", "loop", "timer"}
    assert all(note["note"] for note in notes)


MARKED = """
import asyncio
import pytest

async def numbers():
    yield 1
    yield 2

async def forget_timer():
    asyncio.get_running_loop().call_later(3600, print)

async def forget_generator():
    kept.append(numbers())
    await anext(kept[-1])

kept = []
"""


def test_a_marked_sync_test(suite):
    found = suite(
        test_it=MARKED
        + """
pytestmark = pytest.mark.leakguard(kinds=("task", "thread", "timer", "asyncgen", "loop"))

def test_clean():
    asyncio.run(asyncio.sleep(0))

def test_timer():
    asyncio.run(forget_timer())

def test_generator():
    asyncio.run(forget_generator())

def test_loop():
    kept.append(asyncio.new_event_loop())

def test_after_them():
    asyncio.run(asyncio.sleep(0))
""",
    )
    assert found.leaking == ["test_generator", "test_loop", "test_timer"]
    assert found.clean == ["test_after_them", "test_clean"]


@pytest.mark.parametrize("loop_scope", ["function", "module"])
def test_pytest_asyncio(suite, pytester, loop_scope):
    pytester.makeini("[pytest]\nasyncio_default_fixture_loop_scope = function\n")
    found = suite(
        plugins=["asyncio"],
        test_it=MARKED
        + f"""
import pytest_asyncio

pytestmark = [
    pytest.mark.asyncio(loop_scope="{loop_scope}"),
    pytest.mark.leakguard(
        kinds=("task", "thread", "timer", "asyncgen", "loop", "executor", "transport", "server")
    ),
]

@pytest_asyncio.fixture(loop_scope="{loop_scope}")
async def resource():
    yield 1

@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def wide():
    handle = asyncio.get_running_loop().call_later(3600, print)
    yield 1
    handle.cancel()

async def test_clean(resource):
    await asyncio.sleep(0)
    async for _ in numbers():
        break
    await asyncio.to_thread(int)

async def test_wide(wide):
    pass

async def test_timer(wide, resource):
    await forget_timer()

async def test_generator():
    await forget_generator()

async def test_after_them(wide):
    await asyncio.sleep(0.01)
""",
    )
    assert found.leaking == ["test_generator", "test_timer"]
    assert found.clean == ["test_after_them", "test_clean", "test_wide"]


def test_aiohttp_with_all_kinds():
    web = pytest.importorskip("aiohttp.web")
    import asyncio

    import aiohttp

    async def hello(request):
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b"x")
        return response

    async def cleanup(app):
        yield

    async def main():
        app = web.Application()
        app.router.add_get("/", hello)
        app.cleanup_ctx.append(cleanup)
        async with leakguard.guard(kinds=ALL.split(","), grace=5):
            runner = web.AppRunner(app)
            await runner.setup()
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            host, port = runner.addresses[0][:2]
            async with aiohttp.ClientSession() as session:
                for _ in range(3):
                    async with session.get(f"http://{host}:{port}/") as response:
                        assert await response.read() == b"x"
                async with leakguard.guard(kinds="timer", grace=0.01):
                    async with session.get(f"http://{host}:{port}/") as response:
                        await response.read()
            await runner.cleanup()

    asyncio.run(main())


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_uvicorn_with_all_kinds(loop):
    uvicorn = pytest.importorskip("uvicorn")
    starlette = pytest.importorskip("starlette.applications")
    if loop == "uvloop":
        run = pytest.importorskip("uvloop").run
    import asyncio
    import contextlib

    from starlette.responses import StreamingResponse
    from starlette.routing import Route

    @contextlib.asynccontextmanager
    async def lifespan(app):
        yield

    async def body():
        yield b"x"
        yield b"y"

    async def stream(request):
        return StreamingResponse(body())

    async def main():
        app = starlette.Starlette(routes=[Route("/", stream)], lifespan=lifespan)
        async with leakguard.guard(kinds=ALL.split(","), grace=5):
            config = uvicorn.Config(app, port=0, log_level="error", loop=loop)
            server = uvicorn.Server(config)
            task = asyncio.create_task(server.serve())
            while not server.started:
                await asyncio.sleep(0.001)
            port = server.servers[0].sockets[0].getsockname()[1]
            async with leakguard.guard(kinds=("asyncgen", "timer"), grace=5):
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
                await reader.readuntil(b"0\r\n\r\n")
            writer.close()
            server.should_exit = True
            await task

    if loop == "asyncio":
        run = asyncio.run
    run(main())


def test_a_forked_child_is_not_blamed_and_does_not_crash(program):
    result = program(
        """
import asyncio, os, sys
import leakguard

KINDS = ("task", "thread", "timer", "asyncgen", "loop", "executor", "transport", "server")

async def numbers():
    yield 1

async def main():
    asyncio.get_running_loop().call_later(3600, print)
    kept.append(numbers())
    await anext(kept[0])
    kept.append(await asyncio.start_server(print, "127.0.0.1", 0))

kept = []
leakguard.install(kinds=KINDS)
loop = asyncio.new_event_loop()
loop.run_until_complete(main())
pid = os.fork()
if not pid:
    point = leakguard.checkpoint()
    code = len(point.leaks(kinds=KINDS))
    asyncio.new_event_loop().close()
    code += len(leakguard.snapshot(kinds=KINDS)) > 20
    sys.exit(code)
print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
loop.run_until_complete(loop.shutdown_asyncgens())
kept[1].close()
loop.close()
""",
    )
    assert (result.stdout, result.stderr) == ("0\n", "")
