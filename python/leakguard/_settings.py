"""Reads the LEAKGUARD variables."""

from __future__ import annotations

import math
import os
from typing import TYPE_CHECKING

from leakguard._kinds import DEFAULT_KINDS, parse_kinds
from leakguard._tracking import AVAILABLE, DEFAULT_STACK_DEPTH

if TYPE_CHECKING:
    from collections.abc import Mapping

MAX_STACK_DEPTH = 1024


class Settings:
    """What the environment asks for. A wrong value has its default here, and a complaint."""

    def __init__(self) -> None:
        self.active = False
        self.action = "warn"
        self.exitcode = 23
        self.grace = 1.0
        self.kinds: tuple[str, ...] = DEFAULT_KINDS
        self.report: str | None = None
        self.stack_depth = DEFAULT_STACK_DEPTH
        self.witness = False
        self.complaints: list[str] = []


def read(environment: Mapping[str, str]) -> Settings:
    """Settings from the environment; never raises."""
    settings = Settings()
    _read_mode(settings, environment.get("LEAKGUARD", ""))
    for name, reader in _READERS.items():
        value = environment.get(f"LEAKGUARD_{name}", "")
        if not value:
            continue
        try:
            reader(settings, value)
        except ValueError as error:
            default = getattr(settings, name.lower())
            shown = ",".join(default) if isinstance(default, tuple) else default
            settings.complaints.append(f"LEAKGUARD_{name}={value}: {error}; using {shown}")
    return settings


def _read_mode(settings: Settings, value: str) -> None:
    settings.active = value not in ("", "0")
    if value in ("log", "exit"):
        settings.action = value
    elif value not in ("", "0", "1", "warn"):
        settings.complaints.append(
            f"LEAKGUARD={value} is not known (allowed: 0, 1, warn, log, exit); taken as 1"
        )


def _read_exitcode(settings: Settings, value: str) -> None:
    settings.exitcode = _whole_number(value, 0, 255)


def _read_grace(settings: Settings, value: str) -> None:
    try:
        grace = float(value)
    except ValueError:
        grace = math.nan
    if not 0 <= grace < math.inf:
        raise ValueError("must be a number of seconds, 0 or more")
    settings.grace = grace


def _read_kinds(settings: Settings, value: str) -> None:
    settings.kinds = parse_kinds([kind.strip() for kind in value.split(",")], AVAILABLE)


def _read_report(settings: Settings, value: str) -> None:
    settings.report = value.replace("%p", str(os.getpid()))


def _read_stack_depth(settings: Settings, value: str) -> None:
    settings.stack_depth = _whole_number(value, 1, MAX_STACK_DEPTH)


def _read_witness(settings: Settings, value: str) -> None:
    settings.witness = bool(_whole_number(value, 0, 1))


def _whole_number(value: str, low: int, high: int) -> int:
    if value.isascii() and value.isdigit() and low <= int(value) <= high:
        return int(value)
    raise ValueError(f"must be a whole number from {low} to {high}")


_READERS = {
    "EXITCODE": _read_exitcode,
    "GRACE": _read_grace,
    "KINDS": _read_kinds,
    "REPORT": _read_report,
    "STACK_DEPTH": _read_stack_depth,
    "WITNESS": _read_witness,
}
