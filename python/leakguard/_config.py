"""Ignore rules as they stand in a configuration file, in TOML."""

from __future__ import annotations

from leakguard._rules import ignore

TYPE_CHECKING = False
if TYPE_CHECKING:
    from leakguard._rules import IgnoreRule

_KEYS = ("kind", "name", "function", "site", "reason", "until")


def rule_from_table(table: object) -> IgnoreRule:
    """One rule: the arguments of `ignore`, as a TOML table gives them.

    Raises ValueError or TypeError, saying what is wrong and what is allowed.
    """
    if not isinstance(table, dict):
        raise TypeError(f"a rule is a table like {_EXAMPLE}, not {table!r}")
    unknown = [key for key in table if key not in _KEYS]
    if unknown:
        raise ValueError(f"unknown key {unknown[0]!r}; allowed: {', '.join(_KEYS)}")
    if "reason" not in table:
        raise ValueError("the rule has no reason; say why this leak may stay")
    return ignore(**table)


def rule_from_line(line: str) -> IgnoreRule:
    """One rule on a line of its own: an inline table, with or without its braces.

    Raises ValueError or TypeError, saying what is wrong and what is allowed.
    """
    import tomllib

    text = line.strip().removesuffix(",")
    if not text.startswith("{"):
        text = f"{{{text}}}"
    try:
        table = tomllib.loads(f"rule = {text}")["rule"]
    except tomllib.TOMLDecodeError:
        raise ValueError(f"allowed: an inline table of TOML like {_EXAMPLE}") from None
    return rule_from_table(table)


_EXAMPLE = '{ function = "Client._read", reason = "why it may stay" }'
