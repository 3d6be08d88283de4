"""Ignore rules as they stand in a configuration file, in TOML.

[tool.leakguard]                 # in pyproject.toml; in a file of its own: [leakguard]
ignore = [
  { function = "Client._read", reason = "closed by the server", until = 2027-01-31 },
]
"""

from __future__ import annotations

import os
import re

from leakguard._rules import ignore

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from leakguard._rules import IgnoreRule

_KEYS = ("kind", "name", "function", "site", "reason", "until")
_EXAMPLE = '{ function = "Client._read", reason = "why it may stay" }'


class ConfigError(ValueError):
    """A configuration file is broken. The text names the file and the line."""


def load(path: str, *, tables: Sequence[str]) -> tuple[IgnoreRule, ...]:
    """The rules of a file.

    tables: the names of the table that has them, one in the other: ("tool", "leakguard").

    Raises ConfigError or OSError; then no rule of the file counts.
    """
    import tomllib

    with open(path, "rb") as file:  # noqa: PTH123  # cheap to import
        data = file.read()
    try:
        text = data.decode()
        found: Any = tomllib.loads(text)
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise ConfigError(f"{path}:{line}: it is not UTF-8") from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(_with_line(path, str(error), text)) from None
    for name in tables:
        found = found.get(name, {}) if isinstance(found, dict) else None
    return _rules(path, text, found, ".".join(tables))


def _rules(path: str, text: str, table: Any, name: str) -> tuple[IgnoreRule, ...]:
    if not isinstance(table, dict):
        raise ConfigError(f"{path}:{_line_of(text, name)}: {name} must be a table")
    for key in table:
        if key != "ignore":
            raise ConfigError(f"{path}:{_line_of(text, key)}: unknown key {key!r}; allowed: ignore")
    entries = table.get("ignore", [])
    if not isinstance(entries, list):
        line = _line_of(text, "ignore")
        raise ConfigError(f"{path}:{line}: ignore must be a list of tables like {_EXAMPLE}")
    rules = []
    for entry in entries:
        try:
            rules.append(rule_from_table(entry))
        except (TypeError, ValueError) as error:
            raise ConfigError(f"{path}:{_line_of_rule(text, entry)}: {error}") from None
    return tuple(rules)


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


def _with_line(path: str, message: str, text: str) -> str:
    """tomllib says `... (at line 3, column 5)` or `... (at end of document)`."""
    found = re.search(r" \(at line (\d+), column \d+\)$", message)
    if found is None:
        lines = text.count("\n") + 1
        return f"{path}:{lines}: {message}"
    return f"{path}:{found[1]}: {message[: found.start()]}"


def _line_of_rule(text: str, rule: Any) -> int:
    """Where a rule stands. tomllib keeps no places: the line with most of what the rule says."""
    values = rule.items() if isinstance(rule, dict) else [("", rule)]
    words = [word for pair in values for word in map(str, pair) if word]
    lines = text.splitlines()
    counts = [sum(word in line for word in words) for line in lines]
    return counts.index(max(counts)) + 1 if lines else 1


def _line_of(text: str, name: str) -> int:
    """The first line that names a key or table."""
    for number, line in enumerate(text.splitlines(), 1):
        if name in line:
            return number
    return 1


def find(environ_value: str) -> tuple[str, tuple[str, ...]] | None:
    """The file and the table in it: what LEAKGUARD_CONFIG names, else pyproject.toml here."""
    if environ_value:
        return os.path.abspath(environ_value), ("leakguard",)  # noqa: PTH100
    here = "pyproject.toml"
    return (here, ("tool", "leakguard")) if os.path.isfile(here) else None  # noqa: PTH113
