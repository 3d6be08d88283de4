"""Signals that ask a watched process what is alive: LEAKGUARD_SIGNAL, and SIGTERM at its default.

Nothing is done inside a signal handler of C: the reports are made by Python-level handlers, which
the interpreter runs between two instructions of the main thread.

`python -m leakguard dump` finds the process by its rendezvous file: `PID` in a folder of the user
that nobody else can read. In a file `PID.request` beside that, it names the file where it waits
for the answer.
"""

# pathlib would be imported into every watched process.
# ruff: noqa: PTH102, PTH104, PTH108, PTH110, PTH120, PTH123, PTH208

from __future__ import annotations

import os

from leakguard import _core
from leakguard._output import write

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from leakguard._report import Report

_files: list[tuple[int, str]] = []


def listen(
    signal: int, snapshot: Callable[[bool], Report], output: Callable[[Report], None]
) -> None:
    """Answer this signal with a snapshot, to who asked for it by a request, else to `output`."""
    import _signal  # type: ignore[import-not-found]  # `signal` would import enum

    if _signal.getsignal(signal) is not _signal.SIG_DFL:
        write(f"leakguard: LEAKGUARD_SIGNAL: signal {signal} is in use; it is not listened to\n")
        return

    def answer(number: int, frame: object) -> None:
        del number, frame
        try:
            request = _take_request()
            if request is None:
                output(snapshot(False))
            else:
                asked, native = request
                write_private(asked, snapshot(native).to_json())
        except Exception as error:
            write(f"leakguard: no snapshot: {type(error).__name__}: {error}\n")

    _signal.signal(signal, answer)
    _publish(signal)


def at_termination(grace: float, snapshot: Callable[[], None]) -> None:
    """Before the process dies of SIGTERM, by its default disposition, call `snapshot`; it has
    `grace` seconds."""
    import _signal

    ask = _core.free_signal()
    if not ask:
        return
    begun = False

    def answer(number: int, frame: object) -> None:
        nonlocal begun
        del number, frame
        if begun:
            return
        begun = True
        try:
            snapshot()
            stop()
        finally:
            _core.terminate_die()

    _core.terminate_arm(ask, grace)
    _signal.signal(ask, answer)


def stop() -> None:
    """The process ends: take back the rendezvous file."""
    while _files:
        pid, path = _files.pop()
        if pid == os.getpid():
            try:
                os.unlink(path)
            except OSError:
                pass


def folder() -> str:
    """Where the rendezvous files of this user are (mode 0700). Raises OSError."""
    base = os.environ.get("XDG_RUNTIME_DIR", "")
    path = f"{base}/leakguard" if base else f"/tmp/leakguard-{os.getuid()}"
    try:
        os.mkdir(path, 0o700)
    except FileExistsError:
        pass
    found = os.lstat(path)
    # A folder (0o040000, which `stat` would be imported for), mine, and closed to everybody else.
    if found.st_mode & 0o170077 != 0o040000 or found.st_uid != os.getuid():
        raise PermissionError(1, "it is not a folder of this user alone", path)
    return path


def started(pid: int) -> str:
    """When a process began, in the kernel's ticks: process ids are used again. Raises OSError."""
    with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
        return file.read().rpartition(")")[2].split()[19]


def write_private(path: str, text: str) -> None:
    """Make a file (mode 0600) that appears whole or not at all. Raises OSError."""
    scratch = f"{path}.{os.getpid()}"
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
    descriptor = os.open(scratch, flags, 0o600)
    try:
        data = text.encode()
        while data:
            data = data[os.write(descriptor, data) :]
    finally:
        os.close(descriptor)
    os.rename(scratch, path)


def _publish(signal: int) -> None:
    """Say that this process listens."""
    try:
        _sweep(folder())
        path = f"{folder()}/{os.getpid()}"
        write_private(path, f"{signal} {started(os.getpid())}")
        _files.append((os.getpid(), path))
    except OSError as error:
        write(
            f"leakguard: LEAKGUARD_SIGNAL: no rendezvous file: {error.filename}: {error.strerror}; "
            "the signal works, `leakguard dump` does not\n"
        )


def _sweep(folder: str) -> None:
    """Remove what processes left that were killed."""
    for name in os.listdir(folder):
        pid = name.partition(".")[0]
        if pid.isdigit() and not os.path.exists(f"/proc/{pid}"):
            try:
                os.unlink(f"{folder}/{name}")
            except OSError:
                pass


def write_request(path: str, answer: str, native: bool) -> None:
    """Ask for a snapshot in the file `answer`. Raises OSError."""
    write_private(path, f"{answer}\nnative" if native else answer)


def _take_request() -> tuple[str, bool] | None:
    """The file in which an answer is waited for, and whether native stacks are to be in it; or
    None."""
    for pid, path in _files:
        if pid != os.getpid():
            continue
        try:
            with open(f"{path}.request", encoding="utf-8") as file:
                asked, _, more = file.read().partition("\n")
            os.unlink(f"{path}.request")
        except OSError:
            return None
        # Only beside our own file: nobody else can write there.
        allowed = os.path.dirname(asked) == os.path.dirname(path)
        return (asked, more == "native") if allowed else None
    return None
