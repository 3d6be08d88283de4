"""leakguard: finds the asyncio tasks and threads that a program leaves behind.

with leakguard.guard(): ...    raises LeakError for what the block leaves
leakguard.checkpoint("name")   marks a moment of a life cycle
LEAKGUARD=1 python app.py      watches a program that nobody edits
pytest --leakguard             fails the tests that leave something behind

(It may be loaded before pytest, which would warn: PYTEST_DONT_REWRITE.)
"""

from leakguard._checkpoint import (
    Checkpoint,
    assert_stable,
    assert_stable_async,
    checkpoint,
    snapshot,
)
from leakguard._errors import BlockingError, FanoutError, LeakError, LeakWarning
from leakguard._guard import guard
from leakguard._report import Leak, Report
from leakguard._rules import IgnoreRule, ignore
from leakguard._tracking import install, is_installed, stats, uninstall

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
