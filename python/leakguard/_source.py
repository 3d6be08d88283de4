"""What the source of a function says: which exceptions it catches, for which tasks it waits.

Facts for people, read from the file as it stands now: a function whose source is not there, or has
changed, tells nothing. Imported only where something is left that these facts could explain.
"""

from __future__ import annotations

import ast
import linecache
import sys
import warnings

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import CodeType
    from typing import Any

_CATCHES_CANCELLATION = frozenset({"CancelledError", "BaseException"})
_MODULES = frozenset({"asyncio", "aio"})
_EARLY = frozenset({"FIRST_COMPLETED", "FIRST_EXCEPTION"})
_LONGEST = 2_000_000  # characters: what is longer was not written by hand
_MOST_FILES = 256

_Handler = tuple[int, int, bool]  # first line, last line, whether it swallows a CancelledError
_Span = tuple[int, int]  # first line, last line


class _Wait:
    """A call in a function that can end before what it was given: `name` of it, first and last
    line, and the names and the lines of its argument."""

    __slots__ = ("given", "name", "names", "span")

    def __init__(self, name: str, call: ast.Call, given: ast.expr) -> None:
        self.name = name
        self.span = _span(call)
        self.given = _span(given)
        self.names = {text for node in ast.walk(given) if (text := _dotted(node)) is not None}


class _File:
    """What one file says; all spans of it."""

    def __init__(self, tree: ast.AST) -> None:
        self.handlers: list[_Handler] = []
        self.loops: list[_Span] = []
        self.functions: list[_Span] = []
        self.waits: list[_Wait] = []
        self.bindings: list[tuple[_Span, str]] = []  # a statement, and a name that it sets
        for node in ast.walk(tree):
            self._add(node)
        self.handlers.sort()

    def _add(self, node: ast.AST) -> None:
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            self.functions.append(_span(node))
        elif isinstance(node, (ast.While, ast.For, ast.AsyncFor)):
            self.loops.append(_span(node))
        elif isinstance(node, ast.Call):
            wait = _wait_of(node)
            if wait is not None:
                self.waits.append(wait)
        self.handlers += _handlers_in(node)
        self.bindings += _bindings_in(node)


_files: dict[str, _File | None] = {}


def swallowing_line(code: CodeType) -> int | None:
    """The line of the last handler in a function that catches CancelledError and does not raise
    again; None where there is none, or no source."""
    lines = [begin for begin, _, swallows in _handlers_of(code) if swallows]
    return lines[-1] if lines else None


def is_cleaning_up(code: CodeType, line: int) -> bool:
    """Whether a line lies in a `finally`, in the exit of a `with` or in a handler that raises
    again: in nothing that would swallow the exception."""
    inside = [swallows for begin, end, swallows in _handlers_of(code) if begin <= line <= end]
    return not inside or not inside[-1]


def is_in_one_loop(file: str, line: int, other: int) -> bool:
    """Whether two lines lie in one loop: then going from one to the other leads to no end."""
    found = _read(file)
    if found is None:
        return False
    return any(
        first <= min(line, other) and max(line, other) <= last for first, last in found.loops
    )


def early_wait(file: str, line: int) -> tuple[str, int, int] | None:
    """The call in the same function of `wait`, or of `wait_for` with a `shield`, that is given the
    task that is made in this line, and that can end before it: (name, first line, last line)."""
    found = _read(file)
    if found is None or not found.waits:
        return None
    functions = [span for span in found.functions if span[0] <= line <= span[1]]
    if not functions:
        return None
    function = max(functions)  # the innermost one begins last
    names = {name for span, name in found.bindings if span[0] <= line <= span[1]}
    for wait in found.waits:
        if not (function[0] <= wait.span[0] and wait.span[1] <= function[1]):
            continue
        if wait.given[0] <= line <= wait.given[1] or (wait.span[0] >= line and names & wait.names):
            return (wait.name, *wait.span)
    return None


def _read(file: str) -> _File | None:
    if file not in _files:
        if len(_files) >= _MOST_FILES:
            _files.clear()
        _files[file] = _parse(file)
    return _files[file]


def _parse(file: str) -> _File | None:
    try:
        text = "".join(linecache.getlines(file))
        return _File(_tree(text)) if text and len(text) <= _LONGEST else None
    except Exception:
        return None  # what no parser reads says nothing


# The parser's warnings were the program's at its import; here they would be said once more.
# Our own filter, of what is parsed under our name: catch_warnings() would have an effect on all
# threads, and make Python forget which warnings it has shown. (Python/_warnings.c: a str must equal
# the module, which is the file's name.)
_PARSED = "<leakguard>"
_FILTER = ("ignore", None, Warning, _PARSED, 0)
# 3.15 takes the module's name; before, it is the file's.
_AS_MODULE: dict[str, Any] = {"module": _PARSED} if sys.version_info >= (3, 15) else {}


def _tree(text: str) -> ast.Module:
    filters: list[Any] = warnings.filters  # type: ignore[assignment]  # a list, whatever typeshed says
    filters.insert(0, _FILTER)
    try:
        tree: ast.Module = ast.parse(text, _PARSED, **_AS_MODULE)
        return tree
    finally:
        filters.remove(_FILTER)


def _handlers_of(code: CodeType) -> list[_Handler]:
    found = _read(code.co_filename)
    if found is None:
        return []
    lines = [line for _, _, line in code.co_lines() if line is not None]
    first, last = code.co_firstlineno, max(lines, default=0)
    return [handler for handler in found.handlers if first <= handler[0] <= last]


def _handlers_in(node: ast.AST) -> Iterator[_Handler]:
    if isinstance(node, ast.ExceptHandler) and _catches(node.type):
        raises = any(isinstance(inner, ast.Raise) for inner in _own(node.body))
        yield (*_span(node), not raises)
    elif isinstance(node, (ast.Try, ast.TryStar)) and node.finalbody:
        leaves = any(isinstance(inner, ast.Return) for inner in _own(node.finalbody)) or any(
            isinstance(inner, (ast.Break, ast.Continue))
            for inner in _own(node.finalbody, _FUNCTIONS + _LOOPS)
        )
        yield node.finalbody[0].lineno, _span(node.finalbody[-1])[1], leaves
    elif isinstance(node, (ast.With, ast.AsyncWith)):
        for item in node.items:
            call = item.context_expr
            if not isinstance(call, ast.Call) or _name(call.func) != "suppress":
                continue
            if any(_catches(argument) for argument in call.args):
                yield node.lineno, node.lineno, True


_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda, ast.ClassDef)
_LOOPS = (ast.For, ast.AsyncFor, ast.While)


def _own(nodes: list[ast.stmt], other: tuple[type[ast.AST], ...] = _FUNCTIONS) -> Iterator[ast.AST]:
    """These nodes and all in them, but for what is inside of `other`."""
    left: list[ast.AST] = [*nodes]
    while left:
        node = left.pop()
        if not isinstance(node, other):
            yield node
            left += ast.iter_child_nodes(node)


def _catches(expression: ast.expr | None) -> bool:
    if expression is None:
        return True
    if isinstance(expression, ast.Tuple):
        return any(_catches(one) for one in expression.elts)
    return _name(expression) in _CATCHES_CANCELLATION


def _bindings_in(node: ast.AST) -> Iterator[tuple[_Span, str]]:
    targets: list[ast.expr] = []
    if isinstance(node, ast.Assign):
        targets = node.targets
    elif isinstance(node, (ast.AnnAssign, ast.AugAssign, ast.NamedExpr)):
        targets = [node.target]
    elif (
        isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr in ("add", "append")  # tasks.append(create_task(...))
    ):
        targets = [node.func.value]
    for target in targets:
        for part in target.elts if isinstance(target, ast.Tuple) else [target]:
            name = _dotted(part)
            if name is not None:
                yield _span(node), name


def _wait_of(call: ast.Call) -> _Wait | None:
    name = _name(call.func)
    if name not in ("wait", "wait_for") or not call.args:
        return None
    if isinstance(call.func, ast.Attribute) and _dotted(call.func.value) not in _MODULES:
        return None  # an event's, or a condition's
    given = call.args[0]
    if name == "wait_for":
        is_early = isinstance(given, ast.Call) and _name(given.func) == "shield"
    else:
        is_early = any(_ends_early(keyword) for keyword in call.keywords)
    return _Wait(name, call, given) if is_early else None


def _ends_early(keyword: ast.keyword) -> bool:
    if keyword.arg == "timeout":
        return not (isinstance(keyword.value, ast.Constant) and keyword.value.value is None)
    return keyword.arg == "return_when" and _name(keyword.value) in _EARLY


def _span(node: ast.AST) -> _Span:
    first: int = node.lineno  # type: ignore[attr-defined]  # of the nodes that have a place
    return first, getattr(node, "end_lineno", None) or first


def _dotted(node: ast.AST) -> str | None:
    """`self._task` as text; None for what is no name."""
    parts: list[str] = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    return ".".join([node.id, *reversed(parts)]) if isinstance(node, ast.Name) else None


def _name(expression: ast.expr) -> str | None:
    if isinstance(expression, ast.Attribute):
        return expression.attr
    return expression.id if isinstance(expression, ast.Name) else None
