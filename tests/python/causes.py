"""The programs of tests/programs/causes: their lines, and what a report says of one."""

from pathlib import Path

CAUSES = Path(__file__).parent.parent / "programs/causes"


def line_of(module, comment):
    """The number of the one line in a program that ends with this comment."""
    lines = (CAUSES / f"{module}.py").read_text(encoding="utf-8").splitlines()
    (number,) = [at for at, line in enumerate(lines, 1) if line.endswith(f"  # {comment}")]
    return number


def only(report, module, comment):
    """The one leak of a report, whose site is the line with the comment."""
    (leak,) = report
    site = (leak.site.filename, leak.site.lineno)
    assert site == (str(CAUSES / f"{module}.py"), line_of(module, comment))
    return leak
