"""Reads reports back from files: text grouped by site over many processes, or for other tools."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from leakguard._from_json import (
    blocked_from_dict,
    fanout_from_dict,
    leak_from_dict,
    report_from_dict,
)
from leakguard._graph import dot_of, graph_of
from leakguard._paths import display, is_foreign
from leakguard._report import Report
from leakguard._text import (
    entries_text,
    findings_counts,
    findings_text,
    headline_counts,
    printable,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path
    from typing import Any

    from leakguard._findings import Blocked, Fanout
    from leakguard._report import Frames, Leak

_SPEEDSCOPE = "https://www.speedscope.app/file-format-schema.json"


class Found:
    """What stood in the files."""

    def __init__(self) -> None:
        self.leaks: list[Leak] = []
        self.notes: list[Leak] = []  # worth a note, but no leaks
        self.fanout: list[Fanout] = []
        self.blocking: list[Blocked] = []
        self.texts: list[str] = []  # notes without a resource
        self.hidden: dict[tuple[str, str], int] = {}
        self.by_process: dict[tuple[str, int], list[Leak]] = {}  # host, process id: leaks and notes
        self.times: list[str] = []
        self.files = 0


class ReadError(Exception):
    """A file cannot be read, or is no report; the text says where and why."""


def read(paths: Iterable[Path]) -> Found:
    """The reports of all these files. Raises ReadError."""
    found = Found()
    stacks: dict[Frames, Frames] = {}
    for path in paths:
        try:
            with path.open(encoding="utf-8") as lines:
                for number, line in enumerate(lines, 1):
                    if line.strip():
                        _read_line(found, line, f"{path}:{number}", stacks)
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
            raise ReadError(f"{path}: {reason}") from None
        found.files += 1
    return found


def _read_line(found: Found, line: str, where: str, stacks: dict[Frames, Frames]) -> None:
    """One leak, one note, or a whole report (`Report.to_json`)."""
    read: list[Leak] = []
    try:
        data = json.loads(line)
        if isinstance(data, dict) and "leaks" in data:
            report = report_from_dict(data)
            read += report
            found.leaks += read
            found.fanout += report.fanout
            found.blocking += report.blocking
            found.texts += report.notes
            for rule, reason, count in report.hidden:
                found.hidden[rule, reason] = found.hidden.get((rule, reason), 0) + count
        elif isinstance(data, dict) and "fanout" in data:
            found.fanout.append(fanout_from_dict(data["fanout"]))
        elif isinstance(data, dict) and "blocking" in data:
            found.blocking.append(blocked_from_dict(data["blocking"]))
        elif isinstance(data, dict) and "text" in data:
            found.texts.append(str(data["text"]))
        else:
            leak = leak_from_dict(data, stacks)
            is_leak = not data.get("note") and data.get("reason") not in ("snapshot", "done")
            read.append(leak)
            (found.leaks if is_leak else found.notes).append(leak)
    except RecursionError:
        raise ReadError(f"{where}: nested too deeply") from None
    except ValueError as error:
        raise ReadError(f"{where}: {error}") from None
    process = (str(data.get("host")), int(data.get("pid") or 0))
    found.by_process.setdefault(process, []).extend(read)
    found.times.append(str(data.get("time")))


def as_text(found: Found, *, color: bool = False) -> str:
    """For people: the leaks of all processes, by site."""
    lines = [_headline(found)]
    lines += entries_text(found.leaks, color=color)
    lines += findings_text(found.fanout, found.blocking, color=color)
    if found.notes:
        lines += ["", f"also alive, no leaks: {headline_counts(found.notes)}"]
        lines += entries_text(found.notes, color=color)
    closing = [f"note: {printable(text)}" for text in dict.fromkeys(found.texts)]
    closing += [
        f'hidden: {count} by rule "{printable(rule)}" ({printable(reason)})'
        for (rule, reason), count in found.hidden.items()
    ]
    return "\n".join([*lines, *([""] if closing else []), *closing]) + "\n"


def _headline(found: Found) -> str:
    files = "1 file" if found.files == 1 else f"{found.files} files"
    processes = len(found.by_process)
    of = "1 process" if processes == 1 else f"{processes} processes"
    beside = findings_counts(found.fanout, found.blocking)
    if not found.leaks:
        return f"leakguard: no leaks in {files}" + (f" of {of}" if processes else "") + beside
    count = "1 leak" if len(found.leaks) == 1 else f"{len(found.leaks)} leaks"
    span = f"{min(found.times)} to {max(found.times)}"
    counts = headline_counts(found.leaks)
    return f"leakguard: {count} of {of} in {files} ({counts}; {span}){beside}"


def as_json(found: Found, *, color: bool = False) -> str:
    """For machines: one object with the sites, most leaks first, and each leak."""
    del color
    report = Report(found.leaks, reason="show")
    sites = [
        {
            "kind": group.kind,
            "site": group.leaks[0].to_dict()["site"],
            "functions": sorted({leak.function for leak in group.leaks}),
            "count": len(group.leaks),
        }
        for group in report.by_site()
    ]
    whole = {
        "schema": 1,
        "processes": len(found.by_process),
        "files": found.files,
        "sites": sites,
        "leaks": [leak.to_dict() for leak in found.leaks],
        "notes": [leak.to_dict() for leak in found.notes],
        "fanout": [one.to_dict() for one in found.fanout],
        "blocking": [one.to_dict() for one in found.blocking],
    }
    return json.dumps(whole) + "\n"


def as_collapsed(found: Found, *, color: bool = False) -> str:
    """For flame graphs: a line for each creation stack, outermost frame first, and its count."""
    del color
    counts: dict[str, int] = {}
    for leak in found.leaks:
        names = [f"{name} ({display(file)}:{line})" for file, line, name in _own_frames(leak)]
        stack = ";".join(name.replace(";", ",") for name in [*names, _leaf(leak)])
        counts[stack] = counts.get(stack, 0) + 1
    ordered = sorted(counts.items(), key=lambda it: (-it[1], it[0]))
    return "".join(f"{printable(stack)} {count}\n" for stack, count in ordered)


def as_speedscope(found: Found, *, color: bool = False) -> str:
    """For speedscope.app: a profile whose samples are creation stacks, weighed by their leaks."""
    del color
    frames: dict[tuple[str, str, int | None], int] = {}
    weights: dict[tuple[int, ...], int] = {}
    for leak in found.leaks:
        named = [(name, display(file), line) for file, line, name in _own_frames(leak)]
        sample = tuple(
            frames.setdefault(frame, len(frames)) for frame in [*named, (_leaf(leak), "", None)]
        )
        weights[sample] = weights.get(sample, 0) + 1
    profile = {
        "type": "sampled",
        "name": "leaks by creation stack",
        "unit": "none",
        "startValue": 0,
        "endValue": len(found.leaks),
        "samples": [list(sample) for sample in weights],
        "weights": list(weights.values()),
    }
    whole = {
        "$schema": _SPEEDSCOPE,
        "exporter": "leakguard",
        "name": "leakguard",
        "shared": {
            "frames": [
                {"name": name, "file": file, "line": line} if file else {"name": name}
                for name, file, line in frames
            ]
        },
        "profiles": [profile],
    }
    return json.dumps(whole) + "\n"


def as_dot(found: Found, *, color: bool = False) -> str:
    """For Graphviz: who waits for whom, and who created whom; those that are no leaks in grey."""
    del color
    leaks = {id(leak) for leak in found.leaks}
    return dot_of(
        (graph_of(whole), {leak.serial for leak in whole if id(leak) in leaks})
        for whole in found.by_process.values()
    )


def _own_frames(leak: Leak) -> Frames:
    """The creation stack without the standard library, if that leaves anything of it."""
    own = tuple(frame for frame in leak._creation if not is_foreign(frame[0]))
    return own or leak._creation


def _leaf(leak: Leak) -> str:
    return f"{leak.kind} {leak.function}"


FORMATS: dict[str, Callable[..., Any]] = {
    "text": as_text,
    "json": as_json,
    "collapsed": as_collapsed,
    "speedscope": as_speedscope,
    "dot": as_dot,
}
