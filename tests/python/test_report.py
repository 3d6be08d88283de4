"""Report and Leak: a read-only sequence that goes through JSON unchanged."""

import copy
import datetime
import json
import linecache
import os
import pickle
import platform
import socket
import time
import traceback
from collections.abc import Sequence
from pathlib import Path

import pytest

from leakguard import Leak, Report, _report
from leakguard._report import Creator, json_lines
from leakguard._version import __version__

CREATION = (("/srv/app/main.py", 17, "main"), ("/srv/app/client.py", 41, "Client.connect"))
CURRENT = (("/srv/app/client.py", 58, "Client._read"),)
ATTRIBUTES = (
    "kind", "serial", "name", "function", "state", "age", "creation_stack", "current_stack",
    "native_stack", "current_native_stack", "site", "creator", "cause", "facts", "why",
)  # fmt: skip
HEAD = ("schema", "label", "reason", "time", "pid", "host", "python", "leakguard", "waited")


def leak(**changes):
    given = {
        "kind": "task",
        "serial": 7,
        "name": "Task-7",
        "function": "Client._read",
        "state": "waiting",
        "age": 3.25,
        "creation": CREATION,
        "current": CURRENT,
        "site": CREATION[-1],
    }
    return Leak(**(given | changes))


def full_leak():
    return leak(
        name="caf\u00e9 \udcff",
        native=("start in libx.so", "main in app"),
        current_native=(),
        creator=Creator("task", 4, "Task-4", "Client.connect", "cancelled"),
        cause="orphan",
        facts={"loop": "closed", "counts": [1, 2], "nested": {"x": None}},
        why="its creator was cancelled",
    )


def report(*leaks, **changes):
    return Report(leaks, **({"reason": "checkpoint", "label": "x", "waited": 1.5} | changes))


def test_a_report_is_a_sequence_that_is_false_when_empty():
    one, two = leak(), leak(serial=8)
    found = report(one, two)
    assert isinstance(found, Sequence)
    assert (len(found), found[0], found[-1], list(found)) == (2, one, two, [one, two])
    assert found[1:] == (two,)
    assert one in found
    assert bool(found) is True
    assert bool(report()) is False
    with pytest.raises(IndexError):
        found[2]


def test_a_report_keeps_what_it_was_made_of():
    found = report(leak(), notes=["a note"], hidden=[("kind=task", "known", 2)])
    assert (found.reason, found.label, found.waited) == ("checkpoint", "x", 1.5)
    assert found.notes == ("a note",)
    assert found.hidden == (("kind=task", "known", 2),)


def test_a_report_says_when_and_where_it_was_made():
    before = time.time()
    found = report()
    after = time.time()
    moment = datetime.datetime.fromisoformat(found.time)
    assert moment.utcoffset() == datetime.timedelta(0)
    assert before - 0.001 <= moment.timestamp() <= after
    assert found.pid == os.getpid()
    assert found.host == socket.gethostname()
    assert found.python == platform.python_version()
    assert found.leakguard == __version__


def test_the_moment_is_that_of_the_check_not_of_the_question(monkeypatch):
    monkeypatch.setattr(time, "time", lambda: 1_700_000_000.0259)
    found = report()
    monkeypatch.undo()
    monkeypatch.setattr(os, "getpid", lambda: 1)
    assert found.time == "2023-11-14T22:13:20.025+00:00"
    assert found.pid != 1


@pytest.mark.parametrize("name", ["waited", "label", "reason", "notes", "hidden", "anything"])
def test_a_report_is_read_only(name):
    with pytest.raises(AttributeError):
        setattr(report(), name, None)


@pytest.mark.parametrize("name", [*ATTRIBUTES, "anything"])
def test_a_leak_is_read_only(name):
    with pytest.raises(AttributeError):
        setattr(leak(), name, None)


def test_a_leak_has_its_facts():
    found = full_leak()
    assert (found.kind, found.serial, found.function) == ("task", 7, "Client._read")
    assert (found.state, found.age, found.cause) == ("waiting", 3.25, "orphan")
    assert found.why == "its creator was cancelled"
    assert found.facts["nested"] == {"x": None}
    creator = found.creator
    assert (creator.kind, creator.serial, creator.name) == ("task", 4, "Task-4")
    assert (creator.function, creator.ended) == ("Client.connect", "cancelled")
    assert [str(frame) for frame in found.native_stack] == ["start in libx.so", "main in app"]


def test_what_is_absent_is_none_or_empty():
    bare = leak(creation=(), current=(), site=None)
    assert (bare.site, bare.creator, bare.cause, bare.native_stack) == (None, None, None, None)
    assert bare.current_native_stack is None
    assert (bare.facts, bare.why) == ({}, "")
    assert (list(bare.creation_stack), list(bare.current_stack)) == ([], [])


def test_changing_the_facts_that_were_handed_out_changes_no_leak():
    found = full_leak()
    found.facts["loop"] = "open"
    assert found.facts["loop"] == "closed"


def test_stacks_are_stack_summaries_outermost_first():
    stack = leak().creation_stack
    assert isinstance(stack, traceback.StackSummary)
    assert [(f.filename, f.lineno, f.name) for f in stack] == list(CREATION)
    assert leak().site.lineno == 41
    assert leak().site.name == "Client.connect"


def test_source_lines_are_read_when_they_are_asked_for(tmp_path):
    path = tmp_path / "app.py"
    found = leak(site=(str(path), 2, "f"), current=((str(path), 1, "f"),))
    path.write_text("first()\n    second()\n")
    assert found.site.line == "second()"
    assert "first()" in "".join(found.current_stack.format())
    linecache.clearcache()


def test_a_frame_without_a_line_number_is_allowed():
    found = leak(creation=(("/srv/x.so", None, "f"),), site=("/srv/x.so", None, "f"))
    assert found.site.lineno is None
    assert found.site.line is None
    assert Report.from_json(report(found).to_json())[0].site.lineno is None


def test_a_stack_is_made_once_and_its_frames_are_shared_by_leaks():
    one, two = leak(), leak(creation=tuple(CREATION))
    assert one.creation_stack is one.creation_stack
    assert one.creation_stack[0] is two.creation_stack[0]
    one.creation_stack.clear()
    assert len(two.creation_stack) == 2


def test_what_is_kept_for_sharing_stays_bounded(monkeypatch):
    monkeypatch.setattr(_report, "_FRAMES_LIMIT", 10)
    for line in range(100):
        assert leak(site=("/srv/x.py", line, "f")).site.lineno == line
    assert len(_report._frame_summaries) <= 10


def test_groups_are_by_kind_and_site_largest_first():
    other = ("/srv/app/main.py", 17, "main")
    leaks = [
        leak(serial=1, site=other),
        leak(serial=2),
        leak(serial=3, kind="thread"),
        leak(serial=4, site=None),
        leak(serial=5),
    ]
    groups = report(*leaks).by_site()
    assert [(group.kind, group.site and group.site.lineno) for group in groups] == [
        ("task", 41),
        ("task", 17),
        ("thread", 41),
        ("task", None),
    ]
    assert groups[0].leaks == (leaks[1], leaks[4])
    kind, site, members = groups[0]
    assert (kind, site.filename, len(members)) == ("task", "/srv/app/client.py", 2)
    assert groups[0]._fields == ("kind", "site", "leaks")
    assert pickle.loads(pickle.dumps(groups[0])).kind == "task"


def test_the_dict_has_the_keys_of_the_schema_and_no_other():
    data = report(leak(), hidden=[("kind=task", "known", 2)]).to_dict()
    assert set(data) == {*HEAD, "leaks", "hidden"}
    assert data["schema"] == 1
    assert data["hidden"] == [{"rule": "kind=task", "reason": "known", "count": 2}]
    (found,) = data["leaks"]
    assert tuple(found) == ATTRIBUTES
    assert found["site"] == {
        "file": "/srv/app/client.py", "line": 41, "function": "Client.connect",
    }  # fmt: skip
    assert [frame["line"] for frame in found["creation_stack"]] == [17, 41]
    assert found == leak().to_dict()


def test_absent_values_are_null():
    (found,) = report(leak(site=None)).to_dict()["leaks"]
    absent = ("site", "creator", "cause", "native_stack", "current_native_stack")
    assert all(found[key] is None for key in absent)


def test_notes_stand_in_the_dict_where_there_are_some():
    assert report(notes=["dropped"]).to_dict()["notes"] == ["dropped"]


@pytest.mark.parametrize(
    "found",
    [
        report(),
        report(full_leak(), leak(), waited=0.0),
        report(leak(site_is_definition=True), label=None, reason="loop end"),
        report(leak(creation=(), current=(), site=None, name=None), reason="snapshot"),
        report(leak(age=5), notes=["a", "b"], hidden=[("kind=task", "known", 0)], waited=2),
    ],
    ids=["empty", "full", "definition", "bare", "notes"],
)
@pytest.mark.parametrize(
    "again",
    [
        lambda found: Report.from_json(found.to_json()),
        lambda found: Report.from_json(found.to_json().encode()),
        lambda found: pickle.loads(pickle.dumps(found)),
        copy.deepcopy,
    ],
    ids=["json", "bytes", "pickle", "deepcopy"],
)
def test_a_report_comes_back_as_it_was(found, again):
    other = again(found)
    assert other.to_dict() == found.to_dict()
    assert other.text() == found.text()
    assert other.to_json() == found.to_json()


def test_a_report_of_another_process_keeps_its_origin():
    data = report(leak()).to_dict()
    data |= {"pid": 1, "host": "elsewhere", "python": "3.99.0", "leakguard": "9.9"}
    found = Report.from_json(json.dumps(data))
    assert (found.pid, found.host) == (1, "elsewhere")
    assert (found.python, found.leakguard) == ("3.99.0", "9.9")
    assert found.time == data["time"]


def test_a_leak_can_be_pickled_alone():
    other = pickle.loads(pickle.dumps(full_leak()))
    assert other.to_dict() == full_leak().to_dict()


def test_json_is_one_line_of_ascii():
    text = report(full_leak()).to_json()
    assert text.isascii()
    assert "\n" not in text


def test_keys_of_a_later_version_are_no_error():
    data = report(leak()).to_dict() | {"later": 1}
    data["leaks"][0]["later"] = 1
    assert len(Report.from_json(json.dumps(data))) == 1


def test_an_unknown_schema_is_an_error_that_says_which_is_known():
    data = report().to_dict() | {"schema": 2}
    with pytest.raises(ValueError, match=r"schema 2 .* known here: 1"):
        Report.from_json(json.dumps(data))


def broken(**changes):
    return json.dumps(report(full_leak(), hidden=[("r", "x", 1)]).to_dict() | changes)


def with_leak(**changes):
    return broken(leaks=[full_leak().to_dict() | changes])


def without(key):
    data = report(leak()).to_dict()
    del data[key]
    return json.dumps(data)


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("", "not JSON"),
        ("{", "not JSON"),
        ("[" * 100_000, "not JSON"),
        (b"\xff\xfe\xfd", "not JSON"),
        ("[]", '"schema" is wanted'),
        ("{}", '"schema" is missing'),
        (broken(schema="1"), '"schema" must be a whole number, not "1"'),
        (broken(schema=True), '"schema" must be a whole number, not true'),
        *((without(key), f'"{key}" is missing') for key in ("leaks", "hidden", "reason", "time")),
        *((without(key), f'"{key}" is missing') for key in ("pid", "host", "python", "waited")),
        (broken(leaks={}), '"leaks" must be an array'),
        (broken(leaks=[5]), "in place of 5"),
        (broken(waited="1"), '"waited" must be a number, not "1"'),
        (broken(waited=True), '"waited" must be a number, not true'),
        (broken(label=5), '"label" must be a string, not 5'),
        (broken(hidden=[{"rule": "x", "reason": "y"}]), '"count" is missing'),
        (broken(notes=[1]), '"notes" must be a string'),
        (with_leak(kind=None), '"kind" must be a string, not null'),
        (with_leak(serial=1.5), '"serial" must be a whole number, not 1.5'),
        (with_leak(site={"file": "x", "function": "f", "line": "1"}), '"line" must be a whole'),
        (with_leak(creation_stack=[{"line": 1}]), '"file" is missing'),
        (with_leak(creation_stack=["x"]), 'in place of "x"'),
        (with_leak(native_stack=[1]), '"native_stack" must be a string'),
        (with_leak(creator={"kind": "task"}), '"serial" is missing'),
        (with_leak(facts=[]), '"facts" must be an object'),
    ],
)
def test_what_is_no_report_is_an_error_that_says_what_is_wrong(text, wrong):
    with pytest.raises(ValueError, match="leakguard report") as raised:
        Report.from_json(text)
    assert wrong in str(raised.value)
    assert len(str(raised.value)) < 300


@pytest.mark.parametrize("value", [None, 5, {}])
def test_a_report_is_read_from_text_only(value):
    with pytest.raises(TypeError, match="str or bytes"):
        Report.from_json(value)


def test_a_json_line_is_a_leak_with_the_head_of_its_report():
    found = report(leak(), full_leak())
    lines = list(json_lines(found))
    assert len(lines) == 2
    assert all("\n" not in line and line.isascii() for line in lines)
    first = json.loads(lines[0])
    assert set(first) == {*HEAD, *ATTRIBUTES}
    assert first == {key: found.to_dict()[key] for key in HEAD} | found[0].to_dict()


def test_a_json_line_tells_a_note_from_a_leak():
    lines = [json.loads(line) for line in json_lines(report(leak(), notes=["1 was dropped"]))]
    assert "note" not in lines[0]
    assert (lines[1]["note"], lines[1]["text"]) == (True, "1 was dropped")
    (line,) = json_lines(report(leak()), note=True)
    assert (json.loads(line)["note"], json.loads(line)["kind"]) == (True, "task")
    assert list(json_lines(report())) == []


def test_reprs_are_short():
    found = report(leak(), full_leak())
    assert repr(found) == "<Report checkpoint 'x': 2 leaks>"
    assert repr(report(label=None)) == "<Report checkpoint: no leaks>"
    assert repr(leak()) == "<Leak task 7 Client._read, waiting, /srv/app/client.py:41>"
    assert repr(full_leak().creator) == "<Creator task 4 Client.connect, cancelled>"


def test_the_import_and_a_clean_report_bring_in_nothing_dear(run):
    program = (
        "import os, sys, types; package = types.ModuleType('leakguard');"
        f"package.__path__ = [{str(Path(_report.__file__).parent)!r}];"
        "sys.modules['leakguard'] = package; before = set(sys.modules);"
        "import leakguard._report;"
        "leakguard._report.Report((), reason='block').by_site();"
        "print(*sorted(set(sys.modules) - before))"
    )
    done = run("-S", "-c", program)
    assert done.stderr == ""
    loaded = {name for name in done.stdout.split() if not name.startswith("leakguard")}
    assert loaded <= {"__future__"}


def test_a_hundred_thousand_leaks_from_ten_sites_are_ten_entries():
    stacks = [tuple((f"/srv/{n}.py", n + depth, "f") for depth in range(30)) for n in range(10)]
    leaks = [
        leak(serial=n, creation=stacks[n % 10], current=stacks[n % 10], site=stacks[n % 10][-1])
        for n in range(100_000)
    ]
    text = report(*leaks).text()
    assert text.count("10000 alive") == 10
