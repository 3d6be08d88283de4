"""Ignore rules: what is left behind on purpose, each with a reason."""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

from leakguard._kinds import KINDS
from leakguard._paths import display

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import date

_PATTERNS = ("kind", "name", "function", "site")


class IgnoreRule:
    """Hides the leaks that all of its patterns match. Made by `ignore()`; read-only."""

    __slots__ = ("_values",)
    _values: dict[str, Any]

    def __init__(self, **values: Any) -> None:
        object.__setattr__(self, "_values", values)

    def __getattr__(self, name: str) -> Any:
        try:
            return object.__getattribute__(self, "_values")[name]
        except (KeyError, AttributeError):
            raise AttributeError(name) from None

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"an ignore rule is read-only: make another one to change {name!r}")

    def __eq__(self, other: object) -> bool:
        return isinstance(other, IgnoreRule) and self._values == other._values

    def __hash__(self) -> int:
        return hash(tuple(self._values.values()))

    def __str__(self) -> str:
        patterns = (name for name in _PATTERNS if self._values[name] is not None)
        return " ".join(f"{name}={self._values[name]}" for name in patterns)

    def __repr__(self) -> str:
        given = ((name, value) for name, value in self._values.items() if value is not None)
        return f"ignore({', '.join(f'{name}={value!r}' for name, value in given)})"

    @property
    def overdue(self) -> bool:
        """Whether its last day has passed: it hides nothing any more."""
        if self.until is None:
            return False
        from datetime import date

        return bool(date.today() > self.until)

    def matches(self, leak: Any) -> bool:
        """Whether every pattern of this rule fits the leak, and its last day has not passed."""
        for name in ("kind", "name", "function"):
            pattern = self._values[name]
            if pattern is not None and not fnmatchcase(getattr(leak, name), pattern):
                return False
        if self.site is not None and not self._fits_site(leak.site):
            return False
        return not self.overdue

    def _fits_site(self, site: Any) -> bool:
        if site is None:
            return False
        return any(
            fnmatchcase(f"{path}:{site.lineno}", self.site)
            for path in {site.filename, display(site.filename)}
        )


def ignore(
    *,
    kind: str | None = None,
    name: str | None = None,
    function: str | None = None,
    site: str | None = None,
    reason: str,
    until: date | str | None = None,
) -> IgnoreRule:
    """Make a rule that hides leaks; it acts where it is passed as `ignore=`.

    kind, name, function, site: case-sensitive globs; all given must match, one at least is needed.
        `site` is matched against `path:line`, relative to the working directory or absolute.
    reason: why this is left behind on purpose; required.
    until: the last day on which the rule hides anything, a date or "YYYY-MM-DD".

    Raises TypeError or ValueError for wrong arguments.
    """
    patterns = {"kind": kind, "name": name, "function": function, "site": site}
    for key, pattern in patterns.items():
        if pattern is not None and not isinstance(pattern, str):
            raise TypeError(f"{key} must be a glob as a str, not {type(pattern).__name__}")
    if all(pattern is None for pattern in patterns.values()):
        raise ValueError(f"a rule needs one pattern at least: {', '.join(_PATTERNS)}")
    if kind is not None and not any(fnmatchcase(known, kind) for known in KINDS):
        raise ValueError(f"kind {kind!r} matches none of {', '.join(KINDS)}")
    if not isinstance(reason, str):
        raise TypeError(f"reason must be a str, not {type(reason).__name__}")
    if not reason.strip():
        raise ValueError("reason must not be empty: say why this is left behind on purpose")
    return IgnoreRule(**patterns, reason=reason, until=_parse_until(until))


def _parse_until(until: object) -> date | None:
    if until is None:
        return None
    from datetime import date, datetime

    if isinstance(until, datetime):
        return until.date()
    if isinstance(until, date):
        return until
    if not isinstance(until, str):
        raise TypeError(f'until must be a date or "YYYY-MM-DD", not {type(until).__name__}')
    try:
        return date.fromisoformat(until)
    except ValueError:
        raise ValueError(f'until must be a date or "YYYY-MM-DD", not {until!r}') from None


def rules_from(value: IgnoreRule | Iterable[IgnoreRule]) -> tuple[IgnoreRule, ...]:
    """The rules of an `ignore=` argument: one rule or an iterable of rules."""
    rules = (value,) if isinstance(value, IgnoreRule) else value
    try:
        found = tuple(rules)
    except TypeError:
        found = (rules,)  # type: ignore[assignment]
    for rule in found:
        if not isinstance(rule, IgnoreRule):
            raise TypeError(f"ignore takes rules made by leakguard.ignore(), not {rule!r}")
    return found
