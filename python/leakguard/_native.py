"""Threads of the operating system, for people: native frames, and what the kernel says."""

# pathlib would be imported into every watched process.
# ruff: noqa: PTH123

from __future__ import annotations

from leakguard import _core

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import Any

# For the answers of a hundred threads; one that is not in the kernel needs microseconds.
_TIMEOUT = 0.2


class NativeFrame:
    """One frame of a native stack. Its str names function and module."""

    __slots__ = ("_address", "_function", "_module", "_module_offset", "_offset")

    def __init__(self, address: int) -> None:
        self._address = address
        self._function, self._offset, self._module, self._module_offset = _core.native_symbol(
            address
        )

    @property
    def address(self) -> int:
        """Where it stands in memory, inside the call."""
        return self._address

    @property
    def function(self) -> str | None:
        """The exported function; None where its module does not say."""
        return self._function

    @property
    def module(self) -> str | None:
        """The path of the executable or shared object; None where none is mapped there."""
        return self._module

    @property
    def place(self) -> str:
        """As `str`, without the offset in a function that is named."""
        if self._module is None:
            return f"0x{self._address:x}"
        module = self._module.rpartition("/")[2]
        if self._function is None:
            return f"{module}+0x{self._module_offset:x}"
        return f"{self._function} ({module})"

    def __str__(self) -> str:
        if self._function is None:
            return self.place
        return self.place.replace(" (", f"+0x{self._offset:x} (", 1)

    def __repr__(self) -> str:
        return f"<NativeFrame {self}>"


class Frames(dict[int, NativeFrame]):
    """Address -> frame, for one report: later another module may be mapped there."""

    def __missing__(self, address: int) -> NativeFrame:
        found = self[address] = NativeFrame(address)
        return found

    def stack(self, addresses: Iterable[int]) -> tuple[NativeFrame, ...]:
        return tuple([self[address] for address in addresses])


class Info:
    """What the core knows of one thread of the operating system."""

    __slots__ = ("addresses", "caller", "ident", "stack_size", "start", "tid")

    def __init__(self, raw: tuple[int, int, int, tuple[int, ...], Any, int]) -> None:
        self.tid, self.ident, self.start, self.addresses, self.caller, self.stack_size = raw

    @property
    def routine(self) -> NativeFrame | None:
        """The start routine; None for a thread that was found."""
        return NativeFrame(self.start) if self.start else None


def info_of(resource: object) -> Info | None:
    """Of a thread's recorded object; None where its native thread was not seen."""
    raw = _core.native_info(resource)
    return None if raw is None else Info(raw)


class Samples:
    """Where some threads are now, in C."""

    __slots__ = ("_answers",)

    # The handler that answers needs this much of a thread's stack.
    _LEAST_STACK = 65536

    def __init__(self, tids: Iterable[int]) -> None:
        self._answers: dict[int, tuple[int, ...] | str] = _core.native_samples(
            tuple(tids), _TIMEOUT
        )

    @classmethod
    def of(cls, threads: Iterable[tuple[int, Info | None]]) -> Samples:
        """threads: kernel id and what is known of each."""
        return cls(
            tid
            for tid, info in threads
            if tid and (info is None or not info.stack_size or info.stack_size >= cls._LEAST_STACK)
        )

    def stack(self, tid: int) -> tuple[int, ...] | None:
        """Addresses, outermost first; None where the thread gave no answer."""
        answer = self._answers.get(tid)
        return answer if isinstance(answer, tuple) else None

    def refusal(self, tid: int) -> str | None:
        """Why there is no answer: `blocked`, the thread blocks the signal, or `silent`."""
        answer = self._answers.get(tid)
        return answer if isinstance(answer, str) else None


def kernel_facts(tid: int) -> dict[str, Any]:
    """What the kernel says of a thread: its id, the kernel function and the number of the system
    call that it waits in."""
    facts: dict[str, Any] = {"tid": tid}
    wchan = _read(tid, "wchan")
    if wchan and wchan != "0":
        facts["wchan"] = wchan
    number = _read(tid, "syscall").partition(" ")[0]
    if number.isdigit():
        facts["syscall"] = int(number)
    return facts


def thread_name(tid: int) -> str | None:
    """The name that the kernel has for a thread."""
    return _read(tid, "comm") or None


def _read(tid: int, name: str) -> str:
    try:
        with open(f"/proc/self/task/{tid}/{name}", encoding="utf-8", errors="replace") as file:
            return file.read().strip()
    except OSError:
        return ""  # it has ended, or the kernel does not tell


def inside_python(frames: Sequence[object]) -> list[str]:
    """The innermost native frames, innermost first, up to the interpreter's loop: what Python's own
    frames do not say. Of frames without a name in a row, the innermost."""
    shown: list[str] = []
    for frame in reversed(frames):
        text = str(frame)
        if text.startswith("_PyEval_EvalFrameDefault"):
            return shown
        if not (shown and _is_nameless(text) and _is_nameless(shown[-1])):
            shown.append(_without_offset(text))
    return shown


def _is_nameless(text: str) -> bool:
    return not text.endswith(")")


def _without_offset(text: str) -> str:
    function, separator, module = text.partition(" (")
    return function.rpartition("+0x")[0] + separator + module if separator else text
