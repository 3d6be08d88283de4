"""Ignore rules: what the user has decided to live with, each with its reason."""

from __future__ import annotations

from leakguard._kinds import known_kinds
from leakguard._paths import display

TYPE_CHECKING = False
if TYPE_CHECKING:
    import re
    from collections.abc import Iterable
    from datetime import date

    from leakguard._report import Leak

    _Matchers = tuple[tuple[str, re.Pattern[str]], ...]

_PATTERNS = ("function", "kind", "name", "site")  # in the order in which a rule is written
_SITE_ENDS = frozenset("0123456789*?]")


class IgnoreRule:
    """Hides the leaks that match all its patterns, where it is passed. Made by `ignore`."""

    __module__ = "leakguard"
    __slots__ = ("_function", "_kind", "_matchers", "_name", "_reason", "_site", "_until")

    def __init__(
        self,
        kind: str | None,
        name: str | None,
        function: str | None,
        site: str | None,
        reason: str,
        until: date | None,
    ) -> None:
        self._kind = kind
        self._name = name
        self._function = function
        self._site = site
        self._reason = reason
        self._until = until
        self._matchers: _Matchers | None = None

    @property
    def kind(self) -> str | None:
        """A glob for the kind, or None."""
        return self._kind

    @property
    def name(self) -> str | None:
        """A glob for the name of the task or thread, or None."""
        return self._name

    @property
    def function(self) -> str | None:
        """A glob for the function, or None."""
        return self._function

    @property
    def site(self) -> str | None:
        """A glob for `path:line`, or None."""
        return self._site

    @property
    def reason(self) -> str:
        """Why this may stay."""
        return self._reason

    @property
    def until(self) -> date | None:
        """The last day on which the rule hides anything, or None."""
        return self._until

    @property
    def overdue(self) -> bool:
        """Whether its last day is over."""
        return self._until is not None and _today() > self._until

    def matches(self, leak: Leak) -> bool:
        """Whether the rule hides this leak, today."""
        if self._matchers is None:
            self._matchers = self._compile()
        for field, matcher in self._matchers:
            spellings = _sites(leak) if field == "site" else (getattr(leak, field) or "",)
            if not any(matcher.match(spelling) for spelling in spellings):
                return False
        return not self.overdue

    def _compile(self) -> _Matchers:
        import re
        from fnmatch import translate

        return tuple((field, re.compile(translate(glob))) for field, glob in self._given())

    def _given(self) -> list[tuple[str, str]]:
        globs = ((field, getattr(self, field)) for field in _PATTERNS)
        return [(field, glob) for field, glob in globs if glob is not None]

    def _identity(self) -> tuple[object, ...]:
        return (self._kind, self._name, self._function, self._site, self._reason, self._until)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, IgnoreRule):
            return NotImplemented
        return self._identity() == other._identity()

    def __hash__(self) -> int:
        return hash(self._identity())

    def __reduce__(self) -> tuple[type[IgnoreRule], tuple[object, ...]]:
        return (IgnoreRule, self._identity())

    def __str__(self) -> str:
        """The patterns, as a report names the rule: `function=Foo.* kind=task`."""
        return " ".join(f"{field}={_quoted(glob)}" for field, glob in self._given())

    def __repr__(self) -> str:
        parts = [f"{field}={glob!r}" for field, glob in self._given()]
        parts.append(f"reason={self._reason!r}")
        if self._until is not None:
            parts.append(f"until={self._until.isoformat()!r}")
        return f"ignore({', '.join(parts)})"


def ignore(
    *,
    kind: str | None = None,
    name: str | None = None,
    function: str | None = None,
    site: str | None = None,
    reason: str,
    until: date | str | None = None,
) -> IgnoreRule:
    """A rule that hides leaks in the checks it is passed to.

    kind, name, function: case-sensitive globs for what a Leak has under these names.
    site: a glob for `path:line`, the path relative to the working directory or absolute.
    reason: why this may stay; reports show it.
    until: the last day on which it hides anything, a date or "YYYY-MM-DD".

    All patterns given must match; at least one is required. Raises TypeError for a value of a
    wrong type, and ValueError for one that could never match, an empty reason or a wrong date.
    """
    for field, glob in (("kind", kind), ("name", name), ("function", function), ("site", site)):
        _check_glob(field, glob)
    if kind is None and name is None and function is None and site is None:
        raise ValueError("a rule needs a pattern: at least one of kind, name, function, site")
    _check_kind(kind)
    _check_site(site)
    if not isinstance(reason, str):
        raise TypeError(f"reason must be a str, not {type(reason).__name__}")
    if not reason.strip():
        raise ValueError("reason is empty; say why this leak may stay")
    return IgnoreRule(kind, name, function, site, reason, _parse_until(until))


def rules_from(value: IgnoreRule | Iterable[IgnoreRule]) -> tuple[IgnoreRule, ...]:
    """The rules of an `ignore=` argument: one rule or an iterable of rules, else TypeError."""
    if isinstance(value, IgnoreRule):
        return (value,)
    wanted = "a rule or an iterable of rules, each made by leakguard.ignore(...)"
    given: object = value
    if isinstance(given, (str, bytes)):
        raise TypeError(f"ignore must be {wanted}, not {given!r}")
    try:
        rules = tuple(value)
    except TypeError:
        raise TypeError(f"ignore must be {wanted}, not {type(value).__name__}") from None
    for rule in rules:
        if not isinstance(rule, IgnoreRule):
            raise TypeError(f"ignore must be {wanted}; {rule!r} is none")
    return rules


def _check_glob(field: str, glob: object) -> None:
    if glob is not None and not isinstance(glob, str):
        raise TypeError(f"{field} must be a str, not {type(glob).__name__}")
    if glob == "":
        raise ValueError(f'{field} is empty; leave it out, or use "*" for any')


def _check_kind(kind: str | None) -> None:
    from fnmatch import fnmatchcase

    if kind is not None and not any(fnmatchcase(known, kind) for known in known_kinds()):
        allowed = ", ".join(repr(known) for known in known_kinds())
        raise ValueError(f"unknown kind {kind!r}; allowed: {allowed}, or a glob for some of them")


def _check_site(site: str | None) -> None:
    if site is not None and site[-1] not in _SITE_ENDS:
        raise ValueError(
            f"site {site!r} can match no path:line; "
            f"allowed: a glob like 'app/client.py:41' or 'app/client.py:*'"
        )


def _parse_until(until: date | str | None) -> date | None:
    if until is None:
        return None
    from datetime import date, datetime

    if isinstance(until, str):
        try:
            return date.fromisoformat(until)
        except ValueError:
            raise ValueError(f"until is {until!r}; allowed: a date, or 'YYYY-MM-DD'") from None
    if not isinstance(until, date) or isinstance(until, datetime):
        raise TypeError(f"until must be a date or a str, not {type(until).__name__}")
    return until


def _today() -> date:
    from datetime import date

    return date.today()


def _sites(leak: Leak) -> tuple[str, ...]:
    """A leak's site in the spellings that a pattern may use."""
    site = leak.site
    if site is None:
        return ()
    return (f"{display(site.filename)}:{site.lineno}", f"{site.filename}:{site.lineno}")


def _quoted(glob: str) -> str:
    is_plain = glob.isprintable() and " " not in glob and '"' not in glob
    return glob if is_plain else repr(glob)
