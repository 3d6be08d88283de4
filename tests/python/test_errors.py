"""LeakError: the report in an exception, also in another process."""

import copy
import pickle
import traceback
import warnings

import pytest

from leakguard import BlockingError, FanoutError, LeakError, LeakWarning, Report
from leakguard._report import Leak


def a_report(**changes):
    site = ("/srv/app.py", 4, "main")
    leak = Leak(
        kind="task", serial=7, name="Task-7", function="job", state="waiting", age=2.0,
        creation=(site,), site=site,
    )  # fmt: skip
    return Report([leak], reason="block", **changes)


def test_it_is_an_assertion_error_with_the_text_of_its_report():
    report = a_report()
    error = LeakError(report)
    assert isinstance(error, AssertionError)
    assert error.report is report
    assert str(error) == report.text()


def test_a_traceback_names_it_as_the_user_imports_it():
    shown = "".join(traceback.format_exception_only(LeakError(a_report())))
    assert shown.startswith("leakguard.LeakError: leakguard: 1 leak since the block began")


def test_its_repr_is_one_line():
    assert repr(LeakError(a_report())) == "LeakError(<Report block: 1 leak>)"


@pytest.mark.parametrize("cls", [FanoutError, BlockingError])
def test_its_children_are_caught_as_leak_errors(cls):
    with pytest.raises(LeakError):
        raise cls(a_report())


def test_an_error_may_say_more_than_its_report():
    error = FanoutError(a_report(), "task job at app.py:4: 12 were alive at once")
    assert str(error) == "task job at app.py:4: 12 were alive at once"
    assert len(error.report) == 1


@pytest.mark.parametrize(
    "again", [copy.copy, copy.deepcopy, lambda e: pickle.loads(pickle.dumps(e))]
)
@pytest.mark.parametrize("cls", [LeakError, FanoutError, BlockingError])
def test_it_survives_copying_and_the_way_to_another_process(cls, again):
    error = cls(a_report(label="x", notes=["a note"]))
    error.add_note("seen in a worker")
    other = again(error)
    assert type(other) is cls
    assert other.report.to_dict() == error.report.to_dict()
    assert str(other) == str(error)
    assert other.__notes__ == ["seen in a worker"]


def test_text_of_its_own_survives_pickling():
    error = pickle.loads(pickle.dumps(LeakError(a_report(), "more")))
    assert str(error) == "more"


def test_the_warning_is_a_resource_warning():
    with pytest.warns(ResourceWarning, match="1 leak") as caught:
        warnings.warn(LeakWarning(a_report().text()), stacklevel=1)
    assert caught[0].category is LeakWarning
