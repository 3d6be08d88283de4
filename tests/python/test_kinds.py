"""What a `kinds` argument may be, and what is said to one that it may not."""

import pytest

from leakguard._kinds import KINDS, parse_kinds

HERE = ("task", "thread")


def test_none_is_tasks_and_threads():
    assert parse_kinds(None, HERE) == ("task", "thread")


@pytest.mark.parametrize("given", ["thread", ["thread"], ("thread", "thread"), iter(["thread"])])
def test_a_string_or_any_iterable_names_kinds_each_once(given):
    assert parse_kinds(given, HERE) == ("thread",)


def test_the_order_given_does_not_matter():
    assert parse_kinds(["thread", "task"], HERE) == parse_kinds(["task", "thread"], HERE)


def test_an_unknown_kind_is_named_with_all_that_is_allowed():
    with pytest.raises(ValueError, match="'tsak'") as raised:
        parse_kinds(["task", "tsak"], KINDS)
    assert all(repr(kind) in str(raised.value) for kind in KINDS)


def test_kinds_by_commas_are_answered_with_the_right_form():
    with pytest.raises(ValueError, match="as a list"):
        parse_kinds("task,thread", HERE)


def test_a_kind_that_cannot_be_seen_is_told_from_an_unknown_one():
    with pytest.raises(ValueError, match=r"'timer' cannot be seen here.*'task', 'thread'"):
        parse_kinds("timer", HERE)


def test_no_kind_at_all_is_an_error():
    with pytest.raises(ValueError, match="empty"):
        parse_kinds([], HERE)


@pytest.mark.parametrize("given", [5, b"task", [None], ["task", 1]])
def test_what_is_no_string_is_a_type_error_that_says_str(given):
    with pytest.raises(TypeError, match="must be a str"):
        parse_kinds(given, HERE)
