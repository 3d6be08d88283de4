"""What a report says beside leaks: limits that were exceeded and loops that were blocked."""

import json
import pickle

import pytest

import leakguard
from leakguard import _show
from leakguard._errors import error_of
from leakguard._findings import Blocked, Fanout, is_clean
from leakguard._report import Report, json_lines

SITE = (__file__, 12, "fetch_all")


def fanout(**changes):
    given = {"kind": "task", "limit": 100, "peak": 501, "site": SITE, "creation": (SITE,)}
    return Fanout(**(given | {"site_share": 500, "site_peak": 500} | changes))


def blocked(**changes):
    given = {"duration": 0.35, "limit": 0.1, "time": "2026-01-02T03:04:05.678+00:00"}
    given |= {"thread": "MainThread", "name": "Task-3", "function": "handler", "serial": 7}
    return Blocked(**(given | {"stack": (SITE,), "native": ("read in libc.so.6",)} | changes))


def report(**findings):
    return Report([], reason="block", **findings)


def test_a_report_without_leaks_is_false_whatever_else_it_found():
    found = report(fanout=[fanout()], blocking=[blocked()])
    assert not found
    assert len(found) == 0
    assert not is_clean(found)
    assert is_clean(report())


def test_the_text_names_peak_limit_site_and_share():
    lines = report(fanout=[fanout()]).text().splitlines()
    assert lines[:2] == ["leakguard: no leaks since the block began; 1 limit exceeded", ""]
    assert "501 tasks alive at once, 100 allowed; 500 of them created at " in lines[2]
    assert lines[2].endswith("test_findings.py:12 in fetch_all")


def test_a_single_resource_and_one_site_read_well():
    text = report(fanout=[fanout(limit=0, peak=1, site_share=1)]).text()
    assert "fan-out: 1 task alive at once, 0 allowed; all of them created at " in text
    assert (
        "fan-out: 1 task alive at once, 0 allowed\n"
        in report(fanout=[fanout(limit=0, peak=1, site=None)], notes=["n"]).text()
    )


def test_the_text_of_a_block_names_duration_task_and_place():
    lines = report(blocking=[blocked(), blocked()]).text().splitlines()
    assert lines[0] == ("leakguard: no leaks since the block began; event loop blocked 2 times")
    assert lines[2] == (
        "blocked: the event loop in MainThread for 0.35 s, 0.1 s allowed; by task Task-3 (handler)"
    )
    assert lines[3].endswith("test_findings.py:12 in fetch_all")


def test_json_has_the_keys_only_where_something_was_found():
    assert "fanout" not in report().to_dict()
    assert "blocking" not in report().to_dict()
    found = report(fanout=[fanout()], blocking=[blocked()]).to_dict()
    assert found["fanout"][0]["site"]["line"] == 12
    assert found["blocking"][0]["duration"] == 0.35


def test_a_report_comes_back_from_json_and_pickle():
    found = report(fanout=[fanout(), fanout(site=None)], blocking=[blocked(), blocked(native=None)])
    again = Report.from_json(found.to_json())
    assert again.to_dict() == found.to_dict()
    assert again.text() == found.text()
    assert pickle.loads(pickle.dumps(found)).to_dict() == found.to_dict()


@pytest.mark.parametrize("key", ["fanout", "blocking"])
def test_a_wrong_finding_in_json_is_refused(key):
    data = report().to_dict() | {key: [{}]}
    with pytest.raises(ValueError, match="not a leakguard report"):
        Report.from_json(json.dumps(data))


def test_each_finding_is_a_line_and_show_counts_and_prints_them(tmp_path):
    found = report(fanout=[fanout()], blocking=[blocked()])
    lines = list(json_lines(found))
    assert [sorted(set(json.loads(line)) & {"fanout", "blocking"}) for line in lines] == [
        ["fanout"],
        ["blocking"],
    ]
    path = tmp_path / "report.jsonl"
    path.write_text("\n".join([*lines, found.to_json()]) + "\n", encoding="utf-8")
    read = _show.read([path])
    text = _show.as_text(read)
    assert text.splitlines()[0] == (
        "leakguard: no leaks in 1 file of 1 process; 2 limits exceeded; event loop blocked 2 times"
    )
    assert text.count("fan-out: 501 tasks alive at once, 100 allowed") == 2
    assert len(json.loads(_show.as_json(read))["fanout"]) == 2


@pytest.mark.parametrize(
    ("findings", "error"),
    [
        ({}, leakguard.LeakError),
        ({"fanout": [fanout()]}, leakguard.FanoutError),
        ({"blocking": [blocked()]}, leakguard.BlockingError),
        ({"fanout": [fanout()], "blocking": [blocked()]}, leakguard.FanoutError),
    ],
)
def test_the_error_is_of_what_was_found_and_tells_all(findings, error):
    raised = error_of(report(**findings))
    assert type(raised) is error
    assert str(raised) == raised.report.text()


@pytest.mark.parametrize(
    ("max_live", "error", "text"),
    [
        ({}, ValueError, "max_live is empty"),
        ({"tasks": 1}, ValueError, "unknown kind 'tasks'; allowed: 'task', 'thread'"),
        ({"task": -1}, ValueError, r"max_live\['task'\] must be 0 or more, not -1"),
        ({"task": True}, TypeError, r"max_live\['task'\] must be a whole number, not bool"),
        ({"task": 1.0}, TypeError, r"max_live\['task'\] must be a whole number, not float"),
        ({1: 1}, TypeError, "a kind must be a str, not int"),
        (100, TypeError, "max_live must be a dict of kind to number"),
    ],
)
def test_a_wrong_max_live_is_refused_where_it_is_given(max_live, error, text):
    for give in (leakguard.guard, leakguard.checkpoint):
        with pytest.raises(error, match=text):
            give(max_live=max_live)
    with pytest.raises(error, match=text):
        leakguard.assert_stable("wrong", max_live=max_live)


@pytest.mark.parametrize(
    ("blocking", "error", "text"),
    [
        (0, ValueError, "blocking must be a finite number of seconds above 0, not 0"),
        (-1.5, ValueError, "not -1.5"),
        (float("nan"), ValueError, "not nan"),
        (float("inf"), ValueError, "not inf"),
        (True, TypeError, "blocking must be a number of seconds, not bool"),
        ("1", TypeError, "blocking must be a number of seconds, not str"),
    ],
)
def test_a_wrong_blocking_is_refused_where_it_is_given(blocking, error, text):
    with pytest.raises(error, match=text):
        leakguard.guard(blocking=blocking)
