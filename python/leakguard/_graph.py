"""The graph of a report: who waits for whom, and who created whom."""

from __future__ import annotations

from leakguard._report import _frame_dict
from leakguard._text import frame_text, printable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    from leakguard._report import Leak

    Graph = dict[str, list[dict[str, Any]]]

_STYLES = {"awaits": "", "lock": ", color=red", "created": ", style=dashed, color=gray"}


def graph_of(leaks: Iterable[Leak]) -> Graph:
    """See Report.graph."""
    nodes: dict[int, dict[str, Any]] = {}
    edges: dict[tuple[int, int, str], str | None] = {}
    for leak in leaks:
        nodes[leak.serial] = _node(leak)
    for leak in leaks:
        facts = leak._facts or {}
        by = ", ".join(facts.get("awaits_by", ())) or None
        for other in facts.get("awaits", ()):
            edges[leak.serial, _known(nodes, other), "awaits"] = by
        for other in facts.get("awaited_by", ()):
            edges.setdefault((_known(nodes, other), leak.serial, "awaits"), None)
        for other in facts.get("lock_held_by", ()):
            edges[leak.serial, _known(nodes, other), "lock"] = None
        creator = leak._creator
        if creator is not None:
            edges[_known(nodes, creator.to_dict()), leak.serial, "created"] = None
    return {
        "nodes": [nodes[serial] for serial in sorted(nodes)],
        "edges": [
            {"from": start, "to": end, "kind": kind, "by": by}
            for (start, end, kind), by in edges.items()
        ],
    }


def dot_of(graphs: Iterable[tuple[Graph, set[int]]]) -> str:
    """Graphs in Graphviz's language, one of each process, and the serials that stand out there."""
    lines = ["digraph leakguard {", "  node [shape=box, fontname=monospace];"]
    for number, (graph, leaks) in enumerate(graphs, 1):
        for node in graph["nodes"]:
            name = f"p{number}_{node['serial']}"
            lines.append(f"  {name} [label={_quoted(_label(node))}{_color(node, leaks)}];")
        for edge in graph["edges"]:
            ends = f"p{number}_{edge['from']} -> p{number}_{edge['to']}"
            label = edge["by"] or edge["kind"]
            lines.append(f"  {ends} [label={_quoted(label)}{_STYLES[edge['kind']]}];")
    return "\n".join([*lines, "}"]) + "\n"


def _node(leak: Leak) -> dict[str, Any]:
    return {
        "serial": leak.serial,
        "kind": leak.kind,
        "name": leak.name,
        "function": leak.function,
        "site": None if leak._site is None else _frame_dict(leak._site),
        "cause": leak.cause,
    }


def _known(nodes: dict[int, dict[str, Any]], other: dict[str, Any]) -> int:
    """The serial of what stands at the other end of an edge, which becomes a node."""
    serial: int = other["serial"]
    if serial not in nodes:
        nodes[serial] = {
            "serial": serial,
            "kind": other.get("kind", "task"),
            "name": other["name"],
            "function": other["function"],
            "site": None,
            "cause": None,
        }
    return serial


def _label(node: dict[str, Any]) -> str:
    lines = [f"{node['kind']} {node['name']}", node["function"]]
    if node["site"] is not None:
        site = node["site"]
        lines.append(frame_text((site["file"], site["line"], site["function"])))
    if node["cause"] is not None:
        lines.append(node["cause"])
    return "\n".join(printable(line) for line in lines)


def _color(node: dict[str, Any], leaks: set[int]) -> str:
    return "" if node["serial"] in leaks else ", color=gray, fontcolor=gray"


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'
