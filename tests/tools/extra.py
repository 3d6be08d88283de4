"""extra.py NAME...: the requirements of these extras of pyproject.toml, one a line.

pip reads extras only from a built package, and linting should not need a compiler.
"""

import sys
import tomllib
from pathlib import Path

TREE = Path(__file__).resolve().parents[2]


def extra(name: str) -> list[str]:
    project = tomllib.loads((TREE / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    requirements: list[str] = project["optional-dependencies"][name]
    return requirements


if __name__ == "__main__":
    for name in sys.argv[1:]:
        print(*extra(name), sep="\n")
