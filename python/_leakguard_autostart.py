"""Switches leakguard on at interpreter start where LEAKGUARD asks for it.

leakguard.pth (up to 3.17) or leakguard.start (3.18 on; setup.py says why) calls `start` at every
start of every interpreter of the environment, in a virtual environment twice: so this module
imports nothing but os and sys, `start` is idempotent, and it respects -E and -I itself. (pytest
would warn that a plugin's module is loaded already: PYTEST_DONT_REWRITE.)
"""

import os
import sys

_started = False


def start() -> None:
    """Activate the environment mode once, if LEAKGUARD is set to anything but 0."""
    global _started
    if _started or sys.flags.ignore_environment:
        return
    if os.environ.get("LEAKGUARD", "0") in ("", "0"):
        return
    _started = True
    try:
        from leakguard._environment import activate

        activate()
    except Exception as error:
        # The program must start whatever is wrong here.
        if sys.stderr is not None:
            sys.stderr.write(f"leakguard: not active: {type(error).__name__}: {error}\n")
