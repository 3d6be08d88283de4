"""What the source says of a function that was cancelled: whether its handlers swallow that."""

import linecache
from textwrap import dedent

import pytest

from leakguard import _source

# From 3.14 on the compiler says so where a `finally` is left by a jump.
pytestmark = pytest.mark.filterwarnings("ignore::SyntaxWarning")

HANDLERS = {
    "catches": ("except BaseException:\n    pass", True),
    "raises again": ("except BaseException:\n    raise", False),
    "raises in a branch": ("except BaseException:\n    if True:\n        raise", False),
    "a function in it raises": (
        "except BaseException:\n    def inner():\n        raise ValueError",
        True,
    ),
    "catches something else": ("except ValueError:\n    pass", False),
    "finally": ("finally:\n    print()", False),
    "returns in finally": ("finally:\n    return", True),
    "returns in a branch of finally": ("finally:\n    if True:\n        return", True),
    "a function in finally returns": ("finally:\n    def inner():\n        return", False),
    "leaves a loop in finally": ("finally:\n    break", True),
    "leaves finally's own loop": ("finally:\n    for _ in (): break", False),
}


@pytest.mark.parametrize("name", HANDLERS)
def test_what_swallows_a_cancellation(name, tmp_path):
    handler, swallows = HANDLERS[name]
    body = f"while True:\n    try:\n        print()\n{_indented(handler)}"
    text = f"def function():\n{_indented(body)}\n"
    path = tmp_path / "app.py"
    path.write_text(dedent(text), encoding="utf-8")
    space = {}
    exec(compile(text, str(path), "exec", dont_inherit=True), space)
    linecache.checkcache(str(path))
    line = _source.swallowing_line(space["function"].__code__)
    assert (line is not None) == swallows


def _indented(text):
    return "\n".join(f"    {line}" for line in text.splitlines())


def test_a_parser_that_warns_says_nothing_here(program):
    found = program(
        r"""
import asyncio, leakguard

PATTERN = "\d"

async def stubborn():
    while True:
        try:
            await asyncio.sleep(60)
        except BaseException:
            pass

async def main():
    task = asyncio.create_task(stubborn())
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.sleep(0)
    (leak,) = point.leaks(grace=0)
    print(leak.cause, leak.facts["handler"], flush=True)
    import os
    os._exit(0)

point = leakguard.checkpoint()
asyncio.run(main())
""",
        before=("-W", "always"),
    )
    assert found.stdout == "swallowed-cancel app.py:10 in stubborn\n"
    said = [line for line in found.stderr.splitlines() if "Warning: " in line]
    assert said  # by Python, of the program
    assert [line for line in said if "app.py:" not in line] == []
