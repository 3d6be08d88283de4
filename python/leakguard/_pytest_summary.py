"""What a pytest run found: gathered from the tests' reports, told at its end.

With pytest-xdist the checks run in the workers and the summary in the process that started them;
all goes through the reports.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from leakguard import _baseline
from leakguard._text import frame_text, printable

if TYPE_CHECKING:
    from collections.abc import Iterable

    from leakguard._baseline import Key
    from leakguard._owner import Owner
    from leakguard._pytest_checks import Settings
    from leakguard._report import Leak, Report


def findings(ended: Iterable[tuple[Owner, Report]], settings: Settings) -> dict[str, Any]:
    """What the checks at the end of one test found; plain values, that travel between processes."""
    owners = []
    for owner, report in ended:
        keys = list(owner.known)
        if settings.update and settings.baseline is not None:
            keys += [_baseline.key_of(leak, settings.baseline.root) for leak in report]
        owners.append(
            {
                "is_test": owner.reason == "test",
                "name": owner.name,
                "leaks": sorted({_line(leak) for leak in report}),
                "known": keys,
                "hidden": sum(count for _, _, count in report.hidden),
            }
        )
    return {"owners": owners}
