"""The LEAKGUARD variables: what each may be, and that a wrong one costs one line, no more."""

import os

import pytest

from leakguard import _settings
from leakguard._kinds import KINDS

HERE = ("task", "thread")


def read(**variables):
    return _settings.read(variables, HERE)


def test_without_variables_nothing_is_active_and_all_is_default():
    settings = read()
    assert settings.active is False
    assert settings.complaints == []
    assert (settings.exitcode, settings.grace, settings.kinds) == (23, 1.0, ("task", "thread"))
    assert (settings.report, settings.stack_depth, settings.witness) == (None, 64, False)


@pytest.mark.parametrize(
    ("given", "active", "action"),
    [
        ("", False, "off"),
        ("0", False, "off"),
        ("1", True, "warn"),
        ("warn", True, "warn"),
        ("log", True, "log"),
        ("exit", True, "exit"),
    ],
)
def test_each_mode_is_known(given, active, action):
    settings = read(LEAKGUARD=given)
    assert (settings.active, settings.action, settings.complaints) == (active, action, [])


def test_an_unknown_mode_acts_as_1_after_one_line():
    settings = read(LEAKGUARD="yes")
    assert (settings.active, settings.action) == (True, "warn")
    assert settings.complaints == [
        "LEAKGUARD is 'yes'; allowed: 0, 1, warn, log or exit; it acts as 1"
    ]


def test_right_values_are_taken_without_a_word(tmp_path):
    settings = read(
        LEAKGUARD_EXITCODE="255",
        LEAKGUARD_GRACE="0.25",
        LEAKGUARD_KINDS="thread, task",
        LEAKGUARD_REPORT=str(tmp_path / "r.jsonl"),
        LEAKGUARD_STACK_DEPTH="1024",
        LEAKGUARD_WITNESS="1",
    )
    assert settings.complaints == []
    assert (settings.exitcode, settings.grace) == (255, 0.25)
    assert sorted(settings.kinds) == ["task", "thread"]
    assert settings.report == str(tmp_path / "r.jsonl")
    assert (settings.stack_depth, settings.witness) == (1024, True)


@pytest.mark.parametrize(
    ("name", "given"),
    [
        ("EXITCODE", "0"),
        ("EXITCODE", "255"),
        ("GRACE", "0"),
        ("GRACE", "1e3"),
        ("STACK_DEPTH", "1"),
        ("STACK_DEPTH", "1024"),
        ("WITNESS", "0"),
        ("KINDS", "task"),
    ],
)
def test_the_ends_of_each_range_are_allowed(name, given):
    assert read(**{f"LEAKGUARD_{name}": given}).complaints == []


@pytest.mark.parametrize(
    ("name", "given", "field", "default", "allowed"),
    [
        ("EXITCODE", "256", "exitcode", 23, "a whole number from 0 to 255"),
        ("EXITCODE", "-1", "exitcode", 23, "a whole number from 0 to 255"),
        ("EXITCODE", "2.5", "exitcode", 23, "a whole number from 0 to 255"),
        ("EXITCODE", "2.0", "exitcode", 23, "a whole number from 0 to 255"),
        ("EXITCODE", "1e2", "exitcode", 23, "a whole number from 0 to 255"),
        ("EXITCODE", "1_0", "exitcode", 23, "a whole number from 0 to 255"),
        ("EXITCODE", "٣", "exitcode", 23, "a whole number from 0 to 255"),
        ("EXITCODE", "9" * 5000, "exitcode", 23, "a whole number from 0 to 255"),
        ("GRACE", "soon", "grace", 1.0, "a number of seconds, 0 or more"),
        ("GRACE", "-0.1", "grace", 1.0, "a number of seconds, 0 or more"),
        ("GRACE", "1_0", "grace", 1.0, "a number of seconds, 0 or more"),
        ("GRACE", "nan", "grace", 1.0, "a number of seconds, 0 or more"),
        ("GRACE", "inf", "grace", 1.0, "a number of seconds, 0 or more"),
        ("KINDS", "task,tsak", "kinds", ("task", "thread"), "task, thread, by commas"),
        ("KINDS", "timer", "kinds", ("task", "thread"), "task, thread, by commas"),
        ("KINDS", ",", "kinds", ("task", "thread"), "task, thread, by commas"),
        ("STACK_DEPTH", "0", "stack_depth", 64, "a whole number from 1 to 1024"),
        ("STACK_DEPTH", "1025", "stack_depth", 64, "a whole number from 1 to 1024"),
        ("WITNESS", "yes", "witness", False, "0 or 1"),
    ],
)
def test_a_wrong_value_gives_its_default_and_one_line(name, given, field, default, allowed):
    settings = read(**{f"LEAKGUARD_{name}": given})
    assert getattr(settings, field) == default
    assert len(settings.complaints) == 1
    complaint = settings.complaints[0]
    assert complaint.startswith(f"LEAKGUARD_{name} is ")
    assert f"; allowed: {allowed}; " in complaint
    assert complaint.endswith("is used")


def test_each_wrong_value_has_a_line_of_its_own():
    settings = read(LEAKGUARD="on", LEAKGUARD_GRACE="x", LEAKGUARD_WITNESS="2")
    assert [line.split()[0] for line in settings.complaints] == [
        "LEAKGUARD",
        "LEAKGUARD_GRACE",
        "LEAKGUARD_WITNESS",
    ]


@pytest.mark.parametrize("given", ["a\nb", "a\x1b[31m", "a\udcff", "x" * 10_000])
def test_a_complaint_is_one_short_printable_line(given):
    (complaint,) = read(LEAKGUARD_GRACE=given).complaints
    assert complaint.isprintable()
    assert len(complaint) < 250


def test_a_variable_set_to_nothing_counts_as_not_set():
    names = ("EXITCODE", "GRACE", "KINDS", "REPORT", "STACK_DEPTH", "WITNESS")
    settings = read(LEAKGUARD="", **{f"LEAKGUARD_{name}": "" for name in names})
    assert settings.complaints == []
    assert settings.report is None


def test_the_process_id_is_put_into_the_report_path_when_asked(monkeypatch):
    settings = read(LEAKGUARD_REPORT="/var/log/leaks-%p-%p.jsonl")
    assert settings.report == f"/var/log/leaks-{os.getpid()}-{os.getpid()}.jsonl"
    monkeypatch.setattr(os, "getpid", lambda: 77)  # as in a forked child
    assert settings.report == "/var/log/leaks-77-77.jsonl"


def test_a_relative_report_path_stays_where_it_was_meant(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    settings = read(LEAKGUARD_REPORT="leaks.jsonl")
    monkeypatch.chdir("/")
    assert settings.report == str(tmp_path / "leaks.jsonl")


def test_without_a_list_every_known_kind_is_allowed():
    settings = _settings.read({"LEAKGUARD_KINDS": ",".join(KINDS)})
    assert settings.kinds == KINDS
    assert settings.complaints == []


def test_limits_are_read_by_kind():
    settings = read(LEAKGUARD_MAX_LIVE="task:500, thread : 0", LEAKGUARD_BLOCKING="0.1")
    assert settings.complaints == []
    assert settings.max_live == {"task": 500, "thread": 0}
    assert settings.blocking == 0.1
    assert (read().max_live, read().blocking) == ({}, None)


@pytest.mark.parametrize(
    "given", ["500", "task", "task:", "task:-1", "task:x", "task:1,", "timers:1", "task:1,task:2"]
)
def test_a_wrong_limit_is_one_line_and_nothing_is_counted(given):
    settings = read(LEAKGUARD_MAX_LIVE=given)
    assert settings.max_live == {}
    assert settings.complaints == [
        f"LEAKGUARD_MAX_LIVE is {given!r}; allowed: a kind and a number, by commas, like task:500; "
        "task, thread; nothing is counted"
    ]


@pytest.mark.parametrize("given", ["0", "-1", "nan", "inf", "1_0", "fast"])
def test_a_wrong_bound_on_blocking_is_one_line(given):
    settings = read(LEAKGUARD_BLOCKING=given)
    assert settings.blocking is None
    assert settings.complaints == [
        f"LEAKGUARD_BLOCKING is {given!r}; allowed: a number of seconds above 0; nothing is watched"
    ]
