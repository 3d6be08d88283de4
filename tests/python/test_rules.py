"""Ignore rules: what they hide, until when, and what a wrong one is told."""

import copy
import datetime
import pickle

import pytest

from leakguard import IgnoreRule, _rules, ignore
from leakguard._kinds import KINDS
from leakguard._report import Leak
from leakguard._rules import rules_from


def leak(**changes):
    given = {
        "kind": "task",
        "serial": 1,
        "name": "reader-1",
        "function": "Client._read",
        "state": "waiting",
        "age": 1.0,
        "site": ("/srv/app/client.py", 41, "Client.connect"),
    }
    return Leak(**(given | changes))


@pytest.mark.parametrize(
    ("patterns", "matches"),
    [
        ({"function": "Client._read"}, True),
        ({"function": "Client.*"}, True),
        ({"function": "*._read"}, True),
        ({"function": "client.*"}, False),
        ({"function": "Client"}, False),
        ({"function": "Client.[!a]read"}, True),
        ({"name": "reader-?"}, True),
        ({"name": "reader"}, False),
        ({"kind": "task"}, True),
        ({"kind": "t*"}, True),
        ({"kind": "*thread"}, False),
        ({"site": "/srv/app/client.py:41"}, True),
        ({"site": "/srv/app/client.py:*"}, True),
        ({"site": "*/client.py:4?"}, True),
        ({"site": "/srv/app/client.py:4"}, False),
        ({"site": "client.py:41"}, False),
        ({"function": "Client.*", "name": "reader-*", "kind": "task", "site": "*:41"}, True),
        ({"function": "Client.*", "name": "writer-*"}, False),
        ({"function": "Client.*", "kind": "thread"}, False),
        ({"function": "Client.*", "site": "*:42"}, False),
    ],
)
def test_a_rule_hides_what_all_its_patterns_match(patterns, matches):
    assert ignore(**patterns, reason="known").matches(leak()) is matches


def test_a_site_may_be_given_relative_to_the_working_directory(monkeypatch, tmp_path):
    (tmp_path / "app").mkdir()
    monkeypatch.chdir(tmp_path)
    here = leak(site=(str(tmp_path / "app" / "client.py"), 41, "f"))
    assert ignore(site="app/client.py:41", reason="known").matches(here) is True
    assert ignore(site=f"{tmp_path}/app/*:41", reason="known").matches(here) is True
    monkeypatch.chdir(tmp_path / "app")
    assert ignore(site="app/client.py:41", reason="known").matches(here) is False


def test_a_leak_without_site_or_name_matches_no_pattern_for_them():
    bare = leak(site=None, name=None)
    assert ignore(site="*", reason="known").matches(bare) is False
    assert ignore(name="reader*", reason="known").matches(bare) is False
    assert ignore(function="Client.*", reason="known").matches(bare) is True


@pytest.mark.parametrize(
    ("until", "overdue"),
    [
        ("2030-05-11", False),
        ("2030-05-10", False),
        ("2030-05-09", True),
        (datetime.date(2030, 5, 9), True),
        (None, False),
    ],
)
def test_a_rule_hides_up_to_its_last_day(monkeypatch, until, overdue):
    monkeypatch.setattr(_rules, "_today", lambda: datetime.date(2030, 5, 10))
    rule = ignore(function="*", reason="known", until=until)
    assert rule.overdue is overdue
    assert rule.matches(leak()) is not overdue


def test_today_is_the_day_of_the_local_calendar():
    rule = ignore(function="*", reason="known", until=datetime.date.max)
    assert rule.overdue is False
    assert ignore(function="*", reason="known", until="1999-12-31").overdue is True


def test_a_rule_shows_what_it_was_made_of():
    rule = ignore(
        kind="task", name="a", function="F.*", site="*:1", reason="why", until="2030-01-31"
    )
    assert (rule.kind, rule.name, rule.function, rule.site) == ("task", "a", "F.*", "*:1")
    assert (rule.reason, rule.until) == ("why", datetime.date(2030, 1, 31))
    assert repr(rule) == (
        "ignore(function='F.*', kind='task', name='a', site='*:1', reason='why', "
        "until='2030-01-31')"
    )


def test_the_text_of_a_rule_names_its_patterns():
    assert str(ignore(kind="task", function="Foo.*", reason="x")) == "function=Foo.* kind=task"
    assert str(ignore(name="a pool", reason="x")) == "name='a pool'"
    assert str(ignore(name="a\n", reason="x")) == r"name='a\n'"


def test_a_rule_is_read_only():
    rule = ignore(kind="task", reason="x")
    with pytest.raises(AttributeError):
        rule.kind = "thread"
    with pytest.raises(AttributeError):
        rule.anything = 1


def test_rules_are_equal_by_what_they_say():
    rule = ignore(kind="task", reason="x")
    assert rule == ignore(kind="task", reason="x")
    assert hash(rule) == hash(ignore(kind="task", reason="x"))
    assert rule != ignore(kind="task", reason="y")
    assert rule != "kind=task"


@pytest.mark.parametrize("again", [copy.deepcopy, lambda rule: pickle.loads(pickle.dumps(rule))])
def test_a_rule_survives_copying_and_pickling_after_use(again):
    rule = ignore(function="Client.*", reason="x", until="2999-01-01")
    assert rule.matches(leak()) is True
    assert again(rule) == rule
    assert again(rule).matches(leak()) is True


def test_a_rule_needs_a_pattern():
    with pytest.raises(ValueError, match="at least one of kind, name, function, site"):
        ignore(reason="because")


@pytest.mark.parametrize("reason", ["", "  \n"])
def test_a_rule_needs_a_reason(reason):
    with pytest.raises(ValueError, match="reason is empty"):
        ignore(kind="task", reason=reason)
    with pytest.raises(TypeError):
        ignore(kind="task")


@pytest.mark.parametrize("kind", ["tsak", "Task", "x*"])
def test_an_unknown_kind_is_answered_with_the_list(kind):
    with pytest.raises(ValueError, match="unknown kind") as raised:
        ignore(kind=kind, reason="x")
    assert repr(kind) in str(raised.value)
    assert all(known in str(raised.value) for known in KINDS)


@pytest.mark.parametrize("field", ["kind", "name", "function", "site"])
def test_an_empty_pattern_is_an_error(field):
    with pytest.raises(ValueError, match=f"{field} is empty"):
        ignore(**{field: "", "reason": "x"})


@pytest.mark.parametrize("field", ["kind", "name", "function", "site", "reason"])
@pytest.mark.parametrize("value", [5, b"task"])
def test_patterns_and_reason_are_strings(field, value):
    with pytest.raises(TypeError, match=f"{field} must be a str"):
        ignore(**({"function": "*", "reason": "x"} | {field: value}))


@pytest.mark.parametrize("site", ["app/client.py", "*/client.py", "app/client.py:"])
def test_a_site_that_could_never_match_is_an_error(site):
    with pytest.raises(ValueError, match="can match no path:line"):
        ignore(site=site, reason="x")


@pytest.mark.parametrize("until", ["tomorrow", "2030-13-01", "", "2030-01-31T10:00:00"])
def test_a_wrong_date_is_an_error_that_shows_the_form(until):
    with pytest.raises(ValueError, match="YYYY-MM-DD"):
        ignore(kind="task", reason="x", until=until)


@pytest.mark.parametrize("until", [20300131, datetime.datetime(2030, 1, 31)])
def test_a_date_is_a_date_or_a_string(until):
    with pytest.raises(TypeError, match="until must be a date or a str"):
        ignore(kind="task", reason="x", until=until)


def test_one_rule_or_any_iterable_of_rules_is_taken():
    rule, other = ignore(kind="task", reason="x"), ignore(kind="thread", reason="x")
    assert rules_from(rule) == (rule,)
    assert rules_from([rule, other]) == (rule, other)
    assert rules_from(iter([rule])) == (rule,)
    assert rules_from(()) == ()
    assert all(isinstance(found, IgnoreRule) for found in rules_from([rule]))


def test_a_pattern_in_place_of_a_rule_is_shown_whole():
    with pytest.raises(TypeError, match=r"not 'Client\.x'"):
        rules_from("Client.x")


@pytest.mark.parametrize(
    "value", ["Client.*", b"x", None, 5, ["Client.*"], [None], {"kind": "task"}]
)
def test_anything_else_is_a_type_error_that_says_how_to_make_a_rule(value):
    with pytest.raises(TypeError, match=r"leakguard\.ignore\("):
        rules_from(value)
