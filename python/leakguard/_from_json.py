"""Reads a report back from its JSON form, and says what is wrong with anything else."""

from __future__ import annotations

import json

from leakguard._findings import Blocked, Fanout
from leakguard._report import SCHEMA, Creator, Leak, Report

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from leakguard._report import Frame, Frames

_REQUIRED = object()
_TYPE_NAMES: dict[type, str] = {
    bool: "true or false",
    dict: "an object",
    float: "a number",
    int: "a whole number",
    list: "an array",
    str: "a string",
}


def report_from_json(text: str | bytes) -> Report:
    """The report that `Report.to_json` wrote. ValueError for anything else."""
    if not isinstance(text, (str, bytes, bytearray)):
        raise TypeError(f"a report is read from a str or bytes, not {type(text).__name__}")
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise _wrong(f"not JSON: {error}") from None
    return report_from_dict(data)


def report_from_dict(data: Any) -> Report:
    """The report that `Report.to_dict` made. ValueError for anything else."""
    schema = _field(data, "schema", int)
    if schema != SCHEMA:
        raise ValueError(f"schema {schema} of a leakguard report is unknown; known here: {SCHEMA}")
    stacks: dict[Frames, Frames] = {}
    report = Report(
        [leak_from_dict(leak, stacks) for leak in _field(data, "leaks", list)],
        reason=_field(data, "reason", str),
        label=_field(data, "label", str, None),
        waited=_field(data, "waited", float),
        notes=[_typed(note, "notes", str) for note in _field(data, "notes", list, [])],
        hidden=[
            (
                _field(hidden, "rule", str),
                _field(hidden, "reason", str),
                _field(hidden, "count", int),
            )
            for hidden in _field(data, "hidden", list)
        ],
        fanout=[fanout_from_dict(one) for one in _field(data, "fanout", list, [])],
        blocking=[blocked_from_dict(one) for one in _field(data, "blocking", list, [])],
    )
    report._time = _field(data, "time", str)
    report._origin = (
        _field(data, "pid", int),
        _field(data, "host", str),
        _field(data, "python", str),
        _field(data, "leakguard", str),
    )
    return report


def leak_from_dict(data: Any, stacks: dict[Frames, Frames] | None = None) -> Leak:
    """The leak that `Leak.to_dict` made. ValueError for anything else.

    stacks: those met before; leaks with equal stacks share one."""
    stacks = {} if stacks is None else stacks
    site = _field(data, "site", dict, None)
    creator = _field(data, "creator", dict, None)
    return Leak(
        kind=_field(data, "kind", str),
        serial=_field(data, "serial", int),
        name=_field(data, "name", str, None),
        function=_field(data, "function", str),
        state=_field(data, "state", str, None),
        age=_field(data, "age", float),
        creation=_frames_from(data, "creation_stack", stacks),
        current=_frames_from(data, "current_stack", stacks),
        native=_strings_from(data, "native_stack"),
        current_native=_strings_from(data, "current_native_stack"),
        site=None if site is None else _frame_from(site),
        site_is_definition=_field(data, "site_is_definition", bool, False),
        creator=None if creator is None else _creator_from(creator),
        cause=_field(data, "cause", str, None),
        facts=_field(data, "facts", dict),
        why=_field(data, "why", str),
    )


def fanout_from_dict(data: Any) -> Fanout:
    """What `Fanout.to_dict` made. ValueError for anything else."""
    site = _field(data, "site", dict, None)
    return Fanout(
        kind=_field(data, "kind", str),
        limit=_field(data, "limit", int),
        peak=_field(data, "peak", int),
        site=None if site is None else _frame_from(site),
        site_share=_field(data, "site_share", int),
        site_peak=_field(data, "site_peak", int),
        creation=_frames_from(data, "creation_stack", {}),
    )


def blocked_from_dict(data: Any) -> Blocked:
    """What `Blocked.to_dict` made. ValueError for anything else."""
    return Blocked(
        duration=_field(data, "duration", float),
        limit=_field(data, "limit", float),
        time=_field(data, "time", str),
        thread=_field(data, "thread", str),
        name=_field(data, "name", str, None),
        function=_field(data, "function", str, None),
        serial=_field(data, "serial", int, None),
        stack=_frames_from(data, "stack", {}),
        native=_strings_from(data, "native_stack"),
    )


def _creator_from(data: Any) -> Creator:
    return Creator(
        kind=_field(data, "kind", str),
        serial=_field(data, "serial", int),
        name=_field(data, "name", str, None),
        function=_field(data, "function", str),
        ended=_field(data, "ended", str, None),
    )


def _frames_from(data: Any, key: str, stacks: dict[Frames, Frames]) -> Frames:
    frames = tuple([_frame_from(frame) for frame in _field(data, key, list)])
    return stacks.setdefault(frames, frames)


def _frame_from(data: Any) -> Frame:
    return (
        _field(data, "file", str),
        _field(data, "line", int, None),
        _field(data, "function", str),
    )


def _strings_from(data: Any, key: str) -> tuple[str, ...] | None:
    found = _field(data, key, list, None)
    return None if found is None else tuple(_typed(item, key, str) for item in found)


def _field(data: Any, key: str, wanted: type, default: object = _REQUIRED) -> Any:
    """The value under a key. With a default, it may be absent or null."""
    if not isinstance(data, dict):
        raise _wrong(f'an object with "{key}" is wanted in place of {_shown(data)}')
    value = data.get(key)
    if value is None and default is not _REQUIRED:
        return default
    if key not in data:
        raise _wrong(f'"{key}" is missing')
    return _typed(value, key, wanted)


def _typed(value: Any, key: str, wanted: type) -> Any:
    fits = isinstance(value, (int, float) if wanted is float else wanted)
    if not fits or (isinstance(value, bool) and wanted is not bool):
        raise _wrong(f'"{key}" must be {_TYPE_NAMES[wanted]}, not {_shown(value)}')
    return value


def _shown(value: object) -> str:
    shown = json.dumps(value)
    return shown if len(shown) <= 60 else shown[:57] + "..."


def _wrong(what: str) -> ValueError:
    return ValueError(f"not a leakguard report: {what}")
