"""The pytest plugin: no test leaves anything behind, and the right test gets the blame.

Off unless asked for: `--leakguard` or ini `leakguard = true` (every test), the marker `leakguard`
(a test, class or module), the fixture `no_leaks` (one test).

pytest loads this module, outside of the package, in each run of an environment that leakguard is
installed in; the package only where a test is to be checked. (PYTEST_DONT_REWRITE.)
"""

from __future__ import annotations

import contextlib
import sys

import pytest

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from importlib.machinery import ModuleSpec
    from types import ModuleType
    from typing import Any

MARKER = "leakguard"
FIXTURE = "no_leaks"
_SESSION = "leakguard._pytest_session"
_MARKER = (
    "leakguard(on=True, *, grace=1.0, kinds=None, ignore=(), action='raise', ...): check that this "
    "test leaves no task or thread behind, with the arguments of leakguard.guard; "
    "leakguard(False) switches that off."
)
# What an option or ini value says where nobody has set it.
_OPTIONS = {
    "leakguard": False,
    "leakguard_baseline": None,
    "leakguard_update_baseline": False,
}
_VALUES = {"leakguard": False, "leakguard_grace": "1.0", "leakguard_ignore": []}


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("leakguard", "leaked tasks and threads")
    group.addoption(
        "--leakguard",
        action="store_true",
        default=False,
        help="check every test: an error for each that leaves a task or a thread behind",
    )
    group.addoption(
        "--leakguard-baseline",
        metavar="FILE",
        help="leaks that are known, and do not fail a test (for a gradual start)",
    )
    group.addoption(
        "--leakguard-update-baseline",
        action="store_true",
        default=False,
        help="write the leaks of this run to the baseline FILE instead of failing",
    )
    parser.addini("leakguard", "check every test", type="bool", default=False)
    parser.addini(
        "leakguard_grace",
        "seconds that a test's tasks and threads get to end by themselves",
        default=_VALUES["leakguard_grace"],
    )
    parser.addini(
        "leakguard_ignore",
        "ignore rules, one a line, as in [tool.leakguard]: "
        '{ function = "Client._read", reason = "why it may stay" }',
        type="linelist",
        default=[],
    )


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", _MARKER)
    # With pytest-xdist the process that starts the workers only gathers what these say.
    gathers = config.getoption("dist", "no") != "no" and not hasattr(config, "workerinput")
    if gathers or _is_any_set(config):
        session = _session()
        session.settings_of(config)  # a wrong one is an error in any case
        if gathers:
            session.gather(config)


def _is_any_set(config: pytest.Config) -> bool:
    return any(config.getoption(name) != it for name, it in _OPTIONS.items()) or any(
        config.getini(name) != it for name, it in _VALUES.items()
    )


@pytest.hookimpl(trylast=True)
def pytest_collection_finish(session: pytest.Session) -> None:
    config = session.config
    if (
        config.getoption("leakguard")
        or config.getini("leakguard")
        or any(map(_asks, session.items))
    ):
        _session().begin(config, session.items)


def _asks(item: pytest.Item) -> bool:
    """Whether this test says something about its check."""
    return FIXTURE in getattr(item, "fixturenames", ()) or bool(markers_of(item))


@pytest.hookimpl(trylast=True)
def pytest_unconfigure(config: pytest.Config) -> None:
    if _SESSION in sys.modules:
        _session().finish(config)


@pytest.fixture(name=FIXTURE)
def no_leaks(request: pytest.FixtureRequest) -> Iterator[None]:
    """Check that this test leaves no task and no thread behind."""
    with _session().checks_from_here(request.node):
        yield


def markers_of(item: pytest.Item) -> list[pytest.Mark]:
    """As item.iter_markers, the closest one first; nearly always there is none."""
    found = []
    node: Any = item
    while node is not None:
        for marker in node.own_markers:
            if marker.name == MARKER:
                found.append(marker)
        node = node.parent
    return found


def _session() -> ModuleType:
    """The part of leakguard that runs the checks."""
    if _SESSION not in sys.modules:
        with _past_rewriting():
            import leakguard._pytest_session  # noqa: F401
    return sys.modules[_SESSION]


@contextlib.contextmanager
def _past_rewriting() -> Iterator[None]:
    """Inside, modules of the package are loaded as they are anywhere else. pytest's import hook
    would load them by itself, as those of any plugin: there is no assert in them to rewrite, and
    its way takes four times as long, since it reads and hashes each source."""
    path = sys.meta_path
    hooks = [it for it in path if type(it).__module__ == "_pytest.assertion.rewrite"]
    # Each in the place of the other, so that no thread that goes through the list misses any.
    for hook in hooks:
        path[path.index(hook)] = _Past(hook)
    try:
        yield
    finally:
        for place, finder in enumerate(path):
            if isinstance(finder, _Past):
                path[place] = finder.hook


class _Past:
    """A finder in the place of pytest's, which it asks for all that is not ours."""

    def __init__(self, hook: Any) -> None:
        self.hook = hook

    def find_spec(self, name: str, *rest: Any) -> ModuleSpec | None:
        if name.partition(".")[0] == "leakguard":
            return None  # the next finder is Python's own
        found: ModuleSpec | None = self.hook.find_spec(name, *rest)
        return found
