"""Built-in ignore rules: known infrastructure, recognised by what it is, never by a name alone."""

# pathlib would be imported into every watched process.
# ruff: noqa: PTH119, PTH120

from __future__ import annotations

import itertools
import os

from leakguard._native import NativeFrame, kernel_facts
from leakguard._paths import is_foreign

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from leakguard._describe import Resource


class BuiltinRule:
    """Hides one known piece of infrastructure. `doctor` lists them."""

    __slots__ = ("kind", "matches", "reason", "what")

    def __init__(
        self, kind: str, what: str, reason: str, matches: Callable[[Resource], bool]
    ) -> None:
        self.kind = kind
        self.what = what
        self.reason = reason
        self.matches = matches


_TEST_RUNNER = "TestRunner._run_tests_and_fixtures"
_POOL_SHUTDOWN = "_shutdown_process_pool_on_exit"
_GENERATOR_FINALISER = "async_generator_athrow"  # a type, which has no name beside it


def _target(resource: Resource) -> Any:
    thread = resource.thread
    return resource.info[0] if thread is None else getattr(thread, "_target", None)


def _defined_in(function: Any, module: str) -> bool:
    name = getattr(function, "__module__", None)
    return isinstance(name, str) and (name == module or name.startswith(module + "."))


def _is_child_watcher(resource: Resource) -> bool:
    target = _target(resource)
    return _defined_in(target, "asyncio.unix_events") and str(
        getattr(target, "__qualname__", "")
    ).endswith("._do_waitpid")


def _is_debugger(resource: Resource) -> bool:
    thread = resource.thread
    return bool(
        getattr(thread, "is_pydev_daemon_thread", False)
        or getattr(thread, "pydev_do_not_trace", False)
    )


def _is_pytest_timeout(resource: Resource) -> bool:
    return _defined_in(getattr(resource.thread, "function", None), "pytest_timeout")


def _is_execnet(resource: Resource) -> bool:
    target = _target(resource)
    return _defined_in(target, "execnet") or _defined_in(type(resource.thread), "execnet")


def _is_idle_anyio_worker(resource: Resource) -> bool:
    thread = resource.thread
    if type(thread).__name__ != "WorkerThread" or not _defined_in(type(thread), "anyio"):
        return False
    return not thread.root_task.done() and thread in thread.idle_workers


def _is_idle_trio_worker(resource: Resource) -> bool:
    worker = getattr(_target(resource), "__self__", None)
    return (
        _defined_in(type(worker), "trio._core._thread_cache")
        and getattr(worker, "_job", worker) is None
    )


def _is_pycares_closer(resource: Resource) -> bool:
    closer = getattr(_target(resource), "__self__", None)
    return _defined_in(type(closer), "pycares") and type(closer).__name__.endswith(
        "ShutdownManager"
    )


def _is_anyio_test_runner(resource: Resource) -> bool:
    return _runs_anyio(resource, _TEST_RUNNER)


def _is_anyio_pool_shutdown(resource: Resource) -> bool:
    return _runs_anyio(resource, _POOL_SHUTDOWN)


def _runs_anyio(resource: Resource, function: str) -> bool:
    """Whether a task runs this coroutine function of AnyIO's asyncio backend."""
    coroutine = resource.coroutine
    if getattr(coroutine, "__qualname__", "") != function:
        return False
    frame = getattr(coroutine, "cr_frame", None)
    return frame is not None and frame.f_globals.get("__name__") == "anyio._backends._asyncio"


def _is_generator_finaliser(resource: Resource) -> bool:
    # One that the program made itself has a line of the program as its site.
    if type(resource.coroutine).__name__ != _GENERATOR_FINALISER:
        return False
    return resource.made_by_loop


def _armed_in(resource: Resource) -> str:
    """The file that called call_later or call_at; "" for what was there before tracking."""
    for file, _, function in reversed(resource.creation.frames):
        name = function.rpartition(".")[2]
        if not (name in ("call_later", "call_at", "__init__") and file.endswith(_TIMER_FILES)):
            return file
    return ""


_TIMER_FILES = (f"asyncio{os.sep}base_events.py", f"asyncio{os.sep}events.py")


def _is_asyncios_timer(resource: Resource) -> bool:
    file = _armed_in(resource)
    return os.path.basename(os.path.dirname(file)) == "asyncio" and is_foreign(file)


def _is_our_timer(resource: Resource) -> bool:
    return os.path.dirname(_armed_in(resource)) == os.path.dirname(__file__)


def _bound_to(resource: Resource) -> Any:
    return getattr(resource.own.definition(resource.object), "__self__", None)


def _is_scopes_timer(resource: Resource) -> bool:
    scope = _bound_to(resource)
    return _defined_in(type(scope), "anyio") or _defined_in(type(scope), "async_timeout")


def _is_connections_timer(resource: Resource) -> bool:
    protocol = _bound_to(resource)
    for name in ("transport", "_transport"):
        is_closing = getattr(getattr(protocol, name, None), "is_closing", None)
        if is_closing is not None and hasattr(protocol, "connection_lost"):
            return not is_closing()
    return False


def _is_connectors_timer(resource: Resource) -> bool:
    return _defined_in(resource.own.definition(resource.object), "aiohttp.helpers")


def _runs_the_check(resource: Resource) -> bool:
    from leakguard._check import running_loop

    return running_loop() is resource.object


def _starts_in(*modules: str) -> Callable[[Resource], bool]:
    """Whether a native thread's start routine lies in one of these modules, which are patterns of
    paths."""

    def matches(resource: Resource) -> bool:
        from fnmatch import fnmatchcase

        routine = resource.native.routine if resource.native is not None else None
        module = (routine.module if routine is not None else None) or ""
        return any(fnmatchcase(module, f"*/{pattern}") for pattern in modules)

    return matches


_SIGNAL_WAITS = {"x86_64": 128, "aarch64": 137}  # rt_sigtimedwait


def _is_timer_helper(resource: Resource) -> bool:
    # glibc starts it itself, so its start routine is not seen. (sysdeps/unix/sysv/linux/
    # timer_routines.c: it waits for its signal, with all others blocked.)
    if resource.native is None or resource.native.start:
        return False
    waits_in = kernel_facts(resource.tid).get("syscall")
    return waits_in is not None and waits_in == _SIGNAL_WAITS.get(os.uname().machine)


def _is_faulthandler(resource: Resource) -> bool:
    # Python's own threads aside, only this one is started from inside the interpreter; an extension
    # that calls PyThread_start_new_thread does so from its own module.
    addresses = resource.native.addresses if resource.native is not None else ()
    frames = [NativeFrame(address) for address in addresses[-4:]]
    for outer, inner in itertools.pairwise(frames):
        if inner.function == "PyThread_start_new_thread":
            return outer.module == inner.module
    return False


def _is_process_helper(resource: Resource) -> bool:
    from leakguard import _kind_process

    return _kind_process.is_helper(resource.object)


RULES: tuple[BuiltinRule, ...] = (
    BuiltinRule(
        "native_thread",
        "a worker of a BLAS or OpenMP pool (start routine in OpenBLAS, BLIS, MKL, libgomp, libomp "
        "or libiomp)",
        "is kept by the library for the next computation, one for each core, until the process "
        "ends",
        _starts_in("lib*openblas*", "libblis*", "libmkl_*", "libgomp*", "libomp*.so*", "libiomp*"),
    ),
    BuiltinRule(
        "native_thread",
        "a worker of libuv's pool (start routine in libuv, or in uvloop, which contains it)",
        "is one for the process: starts with the first file or name lookup and is never joined",
        _starts_in("libuv.so*", "uvloop/loop.*"),
    ),
    BuiltinRule(
        "native_thread",
        "a thread of gRPC's engine (start routine in grpc._cython.cygrpc)",
        "serves all channels of the process: timers, pollers, name lookup; gRPC keeps it",
        _starts_in("grpc/_cython/cygrpc.*"),
    ),
    BuiltinRule(
        "native_thread",
        "faulthandler's watchdog (started by the interpreter itself)",
        "waits until it is cancelled; pytest's faulthandler_timeout has one for each test",
        _is_faulthandler,
    ),
    BuiltinRule(
        "native_thread",
        "glibc's helper for timers (started by the C library, waits for a signal)",
        "is one for the process: starts with the first SIGEV_THREAD timer and stays",
        _is_timer_helper,
    ),
    BuiltinRule(
        "thread",
        "asyncio's child watcher (target in asyncio.unix_events)",
        "waits for a child process and ends when that has been reaped",
        _is_child_watcher,
    ),
    BuiltinRule(
        "thread",
        "a debugger's thread (marked by pydevd)",
        "belongs to the debugger, not to the program",
        _is_debugger,
    ),
    BuiltinRule(
        "thread",
        "pytest-timeout's timer (function of pytest_timeout)",
        "is cancelled by the plugin at the end of the test",
        _is_pytest_timeout,
    ),
    BuiltinRule(
        "thread",
        "a thread of pytest-xdist's execnet",
        "carries the messages between pytest-xdist's processes until these end",
        _is_execnet,
    ),
    BuiltinRule(
        "thread",
        "an idle worker of AnyIO (class WorkerThread, in its pool of idle workers)",
        "waits for the next call and ends with the loop's root task",
        _is_idle_anyio_worker,
    ),
    BuiltinRule(
        "thread",
        "an idle worker of trio's thread cache (class in trio._core._thread_cache, without a job)",
        "waits ten seconds for the next call and then ends",
        _is_idle_trio_worker,
    ),
    BuiltinRule(
        "thread",
        "the closer of pycares' channels (method of a class of pycares)",
        "is one for the process: starts with the first channel (aiohttp's resolver) and stays",
        _is_pycares_closer,
    ),
    BuiltinRule(
        "timer",
        "a timer of asyncio itself (armed by code of asyncio: sleep, timeout, wait, TLS)",
        "belongs to the task or transport that waits with it, which is the leak where there is one",
        _is_asyncios_timer,
    ),
    BuiltinRule(
        "timer",
        "a timer of leakguard itself",
        "tells when the end of a loop takes long, and is cancelled at that end",
        _is_our_timer,
    ),
    BuiltinRule(
        "timer",
        "the timer of a cancel scope (method of a class of AnyIO or async_timeout)",
        "ends with the block that it limits, in a task",
        _is_scopes_timer,
    ),
    BuiltinRule(
        "timer",
        "a connection's timer (method of a protocol whose transport is open)",
        "is cancelled when the connection is lost: keep-alive, read timeout",
        _is_connections_timer,
    ),
    BuiltinRule(
        "timer",
        "the cleaner of aiohttp's idle connections (function of aiohttp.helpers)",
        "belongs to the session's connector and is cancelled when that is closed",
        _is_connectors_timer,
    ),
    BuiltinRule(
        "loop",
        "the loop that the check itself runs on",
        "is closed after the check",
        _runs_the_check,
    ),
    BuiltinRule(
        "process",
        "multiprocessing's resource tracker or forkserver (started by its own module)",
        "is one for the process: starts with the first use and ends when this process does",
        _is_process_helper,
    ),
    BuiltinRule(
        "task",
        "AnyIO's keeper of worker processes (coroutine function in anyio._backends._asyncio)",
        "waits for the end of its loop, which cancels it, and then ends the idle worker processes",
        _is_anyio_pool_shutdown,
    ),
    BuiltinRule(
        "task",
        "AnyIO's test runner (coroutine function in anyio._backends._asyncio)",
        "runs the tests and fixtures of AnyIO's pytest plugin, and ends with their loop",
        _is_anyio_test_runner,
    ),
    BuiltinRule(
        "task",
        "the loop's finaliser of an abandoned async generator",
        "closes the generator after `async for` was left, and ends within a few ticks",
        _is_generator_finaliser,
    ),
)

_BY_KIND = {one.kind: [rule for rule in RULES if rule.kind == one.kind] for one in RULES}

# The functions that the rules on tasks are about: of a hundred thousand tasks, each is asked for
# its own once.
_OF_TASKS = frozenset({_TEST_RUNNER, _POOL_SHUTDOWN, _GENERATOR_FINALISER})


def matching(resource: Resource) -> BuiltinRule | None:
    """The rule that hides this resource, or None."""
    if resource.kind == "task" and resource.function not in _OF_TASKS:
        return None
    for rule in _BY_KIND.get(resource.kind, ()):
        if rule.matches(resource):
            return rule
    return None
