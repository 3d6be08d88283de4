"""Asks another process what is alive in it: by the signal it listens to, or by sys.remote_exec."""

from __future__ import annotations

import os
import sys
import tempfile
import time
from pathlib import Path

from leakguard import _live_look, _remote
from leakguard._report import Report

_SECONDS = 10.0  # for an answer
_PAUSE = 0.02


class DumpError(Exception):
    """No answer; the text says why, and what to do."""


def dump(pid: int, *, native: bool = False) -> Report:
    """A snapshot of another process. Raises DumpError.

    native: with the place of each thread in C. This interrupts the threads.
    """
    if pid <= 0 or not Path(f"/proc/{pid}").is_dir():
        raise DumpError(f"there is no process {pid} here")
    if pid == os.getpid():
        raise DumpError("this is the process that asks")
    signal = _signal_of(pid)
    if signal is not None:
        return _ask_by_signal(pid, signal, native)
    if native:
        raise DumpError(
            f"process {pid} does not listen: --native needs LEAKGUARD=1 LEAKGUARD_SIGNAL=SIGUSR2 "
            "there"
        )
    if not hasattr(sys, "remote_exec"):
        raise DumpError(
            f"process {pid} does not listen: start it with LEAKGUARD=1 LEAKGUARD_SIGNAL=SIGUSR2 "
            "(without that, only CPython 3.14 and newer can be asked)"
        )
    return _ask_by_remote_exec(pid)


def _signal_of(pid: int) -> int | None:
    """The signal that the process listens to; None where it does not, or cannot any more."""
    try:
        signal, began = Path(_live_look.folder(), str(pid)).read_text(encoding="utf-8").split()
        if began != _live_look.started(pid) or not _catches(pid, int(signal)):
            return None
        return int(signal)
    except (OSError, ValueError):
        return None


def _catches(pid: int, signal: int) -> bool:
    """Whether the process has a handler: one without it would die."""
    for line in Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines():
        name, _, value = line.partition(":")
        if name == "SigCgt":
            return bool(int(value, 16) >> (signal - 1) & 1)
    return False


def _ask_by_signal(pid: int, signal: int, native: bool) -> Report:
    folder = _live_look.folder()
    request = Path(folder, f"{pid}.request")
    with tempfile.TemporaryDirectory(dir=folder) as private:
        # The process only answers beside its own file: nobody but the user can write there.
        answer = Path(folder, f"{pid}.answer.{Path(private).name}")
        try:
            _live_look.write_request(str(request), str(answer), native)
            os.kill(pid, signal)
            return _wait_for(answer, pid)
        except OSError as error:
            raise DumpError(f"process {pid} cannot be asked: {error.strerror}") from None
        finally:
            request.unlink(missing_ok=True)
            answer.unlink(missing_ok=True)


def _ask_by_remote_exec(pid: int) -> Report:
    with tempfile.TemporaryDirectory() as folder:
        # The process may be another user's: it must be able to read the one and write the other.
        script, answer = Path(folder, "script.py"), Path(folder, "answer.json")
        owner = Path(f"/proc/{pid}").stat()
        script.write_text(_remote.script(str(answer)), encoding="utf-8")
        for path in (Path(folder), script):
            if os.getuid() == 0:
                os.chown(path, owner.st_uid, owner.st_gid)
        try:
            sys.remote_exec(pid, str(script))  # type: ignore[attr-defined, unused-ignore]
            return _wait_for(answer, pid)
        except (OSError, RuntimeError) as error:
            raise DumpError(
                f"process {pid} cannot be asked: {error} (it must be a CPython of this version, "
                "with remote debugging not disabled, and yours)"
            ) from None


def _wait_for(answer: Path, pid: int) -> Report:
    deadline = time.monotonic() + _SECONDS
    while time.monotonic() < deadline:
        try:
            return Report.from_json(answer.read_text(encoding="utf-8"))
        except FileNotFoundError:
            if not Path(f"/proc/{pid}").is_dir():
                raise DumpError(f"process {pid} has ended") from None
        time.sleep(_PAUSE)
    raise DumpError(
        f"process {pid} gave no answer within {_SECONDS:.0f} s: its main thread runs no Python now"
    )
