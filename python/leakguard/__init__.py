"""leakguard: finds the asyncio tasks and threads that a program leaves behind.

with leakguard.guard(): ...    raises LeakError for what the block leaves
leakguard.checkpoint("name")   marks a moment of a life cycle
LEAKGUARD=1 python app.py      watches a program that nobody edits
pytest --leakguard             fails the tests that leave something behind

(It may be loaded before pytest, which would warn: PYTEST_DONT_REWRITE.)
"""

from leakguard._errors import BlockingError, FanoutError, LeakError, LeakWarning
from leakguard._guard import guard
from leakguard._report import Leak, Report
from leakguard._rules import IgnoreRule, ignore
from leakguard._tracking import install, is_installed, stats, uninstall

TYPE_CHECKING = False
if TYPE_CHECKING:
    from leakguard._checkpoint import (
        Checkpoint,
        assert_stable,
        assert_stable_async,
        checkpoint,
        snapshot,
    )

__all__ = [
    "BlockingError",
    "Checkpoint",
    "FanoutError",
    "IgnoreRule",
    "Leak",
    "LeakError",
    "LeakWarning",
    "Report",
    "assert_stable",
    "assert_stable_async",
    "checkpoint",
    "guard",
    "ignore",
    "install",
    "is_installed",
    "snapshot",
    "stats",
    "uninstall",
]

# A guard, the pytest plugin and LEAKGUARD=1 need none of these: their module is loaded when one of
# them is first asked for.
_LATER = ("Checkpoint", "assert_stable", "assert_stable_async", "checkpoint", "snapshot")


def __getattr__(name: str) -> object:
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from leakguard import _checkpoint

    for later in _LATER:
        globals().setdefault(later, getattr(_checkpoint, later))
    return globals()[name]


def __dir__() -> list[str]:
    return sorted({*globals(), *_LATER})
