"""The tables of docs/performance.md, from the JSON files of several runs: a column for each."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from figures import Figure

BEGIN = "<!-- figures: written by tests/bench/run.py --markdown -->"
END = "<!-- end of figures -->"

Key = tuple[str, str]  # case, name


def tables(files: Sequence[Path]) -> str:
    """What has a budget, what the peers cost, and the rest."""
    runs = [json.loads(file.read_text(encoding="utf-8")) for file in files]
    runs.sort(key=lambda run: [int(part) for part in run["python"].split(".")[:2]])
    groups: dict[str, Callable[[dict[str, Any]], bool]] = {
        "Against the budget": lambda line: line.get("budget") is not None,
        "What a user would pick instead": is_peer,
        "Other figures": lambda line: line.get("budget") is None and not is_peer(line),
    }
    parts = [conditions(runs)]
    for title, belongs in groups.items():
        rows = {
            (line["case"], line["name"]): None
            for run in runs
            for line in run["figures"]
            if belongs(line)
        }
        if rows:
            parts.append(f"### {title}\n\n{table(list(rows), runs)}")
    return "\n\n".join(parts)


def is_peer(line: dict[str, Any]) -> bool:
    name: str = line["name"]
    return name.startswith("peer: ")


def conditions(runs: Sequence[dict[str, Any]]) -> str:
    kinds = sorted({"--quick" if run["quick"] else "the full effort" for run in runs})
    days = sorted({run["time"][:10] for run in runs})
    machines = sorted({f"{run['processors']} processors ({run['machine']})" for run in runs})
    versions = sorted({run["leakguard"] for run in runs})
    return (
        f"leakguard {', '.join(versions)}; one run for each version, {' and '.join(kinds)}, "
        f"{', '.join(days)}; {', '.join(machines)}. Medians, and in brackets the quartiles of the "
        "pairs; bold is over the budget."
    )


def table(rows: Sequence[Key], runs: Sequence[dict[str, Any]]) -> str:
    columns = [{(line["case"], line["name"]): line for line in run["figures"]} for run in runs]
    with_budget = any(column.get(row, {}).get("budget") for column in columns for row in rows)
    head = ["case", "figure", *(run["python"] for run in runs), *(["budget"] * with_budget)]
    lines = [head, ["---"] * len(head)]
    for row in rows:
        found = [column.get(row) for column in columns]
        name = row[1].removeprefix("peer: ")
        lines.append([row[0], name, *map(cell, found), *([budget(found)] * with_budget)])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def cell(line: dict[str, Any] | None) -> str:
    if line is None:
        return ""
    if "absent" in line:
        return "not here"
    figure = to_figure(line)
    text = figure.show(figure.value)
    if figure.verdict == "over":
        text = f"**{text}**"
    if figure.count > 1 and (figure.unit == "ratio" or figure.unit.endswith("more")):
        text += f" ({figure.show(figure.low)} to {figure.show(figure.high)})"
    return text


def to_figure(line: dict[str, Any]) -> Figure:
    return Figure(**{name: line[name] for name in Figure.__dataclass_fields__})


def budget(found: Sequence[dict[str, Any] | None]) -> str:
    """The limits, where they differ by version in the order of the columns."""
    limits: dict[str, None] = {}
    for line in found:
        if line is not None and line.get("budget") is not None:
            limits[to_figure(line).limit()] = None
    return ", ".join(limits)


def fill_in(document: Path, text: str) -> None:
    """Puts the tables between the two marks of a document."""
    before, begin, rest = document.read_text(encoding="utf-8").partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{document} has no line {BEGIN!r}, or no {END!r} after it")
    document.write_text(f"{before}{BEGIN}\n\n{text}\n\n{END}{after}", encoding="utf-8")
