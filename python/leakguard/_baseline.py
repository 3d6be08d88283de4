"""A baseline: the leaks that a test suite has today, so that only new ones fail it.

An entry is known by its creation stack: each frame's file, function and the function that it calls,
without line numbers. It stays valid when lines move.
"""

from __future__ import annotations

import json
from datetime import date
from pathlib import Path

from leakguard._kinds import known_kinds
from leakguard._paths import is_foreign, runs_loop, runs_test

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    from leakguard._report import Leak

SCHEMA = 1

_INSTALLED = ("/site-packages/", "/dist-packages/")

_CALL = ("file", "function", "calls")
Call = tuple[str, str, str]  # file, function, the function that it calls ("" where C is called)
Key = tuple[str, str, tuple[Call, ...]]  # kind, function, stack from the innermost frame outward


class Entry:
    """One known leak. Hides what it matches, as an ignore rule does."""

    __slots__ = ("key", "reason", "tests")

    def __init__(self, key: Key, reason: str, tests: Iterable[str]) -> None:
        self.key = key
        self.reason = reason
        self.tests = sorted(set(tests))  # node ids without parameters, for people

    def __str__(self) -> str:
        kind, function, stack = self.key
        where = f" created in {stack[0][1]} ({stack[0][0]})" if stack else ""
        return f"{kind} {function}{where}"

    def to_dict(self) -> dict[str, Any]:
        """As it stands in the file."""
        kind, function, stack = self.key
        return {
            "kind": kind,
            "function": function,
            "stack": [dict(zip(_CALL, call, strict=True)) for call in stack],
            "tests": self.tests,
            "reason": self.reason,
        }

    @classmethod
    def from_dict(cls, found: object) -> Entry:
        """Raises ValueError that says what is wrong."""
        wanted = {"kind": str, "function": str, "stack": list, "tests": list, "reason": str}
        if not isinstance(found, dict):
            raise ValueError(f"an entry is an object, not {found!r}")
        for name, kind in wanted.items():
            if not isinstance(found.get(name), kind):
                raise ValueError(f"{name!r} must be a {kind.__name__}, not {found.get(name)!r}")
        if found["kind"] not in known_kinds():
            raise ValueError(f"unknown kind {found['kind']!r}; allowed: {', '.join(known_kinds())}")
        if not found["reason"].strip():
            raise ValueError("the reason is empty; say why this leak may stay")
        try:
            stack = tuple((it["file"], it["function"], it["calls"]) for it in found["stack"])
        except (TypeError, KeyError):
            raise ValueError("a frame of 'stack' has a file, a function and calls") from None
        return cls((found["kind"], found["function"], stack), found["reason"], found["tests"])


class Baseline:
    """A baseline file. Hides what its entries match, as an ignore rule does."""

    reason = "known when the baseline was made"

    def __init__(self, path: Path, root: Path, entries: Iterable[Entry]) -> None:
        """root: the folder that the paths in it are relative to."""
        self.path = path
        self.root = root
        self.entries = {entry.key: entry for entry in entries}
        self._seen: list[Key] = []

    def matches(self, leak: Leak) -> bool:
        """Whether the baseline knows this leak."""
        key = key_of(leak, self.root)
        if key not in self.entries:
            return False
        self._seen.append(key)
        return True

    def take_seen(self) -> list[Key]:
        """What was hidden since the last call."""
        seen, self._seen = self._seen, []
        return seen

    def gone(self, seen: dict[Key, set[str]], ran: set[str]) -> list[Entry]:
        """The entries that no longer occur: all their tests ran, and none leaked so.

        seen: the tests in which each was seen; ran: the tests that were checked.
        """
        return [
            entry
            for key, entry in self.entries.items()
            if key not in seen and ran.issuperset(entry.tests)
        ]

    def update(self, seen: dict[Key, set[str]], ran: set[str]) -> None:
        """Make it say what was seen now; of tests that did not run, what it said before."""
        for entry in self.gone(seen, ran):
            del self.entries[entry.key]
        for key, tests in seen.items():
            known = self.entries.get(key)
            others = set() if known is None else {it for it in known.tests if it not in ran}
            reason = f"known since {date.today()}" if known is None else known.reason
            self.entries[key] = Entry(key, reason, tests | others)

    def __str__(self) -> str:
        return f"baseline {self.path.name}"


def key_of(leak: Leak, root: Path) -> Key:
    """What a leak is known by. root: the folder that paths are relative to."""
    calls: list[Call] = []
    inner = ""
    for file, _, function in reversed(leak._creation):
        frame = (file, None, function)
        if runs_loop(frame) or runs_test(frame):
            break
        if not is_foreign(file):
            calls.append((_relative(file, root), function, inner))
        inner = function
    if not calls and leak._site is not None:
        calls.append((_relative(leak._site[0], root), leak._site[2], ""))
    return (leak.kind, leak.function, tuple(calls))


def _relative(file: str, root: Path) -> str:
    path = file.replace("\\", "/")
    for folder in _INSTALLED:
        if folder in path:
            return path.rpartition(folder)[2]
    own = root.as_posix() + "/"
    return path.removeprefix(own)


def load(path: Path, root: Path) -> Baseline:
    """Read a baseline file. Raises ValueError, saying what is wrong, or OSError."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"it is no JSON: {error}") from None
    if not isinstance(found, dict) or found.get("schema") != SCHEMA:
        raise ValueError(f'allowed: an object with "schema": {SCHEMA} and a list "leaks"')
    entries = []
    for number, entry in enumerate(found.get("leaks", []), 1):
        try:
            entries.append(Entry.from_dict(entry))
        except ValueError as error:
            raise ValueError(f"entry {number}: {error}") from None
    return Baseline(path, root, entries)


def save(baseline: Baseline) -> None:
    """Write the file, in an order that keeps the differences between two versions small."""
    entries = sorted(baseline.entries.values(), key=lambda entry: entry.key)
    found = {"schema": SCHEMA, "leaks": [entry.to_dict() for entry in entries]}
    scratch = baseline.path.with_name(baseline.path.name + ".new")
    scratch.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    scratch.replace(baseline.path)


def key_from_json(found: Any) -> Key:
    """A key that went through JSON or between processes."""
    kind, function, stack = found
    return (kind, function, tuple((file, caller, called) for file, caller, called in stack))
