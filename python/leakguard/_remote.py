"""The program that `dump` has another process run (sys.remote_exec, CPython 3.14 on).

If leakguard tracks there, it takes a snapshot. Else it looks at what the standard library knows,
without importing anything that the process has not: threads, and the tasks of the loops that run.
It runs in a namespace of its own, in the process's main thread, and imports nothing of leakguard's.
"""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType
    from typing import Any

_LONGEST_CHAIN = 1000
_NOTE = (
    "the process was started without leakguard: where these were created is not known, and only "
    "the tasks of loops that run are listed"
)


def script(answer: str) -> str:
    """The program's text; it writes the report, as JSON, to the file `answer`."""
    with open(__file__, encoding="utf-8") as file:  # noqa: PTH123
        text = file.read()
    return f"exec({text!r} + {f'_answer({answer!r})'!r}, {{'__name__': 'leakguard_remote'}})\n"


def _answer(path: str) -> None:
    try:
        text = _snapshot() or _look()
    except Exception as error:
        text = f"no report: {type(error).__name__}: {error}"
    with open(f"{path}.new", "x", encoding="utf-8") as file:  # noqa: PTH123
        file.write(text)
    os.rename(f"{path}.new", path)  # noqa: PTH104


def _snapshot() -> str | None:
    leakguard: Any = sys.modules.get("leakguard")
    if leakguard is None or not leakguard.is_installed():
        return None
    text: str = leakguard.snapshot().to_json()
    return text


def _look() -> str:
    import json
    import time

    frames = sys._current_frames()
    found = [_thread(ident, frame) for ident, frame in frames.items()]
    asyncio: Any = sys.modules.get("asyncio")
    if asyncio is not None:
        for loop in _loops(frames).values():
            found += [_task(task) for task in asyncio.all_tasks(loop)]
    for serial, resource in enumerate(found, 1):
        resource["serial"] = serial
    return json.dumps(
        {
            "schema": 1,
            "label": None,
            "reason": "snapshot",
            "time": time.strftime("%Y-%m-%dT%H:%M:%S+00:00", time.gmtime()),
            "pid": os.getpid(),
            "host": os.uname().nodename,
            "python": sys.version.split()[0],
            "leakguard": "",
            "waited": 0.0,
            "leaks": found,
            "hidden": [],
            "notes": [_NOTE],
        }
    )


def _thread(ident: int, frame: FrameType) -> dict[str, Any]:
    threading: Any = sys.modules.get("threading")
    thread = None if threading is None else threading._active.get(ident)
    if thread is None:
        name, function = f"raw-thread-{ident}", "unknown"
    else:
        name = thread.name
        target = getattr(thread, "_target", None)
        function = getattr(target, "__qualname__", type(thread).__qualname__)
    stack = [_frame(it) for it in _outward(frame)]
    return _resource("thread", name, function, "running", stack[::-1])


def _task(task: Any) -> dict[str, Any]:
    coroutine = link = task.get_coro()
    stack: list[dict[str, Any]] = []
    while link is not None and len(stack) < _LONGEST_CHAIN:
        frame = getattr(link, "cr_frame", None) or getattr(link, "gi_frame", None)
        if frame is not None:
            stack.append(_frame(frame))
        link = getattr(link, "cr_await", None) or getattr(link, "gi_yieldfrom", None)
    function = getattr(coroutine, "__qualname__", type(coroutine).__name__)
    return _resource("task", task.get_name(), function, "waiting", stack)


def _loops(frames: dict[int, FrameType]) -> dict[int, Any]:
    """The loops that run, by id: found in the frames that run them."""
    loops = {}
    for innermost in frames.values():
        for frame in _outward(innermost):
            if frame.f_code.co_name in ("run_forever", "run_until_complete", "run"):
                owner = frame.f_locals.get("self")
                loop = getattr(owner, "_loop", owner)
                if callable(getattr(loop, "call_soon_threadsafe", None)):
                    loops[id(loop)] = loop
    return loops


def _outward(frame: FrameType | None) -> Iterator[FrameType]:
    while frame is not None:
        yield frame
        frame = frame.f_back


def _frame(frame: FrameType) -> dict[str, Any]:
    code = frame.f_code
    return {"file": code.co_filename, "line": frame.f_lineno, "function": code.co_qualname}


def _resource(
    kind: str, name: str, function: str, state: str, stack: list[dict[str, Any]]
) -> dict[str, Any]:
    return {
        "kind": kind,
        "name": name,
        "function": function,
        "state": state,
        "age": 0.0,
        "creation_stack": [],
        "current_stack": stack,
        "native_stack": None,
        "current_native_stack": None,
        "site": None,
        "creator": None,
        "cause": None,
        "facts": {},
        "why": "",
    }


# The line that runs it is put after this one.
