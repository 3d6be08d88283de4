"""What a check found: a Report, which is a sequence of Leaks."""

from __future__ import annotations

import os
import sys
import time

from leakguard._core import untrack
from leakguard._version import __version__

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from traceback import FrameSummary, StackSummary
    from typing import Any, overload

    from leakguard._findings import Blocked, Fanout
else:
    # The same class as collections.abc.Sequence, without the import of all of collections.
    from _collections_abc import Sequence

Frame = tuple[str, int | None, str]  # (file, line, function)
Frames = tuple[Frame, ...]  # outermost first
Hidden = tuple[str, str, int]  # (rule, reason, count)

SCHEMA = 1

_FRAMES_LIMIT = 16_384
_frame_summaries: dict[Frame, FrameSummary] = {}


class Creator:
    """The resource in which another was created; known also when it has ended."""

    __slots__ = ("_ended", "_function", "_kind", "_name", "_serial")

    def __init__(
        self, kind: str, serial: int, name: str | None, function: str, ended: str | None
    ) -> None:
        self._kind = kind
        self._serial = serial
        self._name = name
        self._function = function
        self._ended = ended

    @property
    def kind(self) -> str:
        """`task`, `thread`, ..."""
        return self._kind

    @property
    def serial(self) -> int:
        """Its place in the order of birth."""
        return self._serial

    @property
    def name(self) -> str | None:
        """The name of the task or thread."""
        return self._name

    @property
    def function(self) -> str:
        """What it runs or ran."""
        return self._function

    @property
    def ended(self) -> str | None:
        """None while it lives; `returned`, `cancelled` or `raised`."""
        return self._ended

    def to_dict(self) -> dict[str, Any]:
        """Its attributes, as they stand in JSON."""
        return {
            "kind": self._kind,
            "serial": self._serial,
            "name": self._name,
            "function": self._function,
            "ended": self._ended,
        }

    def __repr__(self) -> str:
        ended = "" if self._ended is None else f", {self._ended}"
        return f"<Creator {self._kind} {self._serial} {self._function}{ended}>"


class Leak:
    """One resource that was left behind, as it was when the check looked. Read-only."""

    __module__ = "leakguard"
    __slots__ = (
        "_age",
        "_cause",
        "_creation",
        "_creation_stack",
        "_creator",
        "_current",
        "_current_native",
        "_current_stack",
        "_facts",
        "_function",
        "_kind",
        "_name",
        "_native",
        "_serial",
        "_site",
        "_site_is_definition",
        "_state",
        "_why",
    )

    def __init__(
        self,
        *,
        kind: str,
        serial: int,
        name: str | None,
        function: str,
        state: str | None,
        age: float,
        creation: Frames = (),
        current: Frames = (),
        native: Sequence[object] | None = None,
        current_native: Sequence[object] | None = None,
        site: Frame | None = None,
        site_is_definition: bool = False,
        creator: Creator | None = None,
        cause: str | None = None,
        facts: Mapping[str, Any] | None = None,
        why: str = "",
    ) -> None:
        """creation, current: frames, outermost first; leaks may share one tuple.
        site_is_definition: nothing of the creation stack was the program's, so `site` is where
        the coroutine function or thread target is defined."""
        self._kind = kind
        self._serial = serial
        self._name = name
        self._function = function
        self._state = state
        self._age = age
        self._creation = creation
        self._current = current
        self._native = native
        self._current_native = current_native
        self._site = site
        self._site_is_definition = site_is_definition
        self._creator = creator
        self._cause = cause
        self._facts = facts
        self._why = why
        self._creation_stack: StackSummary | None = None
        self._current_stack: StackSummary | None = None
        if type(self) is Leak:
            # It can be in no cycle, nothing can be added to it, and what it refers to never refers
            # to it; to look at a hundred thousand takes the collector longer than to make them.
            untrack(self)

    @property
    def kind(self) -> str:
        """`task`, `thread`, ..."""
        return self._kind

    @property
    def serial(self) -> int:
        """Its place in the order of birth; never reused."""
        return self._serial

    @property
    def name(self) -> str | None:
        """The name of the task or thread."""
        return self._name

    @property
    def function(self) -> str:
        """The coroutine's qualified name, the thread's target, the callback, ..."""
        return self._function

    @property
    def state(self) -> str | None:
        """Task: pending, waiting, running, abandoned, destroyed, or done (in a snapshot of done
        tasks); thread: starting, running."""
        return self._state

    @property
    def age(self) -> float:
        """Seconds since its birth."""
        return self._age

    @property
    def creation_stack(self) -> StackSummary:
        """Where it was created, outermost first; empty if it was there before tracking."""
        if self._creation_stack is None:
            self._creation_stack = _stack_summary(self._creation)
        return self._creation_stack

    @property
    def current_stack(self) -> StackSummary:
        """Where it is now, outermost first; of a task the whole await chain."""
        if self._current_stack is None:
            self._current_stack = _stack_summary(self._current)
        return self._current_stack

    @property
    def native_stack(self) -> Sequence[object] | None:
        """Where a thread was created in C: frames whose str names function and module; or None."""
        return self._native

    @property
    def current_native_stack(self) -> Sequence[object] | None:
        """Where a thread is in C now; or None."""
        return self._current_native

    @property
    def site(self) -> FrameSummary | None:
        """The line that a person would fix."""
        return None if self._site is None else _frame_summary(self._site)

    @property
    def creator(self) -> Creator | None:
        """The resource in which it was created."""
        return self._creator

    @property
    def cause(self) -> str | None:
        """Why it was left behind, in a word; or None."""
        return self._cause

    @property
    def facts(self) -> dict[str, Any]:
        """What else is known: JSON values by name. A copy."""
        return {} if self._facts is None else dict(self._facts)

    @property
    def why(self) -> str:
        """Why it was left behind, in a sentence; may be empty."""
        return self._why

    def to_dict(self) -> dict[str, Any]:
        """Its attributes, as they stand in JSON."""
        return _leak_to_dict(self, {})

    def __reduce__(self) -> tuple[Any, ...]:
        from leakguard._from_json import leak_from_dict

        return (leak_from_dict, (self.to_dict(),))

    def __repr__(self) -> str:
        where = "" if self._site is None else f", {self._site[0]}:{self._site[1]}"
        return f"<Leak {self._kind} {self._serial} {self._function}, {self._state}{where}>"


class SiteGroup(tuple["str", "FrameSummary | None", "tuple[Leak, ...]"]):
    """Leaks of one kind from one site: (kind, site, leaks)."""

    # typing.NamedTuple would import typing and collections into every watched process.
    __slots__ = ()
    _fields = ("kind", "site", "leaks")

    def __new__(cls, kind: str, site: FrameSummary | None, leaks: tuple[Leak, ...]) -> SiteGroup:
        return tuple.__new__(cls, (kind, site, leaks))

    def __getnewargs__(self) -> tuple[Any, ...]:
        return tuple(self)

    @property
    def kind(self) -> str:
        """The kind of all its leaks."""
        return self[0]

    @property
    def site(self) -> FrameSummary | None:
        """The site of all its leaks."""
        return self[1]

    @property
    def leaks(self) -> tuple[Leak, ...]:
        """In order of birth."""
        return self[2]

    def __repr__(self) -> str:
        return f"SiteGroup(kind={self.kind!r}, site={self.site!r}, leaks={self.leaks!r})"


class Report(Sequence["Leak"]):
    """What one check found: a sequence of leaks, false when there are none."""

    __module__ = "leakguard"
    __slots__ = (
        "_blocking",
        "_fanout",
        "_hidden",
        "_label",
        "_leaks",
        "_notes",
        "_origin",
        "_reason",
        "_time",
        "_waited",
    )

    def __init__(
        self,
        leaks: Iterable[Leak],
        *,
        reason: str,
        label: str | None = None,
        waited: float = 0.0,
        notes: Iterable[str] = (),
        hidden: Iterable[Hidden] = (),
        fanout: Iterable[Fanout] = (),
        blocking: Iterable[Blocked] = (),
    ) -> None:
        """reason: block, blocked, checkpoint, done, fixture, loop end, shutdown, snapshot, stable,
        terminated or test.
        waited: seconds; notes: sentences; hidden: (rule, reason, how many it hid).
        fanout, blocking: what was found beside leaks; a report is true for leaks only."""
        self._leaks = tuple(leaks)
        self._reason = reason
        self._label = label
        self._waited = waited
        self._notes = tuple(notes)
        self._hidden = tuple(hidden)
        self._fanout = tuple(fanout)
        self._blocking = tuple(blocking)
        # Every check of a clean program comes here: what is dear waits until it is asked for.
        self._time: float | str = time.time()
        self._origin: tuple[int, str, str, str] | int = os.getpid()

    @property
    def waited(self) -> float:
        """Seconds for which the check waited for an end."""
        return self._waited

    @property
    def label(self) -> str | None:
        """The label of the checkpoint, block or cycle."""
        return self._label

    @property
    def reason(self) -> str:
        """What made the check: checkpoint, block, loop end, shutdown, snapshot, stable, ..."""
        return self._reason

    @property
    def notes(self) -> tuple[str, ...]:
        """Sentences on what limits the report."""
        return self._notes

    @property
    def hidden(self) -> tuple[Hidden, ...]:
        """(rule, reason, how many leaks it hid) for each ignore rule that hid some."""
        return self._hidden

    @property
    def fanout(self) -> tuple[Fanout, ...]:
        """The limits of `max_live` that were exceeded."""
        return self._fanout

    @property
    def blocking(self) -> tuple[Blocked, ...]:
        """Each time that a loop was blocked for longer than `blocking` allowed."""
        return self._blocking

    @property
    def time(self) -> str:
        """When the report was made, in UTC, ISO 8601."""
        if not isinstance(self._time, str):
            self._time = _iso_time(self._time)
        return self._time

    @property
    def pid(self) -> int:
        """The process it was made in."""
        return self._origin if isinstance(self._origin, int) else self._origin[0]

    @property
    def host(self) -> str:
        """The machine it was made on."""
        return self._resolved()[1]

    @property
    def python(self) -> str:
        """The version of Python it was made with."""
        return self._resolved()[2]

    @property
    def leakguard(self) -> str:
        """The version of leakguard it was made with."""
        return self._resolved()[3]

    def _resolved(self) -> tuple[int, str, str, str]:
        if isinstance(self._origin, int):
            self._origin = (self._origin, _host(), sys.version.split()[0], __version__)
        return self._origin

    def __len__(self) -> int:
        return len(self._leaks)

    if TYPE_CHECKING:

        @overload
        def __getitem__(self, index: int) -> Leak: ...

        @overload
        def __getitem__(self, index: slice) -> tuple[Leak, ...]: ...

    def __getitem__(self, index: int | slice) -> Leak | tuple[Leak, ...]:
        return self._leaks[index]

    def __iter__(self) -> Iterator[Leak]:
        return iter(self._leaks)

    def by_site(self) -> list[SiteGroup]:
        """Groups (kind, site, leaks), largest first."""
        groups: dict[tuple[str, Frame | None], list[Leak]] = {}
        for leak in self._leaks:
            groups.setdefault((leak._kind, leak._site), []).append(leak)
        made = [SiteGroup(kind, group[0].site, tuple(group)) for (kind, _), group in groups.items()]
        return sorted(made, key=lambda group: -len(group.leaks))

    def graph(self) -> dict[str, list[dict[str, Any]]]:
        """Who waits for whom, and who created whom, as JSON values.

        nodes: `serial`, `kind`, `name`, `function`, `site` (a frame or None) and `cause`, of each
        resource here and of each other one at the end of an edge, as far as it is known.
        edges: `from` and `to` (serials), `kind` (`awaits`, `lock`: waits for a lock that the other
        holds, or `created`) and `by` (of `awaits`: gather, shield, wait, ...; else None).
        """
        from leakguard._graph import graph_of

        return graph_of(self)

    def text(self, color: bool = False) -> str:
        """The report for people, without an end of line. color: with ANSI colours."""
        from leakguard._text import render

        return render(self, color=color)

    def to_dict(self) -> dict[str, Any]:
        """The report for machines. Leaks that share a stack share one list in it."""
        frames: _FrameLists = {}
        found = self._head()
        found["leaks"] = [_leak_to_dict(leak, frames) for leak in self._leaks]
        found["hidden"] = [
            {"rule": rule, "reason": reason, "count": count} for rule, reason, count in self._hidden
        ]
        if self._notes:
            found["notes"] = list(self._notes)
        if self._fanout:
            found["fanout"] = [one.to_dict() for one in self._fanout]
        if self._blocking:
            found["blocking"] = [one.to_dict() for one in self._blocking]
        return found

    def _head(self) -> dict[str, Any]:
        pid, host, python, version = self._resolved()
        return {
            "schema": SCHEMA,
            "label": self._label,
            "reason": self._reason,
            "time": self.time,
            "pid": pid,
            "host": host,
            "python": python,
            "leakguard": version,
            "waited": self._waited,
        }

    def to_json(self) -> str:
        """`to_dict()` as one line of JSON, in ASCII."""
        import json

        return json.dumps(self.to_dict())

    @classmethod
    def from_json(cls, text: str | bytes) -> Report:
        """The report that `to_json` wrote. ValueError for anything else, saying what is wrong."""
        from leakguard._from_json import report_from_json

        return report_from_json(text)

    def __reduce__(self) -> tuple[Any, ...]:
        return (Report.from_json, (self.to_json(),))

    def __repr__(self) -> str:
        count = f"{len(self)} leak{'' if len(self) == 1 else 's'}" if self else "no leaks"
        label = "" if self._label is None else f" {self._label!r}"
        return f"<Report {self._reason}{label}: {count}>"


def json_lines(report: Report, *, note: bool = False) -> Iterator[str]:
    """A line of JSON for each leak, one with "fanout" or "blocking" for each such finding, and one
    with a "text" for each of the report's notes.

    note: what is reported is no leak, but worth a note. Lines have no end of line.
    """
    import json

    head = report._head()
    frames: _FrameLists = {}
    for leak in report:
        line = head | _leak_to_dict(leak, frames)
        yield json.dumps(line | {"note": True} if note else line)
    for fanout in report.fanout:
        yield json.dumps(head | {"fanout": fanout.to_dict()})
    for blocked in report.blocking:
        yield json.dumps(head | {"blocking": blocked.to_dict()})
    for text in report.notes:
        yield json.dumps(head | {"note": True, "text": text})


def _frame_summary(frame: Frame) -> FrameSummary:
    found = _frame_summaries.get(frame)
    if found is None:
        from traceback import FrameSummary

        if len(_frame_summaries) >= _FRAMES_LIMIT:
            _frame_summaries.clear()
        # A line number of None is allowed, whatever typeshed says.
        made: Any = FrameSummary
        found = _frame_summaries[frame] = made(*frame, lookup_line=False)
    return found


def _stack_summary(frames: Frames) -> StackSummary:
    from traceback import StackSummary

    return StackSummary.from_list([_frame_summary(frame) for frame in frames])


def _iso_time(seconds: float) -> str:
    milliseconds = int(seconds * 1000)
    whole = time.gmtime(milliseconds // 1000)
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', whole)}.{milliseconds % 1000:03d}+00:00"


def _host() -> str:
    if hasattr(os, "uname"):  # socket.gethostname() would import socket
        return os.uname().nodename
    return os.environ.get("COMPUTERNAME", "")


# Stacks by their id: leaks with one stack share one tuple, which lives as long as they do.
_FrameLists = dict[int, "list[dict[str, Any]]"]


def _leak_to_dict(leak: Leak, frames: _FrameLists) -> dict[str, Any]:
    found = {
        "kind": leak._kind,
        "serial": leak._serial,
        "name": leak._name,
        "function": leak._function,
        "state": leak._state,
        "age": leak._age,
        "creation_stack": _frame_list(leak._creation, frames),
        "current_stack": _frame_list(leak._current, frames),
        "native_stack": None if leak._native is None else [str(it) for it in leak._native],
        "current_native_stack": (
            None if leak._current_native is None else [str(it) for it in leak._current_native]
        ),
        "site": None if leak._site is None else _frame_dict(leak._site),
        "creator": None if leak._creator is None else leak._creator.to_dict(),
        "cause": leak._cause,
        "facts": leak.facts,
        "why": leak._why,
    }
    if leak._site_is_definition:
        found["site_is_definition"] = True
    return found


def _frame_list(stack: Frames, frames: _FrameLists) -> list[dict[str, Any]]:
    found = frames.get(id(stack))
    if found is None:
        found = frames[id(stack)] = [_frame_dict(frame) for frame in stack]
    return found


def _frame_dict(frame: Frame) -> dict[str, Any]:
    file, line, function = frame
    return {"file": file, "line": line, "function": function}
