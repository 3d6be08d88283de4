"""Writes a report for people."""

from __future__ import annotations

import linecache
import os

from leakguard._kinds import KINDS
from leakguard._native import inside_python
from leakguard._paths import display, is_foreign, runs_loop, runs_test

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import TypeVar

    from leakguard._findings import Blocked, Fanout
    from leakguard._report import Frame, Frames, Leak, Report

    T = TypeVar("T")
    Place = tuple[str, Frame | None]  # a word, and the frame that it is about

_MOST_CALLERS = 3
_MOST_NATIVE = 4
_LONGEST_SOURCE = 160

_MOMENTS = {
    "checkpoint": "since the checkpoint",
    "block": "since the block began",
    "loop end": "at loop end",
    "shutdown": "at shutdown",
}
_COUNTED_AS_LIVE = {
    "snapshot": "",
    "terminated": " at termination",
    "exit": " at exit",
    "os._exit": " at os._exit",
    "child exit": " at the end of a forked child",
}

_MADE_BY_LOOP = frozenset({"task", "timer", "asyncgen", "transport", "server"})


def render(report: Report, *, color: bool = False) -> str:
    """The report as text, without an end of line at its end; never raises."""
    paint = _Paint(color)
    lines = [paint.bold(_headline(report)), *entries_text(report, color=color)]
    lines += findings_text(report.fanout, report.blocking, color=color)
    closing = [f"note: {printable(note)}" for note in report.notes]
    closing += [
        f'hidden: {count} by rule "{printable(rule)}" ({printable(reason)})'
        for rule, reason, count in report.hidden
        if count
    ]
    if closing and len(lines) > 1:
        lines.append("")
    return "\n".join(lines + closing)


def entries_text(leaks: Iterable[Leak], *, color: bool = False) -> list[str]:
    """The lines for these leaks, by site, an empty one before each entry."""
    paint = _Paint(color)
    lines = []
    for number, group in enumerate(_entries(leaks), 1):
        lines += ["", *_entry(number, group, paint)]
    return lines


def findings_text(
    fanout: Iterable[Fanout], blocking: Iterable[Blocked], *, color: bool = False
) -> list[str]:
    """The lines for what is no leak, an empty one before each entry."""
    paint = _Paint(color)
    lines = []
    for one in fanout:
        lines += ["", *_fanout_entry(one, paint)]
    for blocked in blocking:
        lines += ["", *_blocked_entry(blocked, paint)]
    return lines


def findings_counts(fanout: Sequence[Fanout], blocking: Sequence[Blocked]) -> str:
    """How much was found beside leaks, as it follows in a headline; empty where nothing was."""
    found = f"; {_plural(len(fanout), 'limit')} exceeded" if fanout else ""
    if blocking:
        found += f"; event loop blocked {'once' if len(blocking) == 1 else ''}"
        found += f"{len(blocking)} times" if len(blocking) > 1 else ""
    return found


def headline_counts(leaks: Iterable[Leak]) -> str:
    """How many of each kind: `2 tasks, 1 thread`."""
    counts = _counted([leak._kind for leak in leaks])
    order = {kind: place for place, kind in enumerate(KINDS)}
    return ", ".join(
        _plural(count, kind)
        for kind, count in sorted(counts, key=lambda it: (order.get(it[0], len(KINDS)), it[0]))
    )


def use_color(stream: object) -> bool:
    """Whether to write colours to this stream: NO_COLOR, FORCE_COLOR, else a capable terminal."""
    if stream is None or os.environ.get("NO_COLOR"):
        return False
    if os.environ.get("FORCE_COLOR", "0") not in ("", "0"):
        return True
    try:
        is_terminal = bool(stream.isatty())  # type: ignore[attr-defined]  # anything may stand here
    except Exception:
        return False  # closed, or no stream at all
    return is_terminal and os.environ.get("TERM") != "dumb"


def duration(seconds: float) -> str:
    """A time span for people: `0.25 s`, `3.2 s`, `4 min 10 s`, `2 h 5 min`, `3 d 4 h`."""
    if seconds < 0.995:
        digits = 2 if seconds >= 0.095 else 3
        return f"{max(seconds, 0.0):.{digits}f}".rstrip("0").rstrip(".") + " s"
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    units = ((86_400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s"))
    for size, unit, part_size, part_unit in units:
        parts = round(seconds / part_size)
        whole, part = divmod(parts, size // part_size)
        if whole:
            return f"{whole} {unit} {part} {part_unit}" if part else f"{whole} {unit}"
    return f"{seconds:.1f} s"


def printable(text: str) -> str:
    """The text on one line, without control characters and lone surrogates."""
    if text.isprintable():
        return text
    return "".join(
        char if char.isprintable() else repr(char)[1:-1] for char in text.replace("\t", " ")
    )


class _Paint:
    """ANSI colours, or nothing."""

    def __init__(self, color: bool) -> None:
        self._color = color

    def bold(self, text: str) -> str:
        return self._in(text, "1")

    def dim(self, text: str) -> str:
        return self._in(text, "2")

    def kind(self, text: str) -> str:
        return self._in(text, "36")

    def _in(self, text: str, code: str) -> str:
        return f"\x1b[{code}m{text}\x1b[0m" if self._color else text


def _headline(report: Report) -> str:
    kinds = headline_counts(report)
    if report.reason == "blocked":
        return "leakguard: an event loop was blocked"
    if report.reason == "done":
        return f"leakguard: {_plural(len(report), 'done task')} still held"
    if report.reason in _COUNTED_AS_LIVE:
        total = _plural(len(report), "live resource") if report else "no live resources"
        listed = f" ({kinds})" if kinds else ""
        return f"leakguard: {total}{_COUNTED_AS_LIVE[report.reason]}{listed}"
    beside = findings_counts(report.fanout, report.blocking)
    if not report and beside and report.reason in ("loop end", "shutdown"):
        return f"leakguard: {beside[2:]} {_moment(report)}"  # of leaks, another report tells
    if not report:
        # A note says what may have been missed: then "no leaks" would be too much.
        found = "no leaks seen" if report.notes else "no leaks"
        return f"leakguard: {found} {_moment(report)}{beside}"
    waited = duration(report.waited)
    count = _plural(len(report), "leak")
    return f"leakguard: {count} {_moment(report)} ({kinds}; waited {waited}){beside}"


def _moment(report: Report) -> str:
    reason, label = report.reason, report.label
    shown = printable(repr(label))
    if reason == "stable":
        return f"since the call of assert_stable({shown}) before"
    if reason in ("test", "fixture"):
        return f"in {reason} {printable(label or '')}"
    if label is not None and reason not in ("loop end", "shutdown"):
        return f"since checkpoint {shown}"
    return _MOMENTS.get(reason) or f"at {printable(reason)}"


def _plural(count: int, noun: str) -> str:
    if count != 1:
        noun += "es" if noun.endswith("s") else "s"
    return f"{count} {printable(noun)}"


def _entries(report: Iterable[Leak]) -> list[list[Leak]]:
    """One for each site and kind, largest first."""
    groups: dict[object, list[Leak]] = {}
    for leak in report:
        # Without a site, the function is all that tells one from another.
        site = leak._function if leak._site is None else leak._site
        groups.setdefault((leak._kind, site), []).append(leak)
    return sorted(groups.values(), key=lambda leaks: -len(leaks))


def _entry(number: int, leaks: list[Leak], paint: _Paint) -> list[str]:
    functions = _counted([leak._function for leak in leaks])
    others = f" and {_plural(len(functions) - 1, 'other')}" if len(functions) > 1 else ""
    oldest = duration(max([leak._age for leak in leaks]))
    lines = [
        f"{number}. {paint.kind(printable(leaks[0]._kind))} {printable(functions[0][0])}{others}, "
        f"{len(leaks)} alive, oldest {oldest}"
    ]
    lines += _birth(leaks, paint)
    lines += _now(leaks, paint)
    lines += _reasons(leaks)
    return lines


def _birth(leaks: list[Leak], paint: _Paint) -> list[str]:
    site = leaks[0]._site
    stacks = _counted_stacks([leak._creation for leak in leaks])
    creation = stacks[0][0]
    if leaks[0]._site_is_definition and site is not None:
        maker = "the event loop" if leaks[0]._kind in _MADE_BY_LOOP else "the standard library"
        born = f", created by {maker}" if creation else ", created before tracking began"
        return _place("defined at", site, paint, born)
    if site is None and not creation:
        return _native_birth(leaks[0])
    if site is None:
        site = creation[-1]  # the program's frames further out only started the loop
    lines = _place("created at", site, paint)
    callers = _callers(creation, site)
    lines += [f"     called from {frame_text(frame)}" for frame in callers[:_MOST_CALLERS]]
    if len(callers) > _MOST_CALLERS:
        lines.append(f"     ... and {_plural(len(callers) - _MOST_CALLERS, 'more caller')}")
    if leaks[0]._kind == "native_thread" and leaks[0]._native:
        lines.append(f"     in C: {_in_c(leaks[0]._native)}")
    return lines


def _native_birth(leak: Leak) -> list[str]:
    """Of what no line of Python created, as far as is known."""
    if leak._native:
        return [f"   created in C: {_in_c(leak._native)}"]
    if leak._kind == "native_thread":
        return ["   creation not seen: before tracking began, or by the C library itself"]
    return ["   created before tracking began"]


def _in_c(frames: Sequence[object]) -> str:
    """The native frames that Python's do not say, innermost first."""
    shown = inside_python(frames)
    more = " < ..." if len(shown) > _MOST_NATIVE else ""
    return printable(" < ".join(shown[:_MOST_NATIVE])) + more


def _callers(creation: Frames, site: Frame) -> list[Frame]:
    """The program's frames outward of the site, innermost first, up to the running loop or
    test."""
    if site not in creation:
        return []
    inner = len(creation) - 1 - creation[::-1].index(site)
    found = []
    for frame in reversed(creation[:inner]):
        if runs_loop(frame) or runs_test(frame):
            break
        if not is_foreign(frame[0]):
            found.append(frame)
    return found


def _now(leaks: list[Leak], paint: _Paint) -> list[str]:
    """Where most of them are now, and at how many other places the rest is."""
    places, first = _places(leaks)
    word, frame = places[0][0]
    others = _elsewhere(places[1:])
    leak = first[word, frame]
    in_c = inside_python(leak._current_native) if leak._current_native else []
    if frame is not None:
        lines = _place(word, frame, paint, others)
        if in_c:
            lines.append(f"     in C: {_in_c(leak._current_native or ())}")
        elif leak._facts and "unanswered" in leak._facts:
            lines += [f"     {line.strip()}" for line in _in_kernel(leak)]
        return lines
    if word:
        return [f"   {word}{others}"]
    if in_c:
        return [f"   waiting in C: {_in_c(leak._current_native or ())}"]
    return _in_kernel(leak)


def _places(leaks: list[Leak]) -> tuple[list[tuple[Place, int]], dict[Place, Leak]]:
    """(place, how many are there), most first; and the first that is at each."""
    by_stack: dict[tuple[str | None, int], list[Leak]] = {}
    for leak in leaks:  # of one kind; most that are at one place share its stack
        key = leak._state, id(leak._current)
        if key in by_stack:
            by_stack[key].append(leak)
        else:
            by_stack[key] = [leak]
    first: dict[Place, Leak] = {}
    counts: dict[Place, int] = {}
    for found in by_stack.values():
        place = _place_now(found[0])
        first.setdefault(place, found[0])
        counts[place] = counts.get(place, 0) + len(found)
    return _most_first(counts), first


def _in_kernel(leak: Leak) -> list[str]:
    """Of a thread that gave no answer, or was not asked."""
    facts = leak._facts or {}
    if "syscall" not in facts or not (leak._kind == "native_thread" or "unanswered" in facts):
        return []
    where = f"{facts['wchan']}, " if "wchan" in facts else ""
    return [f"   waiting in the kernel: {where}system call {facts['syscall']}"]


def _place_now(leak: Leak) -> tuple[str, Frame | None]:
    state, current = leak._state, leak._current
    if state == "pending":
        return "not started yet", None
    if state == "done":
        return "done, and still held", None
    if state == "starting":
        return "starting", None
    if not current:
        return ("destroyed while pending" if state == "destroyed" else ""), None
    # A thread's `running` only says that it has not ended.
    word = "running at" if state == "running" and leak._kind == "task" else "waiting at"
    return word, _innermost(current)


def _elsewhere(rest: list[tuple[tuple[str, Frame | None], int]]) -> str:
    parts = []
    places = sum(1 for (_, frame), _ in rest if frame is not None)
    if places:
        parts.append(f"at {_plural(places, 'other place')}")
    parts += [f"{count} {word}" for (word, frame), count in rest if frame is None and word]
    return f" (and {', '.join(parts)})" if parts else ""


def _reasons(leaks: list[Leak]) -> list[str]:
    """One line: the sentence of the most frequent cause; sentences with one cause differ only in
    names."""
    whys = _counted([(leak._cause, leak._why) for leak in leaks if leak._why])
    by_cause: dict[str, tuple[str, int]] = {}
    for (cause, why), count in whys:
        key = why if cause is None else f"cause {cause}"
        first, before = by_cause.get(key, (why, 0))
        by_cause[key] = (first, before + count)
    if not by_cause:
        return []
    why, count = max(by_cause.values(), key=lambda it: it[1])
    share = "" if count == len(leaks) else f" ({count} of {len(leaks)})"
    if len(by_cause) > 1:
        others = _plural(len(by_cause) - 1, "other reason")
        share = f" ({count} of {len(leaks)}, and {others})"
    return [f"   why: {printable(why)}{share}"]


def _fanout_entry(fanout: Fanout, paint: _Paint) -> list[str]:
    kinds = _plural(fanout.peak, fanout.kind).partition(" ")[2]
    text = f"fan-out: {fanout.peak} {paint.kind(kinds)} alive at once, {fanout.limit} allowed"
    if fanout.site is None:
        return [text]
    share = "all" if fanout.site_share == fanout.peak else str(fanout.site_share)
    lines = [f"{text}; {share} of them created at {frame_text(fanout.site)}"]
    source = _source(fanout.site)
    if source:
        lines.append(f"    {paint.dim(source)}")
    callers = _callers(fanout.creation, fanout.site)
    return lines + [f"  called from {frame_text(frame)}" for frame in callers[:_MOST_CALLERS]]


def _blocked_entry(blocked: Blocked, paint: _Paint) -> list[str]:
    text = (
        f"blocked: the event loop in {printable(blocked.thread)} for {duration(blocked.duration)}, "
        f"{duration(blocked.limit)} allowed"
    )
    if blocked.function is not None:
        name = f"{printable(blocked.name)} " if blocked.name is not None else ""
        text += f"; by task {name}({printable(blocked.function)})"
    lines = [text]
    if blocked.stack:
        frame = _innermost(blocked.stack)
        lines.append(f"  at {frame_text(frame)}")
        source = _source(frame)
        if source:
            lines.append(f"    {paint.dim(source)}")
        callers = _callers(blocked.stack, frame)
        lines += [f"  called from {frame_text(one)}" for one in callers[:_MOST_CALLERS]]
    if blocked.native and (shown := inside_python(blocked.native)):
        lines.append(f"  in C: {printable(' < '.join(shown[:_MOST_NATIVE]))}")
    return lines


def _innermost(stack: Frames) -> Frame:
    """The innermost frame of the program; where there is none, the innermost."""
    for frame in reversed(stack):
        if not is_foreign(frame[0]):
            return frame
    return stack[-1]


def _place(word: str, frame: Frame, paint: _Paint, more: str = "") -> list[str]:
    lines = [f"   {word} {frame_text(frame)}{more}"]
    source = _source(frame)
    if source:
        lines.append(f"       {paint.dim(source)}")
    return lines


def frame_text(frame: Frame) -> str:
    """`path:line in function`, as a report shows a frame."""
    file, line, function = frame
    where = display(file) if line is None else f"{display(file)}:{line}"
    return f"{printable(where)} in {printable(function)}"


def _source(frame: Frame) -> str:
    file, line, _ = frame
    if line is None:
        return ""
    try:
        source = printable(linecache.getline(file, line).strip())
    except Exception:
        return ""  # a name that no file can have, or a file that is none
    if len(source) > _LONGEST_SOURCE:
        return source[: _LONGEST_SOURCE - 4] + " ..."
    return source


def _counted_stacks(stacks: list[Frames]) -> list[tuple[Frames, int]]:
    """As `_counted`; equal stacks are mostly one tuple, which then is hashed once."""
    by_id = {id(stack): stack for stack in stacks}
    counts: dict[Frames, int] = {}
    for key, count in _counted([id(stack) for stack in stacks]):
        counts[by_id[key]] = counts.get(by_id[key], 0) + count
    return _most_first(counts)


def _counted(keys: Iterable[T]) -> list[tuple[T, int]]:
    """(key, how often it is there), most first."""
    counts: dict[T, int] = {}
    for key in keys:
        counts[key] = counts.get(key, 0) + 1
    return _most_first(counts)


def _most_first(counts: dict[T, int]) -> list[tuple[T, int]]:
    """Of equally many, the first seen first."""
    return sorted(counts.items(), key=lambda it: -it[1])
