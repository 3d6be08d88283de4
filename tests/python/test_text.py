"""The report as people read it."""

import asyncio.base_events
import asyncio.runners
import asyncio.tasks
import io
import linecache
import threading

import pytest

from leakguard import Report
from leakguard._report import Creator, Leak
from leakguard._text import duration, printable, use_color

RUNNERS = asyncio.runners.__file__
BASE_EVENTS = asyncio.base_events.__file__
TASKS = asyncio.tasks.__file__
THREADING = threading.__file__

GOLDEN = """\
leakguard: 3 leaks since checkpoint 'connected' (2 tasks, 1 thread; waited 1.0 s)

1. task Client._read, 2 alive, oldest 3.2 s
   created at app/client.py:41 in Client.connect
       self._reader = asyncio.create_task(self._read())
     called from app/main.py:17 in main
   waiting at app/client.py:58 in Client._read
       line = await self._stream.readline()
   why: its creator, task 'Task-4' (Client.connect), was cancelled and left it running

2. thread Worker.run, 1 alive, oldest 2.9 s
   created at app/main.py:22 in start
       self.worker.start()
     called from app/main.py:17 in main
   waiting at app/worker.py:9 in Worker.run
       job = self.jobs.get()"""


class App:
    """A made-up program, in files of its own."""

    def __init__(self, folder):
        self.folder = folder
        self.client = self.write("client.py", {
            41: "        self._reader = asyncio.create_task(self._read())",
            58: "            line = await self._stream.readline()",
        })  # fmt: skip
        self.main = self.write("main.py", {17: "    client.connect()", 22: "self.worker.start()"})
        self.worker = self.write("worker.py", {9: "        job = self.jobs.get()"})

    def write(self, name, lines):
        text = "\n".join(lines.get(number, "") for number in range(1, max(lines) + 1))
        path = self.folder / "app" / name
        path.write_text(text + "\n", encoding="utf-8")
        return str(path)

    @property
    def started(self):
        """The frames that only say that a loop is running."""
        return (
            (self.main, 30, "<module>"),
            (RUNNERS, 190, "run"),
            (RUNNERS, 118, "Runner.run"),
            (BASE_EVENTS, 650, "BaseEventLoop.run_until_complete"),
            (BASE_EVENTS, 600, "BaseEventLoop.run_forever"),
            (BASE_EVENTS, 1900, "BaseEventLoop._run_once"),
            (asyncio.events.__file__, 80, "Handle._run"),
        )

    def task(self, **changes):
        site = (self.client, 41, "Client.connect")
        given = {
            "kind": "task",
            "serial": 7,
            "name": "Task-7",
            "function": "Client._read",
            "state": "waiting",
            "age": 3.2,
            "creation": (*self.started, (self.main, 17, "main"), site, (TASKS, 1, "create_task")),
            "current": ((self.client, 58, "Client._read"), (asyncio.__file__, 1, "readline")),
            "site": site,
            "creator": Creator("task", 4, "Task-4", "Client.connect", "cancelled"),
        }
        return Leak(**(given | changes))

    def thread(self, **changes):
        site = (self.main, 22, "start")
        given = {
            "kind": "thread",
            "serial": 9,
            "name": "Thread-1",
            "function": "Worker.run",
            "state": "running",
            "age": 2.9,
            "creation": ((self.main, 17, "main"), site, (THREADING, 990, "Thread.start")),
            "current": (
                (THREADING, 1000, "Thread._bootstrap"),
                (self.worker, 9, "Worker.run"),
                (THREADING, 320, "Condition.wait"),
            ),
            "site": site,
        }
        return Leak(**(given | changes))


@pytest.fixture
def app(tmp_path, monkeypatch):
    (tmp_path / "app").mkdir()
    monkeypatch.chdir(tmp_path)
    linecache.clearcache()
    return App(tmp_path)


def text_of(*leaks, reason="block", **changes):
    return Report(leaks, reason=reason, **changes).text()


def lines_of(*leaks, **changes):
    """The lines of the first entry, without its number and source lines."""
    entry = text_of(*leaks, **changes).split("\n\n")[1].splitlines()
    return [line for line in entry if not line.startswith(" " * 7)]


def test_the_report_of_the_design(app):
    why = "its creator, task 'Task-4' (Client.connect), was cancelled and left it running"
    found = Report(
        [app.task(why=why), app.task(serial=8, age=1.0, why=why), app.thread()],
        reason="checkpoint",
        label="connected",
        waited=1.0,
    )
    assert found.text() == GOLDEN
    assert Report.from_json(found.to_json()).text() == GOLDEN


def test_colour_changes_nothing_but_colour(app):
    import re

    found = Report([app.task(), app.thread()], reason="block")
    colored = found.text(color=True)
    assert re.sub("\x1b\\[[0-9]*m", "", colored) == found.text()
    assert colored.startswith("\x1b[1mleakguard: 2 leaks")
    assert "\x1b[36mtask\x1b[0m Client._read" in colored
    assert "\x1b" not in found.text()


@pytest.mark.parametrize(
    ("reason", "label", "moment"),
    [
        ("checkpoint", "x", "since checkpoint 'x'"),
        ("checkpoint", None, "since the checkpoint"),
        ("block", "x", "since checkpoint 'x'"),
        ("block", None, "since the block began"),
        ("loop end", None, "at loop end"),
        ("shutdown", None, "at shutdown"),
        ("stable", "x", "since the call of assert_stable('x') before"),
        ("reload", None, "at reload"),
    ],
)
def test_the_first_line_names_the_moment(app, reason, label, moment):
    first = text_of(app.task(), reason=reason, label=label, waited=1.0).splitlines()[0]
    assert first == f"leakguard: 1 leak {moment} (1 task; waited 1.0 s)"
    assert text_of(reason=reason, label=label) == f"leakguard: no leaks {moment}"


def test_the_first_line_counts_kinds_in_their_order(app):
    leaks = [
        app.thread(),
        app.task(kind="process"),
        app.task(kind="process"),
        app.task(kind="native_thread"),
        app.task(kind="grpc_channel"),
        app.task(),
    ]
    assert (
        text_of(*leaks)
        .splitlines()[0]
        .endswith("(1 task, 1 thread, 1 native_thread, 2 processes, 1 grpc_channel; waited 0 s)")
    )


def test_a_snapshot_counts_what_lives(app):
    assert text_of(app.task(), app.thread(), reason="snapshot").startswith(
        "leakguard: 2 live resources (1 task, 1 thread)\n\n1. "
    )
    assert text_of(app.task(), reason="snapshot").startswith("leakguard: 1 live resource (1 task)")
    assert text_of(reason="snapshot") == "leakguard: no live resources"
    assert text_of(app.task(), reason="terminated").startswith(
        "leakguard: 1 live resource at termination (1 task)"
    )


def test_entries_are_by_site_and_kind_largest_first(app):
    elsewhere = (app.main, 17, "main")
    text = text_of(app.thread(), app.task(site=elsewhere), app.task(), app.task(age=9.0))
    entries = [line for line in text.splitlines() if line[0:1].isdigit()]
    assert entries == [
        "1. task Client._read, 2 alive, oldest 9.0 s",
        "2. thread Worker.run, 1 alive, oldest 2.9 s",
        "3. task Client._read, 1 alive, oldest 3.2 s",
    ]


def test_a_site_of_several_functions_names_the_most_frequent(app):
    leaks = [app.task(function=name) for name in ("a", "b", "b", "c")]
    assert lines_of(*leaks)[0] == "1. task b and 2 others, 4 alive, oldest 3.2 s"


def test_callers_end_at_the_running_loop(app):
    assert [line for line in lines_of(app.task()) if "called from" in line] == [
        "     called from app/main.py:17 in main"
    ]


def test_a_loop_function_of_the_program_itself_is_a_caller(app):
    mine = (app.main.replace("main.py", "asyncio/runners.py"), 3, "run")
    leak = app.task(creation=(*app.started, mine, (app.client, 41, "Client.connect")))
    assert "     called from app/asyncio/runners.py:3 in run" in lines_of(leak)


def test_without_a_running_loop_callers_go_to_the_top(app):
    site = (app.main, 22, "start")
    creation = ((app.main, 30, "<module>"), site, (RUNNERS, 190, "run"), (RUNNERS, 1, "Runner.run"))
    assert "     called from app/main.py:30 in <module>" in lines_of(
        app.task(creation=creation, site=site)
    )


def test_many_callers_are_cut_at_three(app):
    site = (app.client, 41, "Client.connect")
    outer = tuple((app.main, number, f"f{number}") for number in range(100, 105))
    assert lines_of(app.task(creation=(*outer, site)))[2:6] == [
        "     called from app/main.py:104 in f104",
        "     called from app/main.py:103 in f103",
        "     called from app/main.py:102 in f102",
        "     ... and 2 more callers",
    ]
    assert lines_of(app.task(creation=(*outer[:4], site)))[5] == "     ... and 1 more caller"


def test_callers_of_the_library_are_left_out(app):
    site = (app.client, 41, "Client.connect")
    leak = app.task(creation=((app.main, 17, "main"), (THREADING, 5, "run"), site))
    called = [line for line in lines_of(leak) if "called" in line]
    assert called == ["     called from app/main.py:17 in main"]


def test_the_most_frequent_callers_speak_for_a_site(app):
    site = (app.client, 41, "Client.connect")
    rare, often = ((app.main, 1, "rare"), site), ((app.main, 2, "often"), site)
    assert "     called from app/main.py:2 in often" in lines_of(
        app.task(creation=rare), app.task(creation=often), app.task(creation=often[:])
    )


@pytest.mark.parametrize(
    ("kind", "maker"), [("task", "the event loop"), ("thread", "the standard library")]
)
def test_a_site_that_is_a_definition_is_called_one(app, kind, maker):
    leak = app.task(
        kind=kind,
        creation=app.started,
        site=(app.main, 17, "handle"),
        site_is_definition=True,
    )
    lines = lines_of(leak)
    assert lines[1] == f"   defined at app/main.py:17 in handle, created by {maker}"
    assert not any("created at" in line or "called from" in line for line in lines)
    again = Report.from_json(Report([leak], reason="block").to_json())
    assert "defined at app/main.py:17" in again.text()


def test_without_a_site_the_innermost_line_of_creation_is_shown(app):
    creation = (*app.started, (TASKS, 300, "create_task"))
    lines = lines_of(app.task(creation=creation, site=None))
    assert lines[1] == f"   created at {TASKS}:300 in create_task"
    assert not any("called from" in line for line in lines)


def test_what_was_there_before_tracking_says_so_one_entry_a_function(app):
    leaks = [
        app.thread(creation=(), site=None, function=name) for name in ("serve", "flush", "serve")
    ]
    text = text_of(*leaks, reason="snapshot")
    assert text.count("   created before tracking began\n") == 2
    assert "1. thread serve, 2 alive" in text
    assert "2. thread flush, 1 alive" in text
    assert "created at" not in text


def test_waiting_only_in_the_library_shows_its_innermost_line(app):
    lines = lines_of(app.task(current=((TASKS, 3, "wait"), (TASKS, 7, "_wait"))))
    assert lines[-1] == f"   waiting at {TASKS}:7 in _wait"


def test_the_most_frequent_place_speaks_for_a_group(app):
    def at(line):
        return app.task(current=((app.client, line, "f"),))

    lines = lines_of(at(1), at(2), at(2), at(3))
    assert lines[-1] == "   waiting at app/client.py:2 in f (and at 2 other places)"
    lines = lines_of(
        at(1), at(1), app.task(state="pending"), app.task(state="pending"), at(1), at(9)
    )
    assert (
        lines[-1] == "   waiting at app/client.py:1 in f (and at 1 other place, 2 not started yet)"
    )


@pytest.mark.parametrize(
    ("state", "word"),
    [
        ("waiting", "waiting at app/client.py:58 in Client._read"),
        ("abandoned", "waiting at app/client.py:58 in Client._read"),
        ("destroyed", "waiting at app/client.py:58 in Client._read"),
        ("running", "running at app/client.py:58 in Client._read"),
        ("pending", "not started yet"),
    ],
)
def test_the_word_for_a_task_follows_its_state(app, state, word):
    assert lines_of(app.task(state=state))[-1] == f"   {word}"


def test_a_destroyed_task_has_no_place(app):
    assert lines_of(app.task(state="destroyed", current=()))[-1] == "   destroyed while pending"


def test_a_thread_that_has_not_begun_is_starting(app):
    assert lines_of(app.thread(state="starting", current=()))[-1] == "   starting"


def test_without_a_stack_nothing_is_said_of_the_place(app):
    assert not any("ing at" in line for line in lines_of(app.task(current=())))


def test_a_reason_that_only_some_have_says_how_many(app):
    lines = lines_of(app.task(), app.task(why="b"), app.task(why="b"))
    assert lines[-1] == "   why: b (2 of 3)"


def test_sentences_of_one_cause_are_one_reason(app):
    leaks = [app.task(cause="orphan", why=f"its creator, task {n}, ended") for n in range(5)]
    whys = [line for line in lines_of(*leaks) if "why" in line]
    assert whys == ["   why: its creator, task 0, ended"]


def test_of_several_reasons_the_most_frequent_is_shown_and_the_others_are_counted(app):
    leaks = [app.task(why=why) for why in ("a", "b", "b", "c")]
    whys = [line for line in lines_of(*leaks) if "why" in line]
    assert whys == ["   why: b (2 of 4, and 2 other reasons)"]


def test_hidden_leaks_and_notes_close_the_report(app):
    hidden = [("function=Foo.*", "see #12", 2), ("kind=thread", "none", 0)]
    closing = [
        "note: 3 records were dropped",
        'hidden: 2 by rule "function=Foo.*" (see #12)',
    ]
    text = text_of(app.task(), notes=["3 records were dropped"], hidden=hidden)
    assert text.splitlines()[-3:] == ["", *closing]
    text = text_of(notes=["3 records were dropped"], hidden=hidden)
    assert text.splitlines() == ["leakguard: no leaks seen since the block began", *closing]


def test_every_entry_is_shown(app):
    leaks = [app.task(site=(app.client, number, "f")) for number in range(200)]
    assert "\n200. task" in text_of(*leaks)


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (-1, "0 s"),
        (0, "0 s"),
        (0.0001, "0 s"),
        (0.0123, "0.012 s"),
        (0.09, "0.09 s"),
        (0.2, "0.2 s"),
        (0.254, "0.25 s"),
        (0.994, "0.99 s"),
        (0.996, "1.0 s"),
        (1, "1.0 s"),
        (3.24, "3.2 s"),
        (59.94, "59.9 s"),
        (59.96, "1 min"),
        (250, "4 min 10 s"),
        (3599.6, "1 h"),
        (7500, "2 h 5 min"),
        (86_399, "1 d"),
        (273_600, "3 d 4 h"),
    ],
)
def test_durations_are_short_at_every_size(seconds, shown):
    assert duration(seconds) == shown


@pytest.mark.parametrize("bad", ["/srv/a\udcffb.py", "/srv/nul\0.py", "/srv/line\nfeed.py", ""])
def test_odd_names_neither_raise_nor_break_the_lines(app, bad):
    frame = (bad, 3, "f\n\x1b[31m\udcff")
    leak = app.task(
        function="f\n\x1b[31m", creation=(frame, frame), current=(frame,), site=frame, why="a\nb"
    )
    text = text_of(leak, label="x\udcff\n", notes=["n\n"], hidden=[("r\n", "x\n", 1)])
    assert all(line.isprintable() for line in text.splitlines())
    assert len([line for line in text.splitlines() if line]) == 8
    text.encode()


def test_source_that_cannot_be_read_is_left_out(app, tmp_path, monkeypatch):
    undecodable = tmp_path / "app" / "latin.py"
    undecodable.write_bytes(b"# caf\xe9\nx = 1\n")
    for path in (str(undecodable), str(tmp_path), "/nowhere/app.py", "<string>"):
        text = text_of(app.task(site=(path, 1, "f"), creation=(), current=()))
        assert text.splitlines()[-1].startswith("   created at")
    monkeypatch.setattr(linecache, "getline", lambda *_: 1 / 0)
    assert "       " not in text_of(app.task())


def test_a_long_source_line_is_cut(app):
    path = app.write("wide.py", {1: "x" * 500})
    source = text_of(app.task(site=(path, 1, "f"), creation=(), current=())).splitlines()[-1]
    assert source == "       " + "x" * 156 + " ..."


def test_what_is_not_printable_is_escaped():
    assert printable("caf\u00e9 → \udcff\x07") == "caf\u00e9 → \\udcff\\x07"


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def plain(monkeypatch):
    for name in ("NO_COLOR", "FORCE_COLOR", "TERM"):
        monkeypatch.delenv(name, raising=False)
    return monkeypatch


@pytest.mark.parametrize(
    ("variables", "on_terminal", "elsewhere"),
    [
        ({}, True, False),
        ({"TERM": "xterm"}, True, False),
        ({"TERM": "dumb"}, False, False),
        ({"NO_COLOR": "1"}, False, False),
        ({"NO_COLOR": "0"}, False, False),
        ({"NO_COLOR": ""}, True, False),
        ({"FORCE_COLOR": "1"}, True, True),
        ({"FORCE_COLOR": "1", "TERM": "dumb"}, True, True),
        ({"FORCE_COLOR": "0"}, True, False),
        ({"FORCE_COLOR": ""}, True, False),
        ({"FORCE_COLOR": "1", "NO_COLOR": "1"}, False, False),
    ],
)
def test_colour_is_for_terminals_unless_the_user_says_else(
    plain, variables, on_terminal, elsewhere
):
    for name, value in variables.items():
        plain.setenv(name, value)
    assert use_color(Terminal()) is on_terminal
    assert use_color(io.StringIO()) is elsewhere


def test_no_stream_and_a_closed_one_get_no_colour(plain):
    closed = Terminal()
    closed.isatty = lambda: io.StringIO.isatty(closed)
    closed.close()
    assert use_color(closed) is False
    assert use_color(None) is False
    assert use_color(object()) is False
