"""Replaces attributes of other modules, at once or right after their import; and puts them back."""

from __future__ import annotations

import sys
import threading

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from importlib.machinery import ModuleSpec
    from types import ModuleType
    from typing import Any

_ABSENT = object()
_looking = threading.local()  # .names: what this thread's _Finder is looking for now
_waiting: dict[str, list[Callable[[ModuleType], None]]] = {}
_replaced: list[tuple[Any, str, Any, Any]] = []


def after(name: str, action: Callable[[ModuleType], None]) -> None:
    """Call `action` with the module `name`: now if it is loaded, else right after its import."""
    module = sys.modules.get(name)
    if module is not None and not _is_initializing(module):
        action(module)
        return
    _waiting.setdefault(name, []).append(action)
    if module is not None:
        # Another thread is in the midst of importing it, without our loader: wait for that.
        __import__(name)
        catch_up()
        return
    if _finder not in sys.meta_path:
        sys.meta_path.insert(0, _finder)


def replace(owner: Any, name: str, replacement: Any) -> None:
    """Set an attribute of a class or module; `stop` puts the old value back."""
    _replaced.append((owner, name, owner.__dict__[name], replacement))
    setattr(owner, name, replacement)


def add(owner: Any, name: str, value: Any) -> None:
    """Set an attribute that `owner` only inherits; `stop` takes it away."""
    _replaced.append((owner, name, _ABSENT, value))
    setattr(owner, name, value)


def catch_up() -> None:
    """Run what waits for modules that came in past our finder (another finder stood before it)."""
    if _waiting.keys().isdisjoint(sys.modules.keys()):
        return  # as at nearly every check
    for name in tuple(_waiting):
        module = sys.modules.get(name)
        if module is not None and not _is_initializing(module):
            for action in _waiting.pop(name, ()):
                action(module)


def stop() -> None:
    """Put back every attribute that is still ours, and wait for no import any more."""
    _waiting.clear()
    if _finder in sys.meta_path:
        sys.meta_path.remove(_finder)
    while _replaced:
        owner, name, original, replacement = _replaced.pop()
        if owner.__dict__.get(name) is replacement:
            if original is _ABSENT:
                delattr(owner, name)
            else:
                setattr(owner, name, original)


def _is_initializing(module: ModuleType) -> bool:
    return bool(getattr(getattr(module, "__spec__", None), "_initializing", False))


class _Finder:
    """Finds nothing by itself: gives a watched module's own loader a proxy."""

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        names = vars(_looking).setdefault("names", set())
        # Another finder may ask all the others, as this one does: it gets no second answer.
        if name not in _waiting or name in names:
            return None
        names.add(name)
        try:
            for finder in sys.meta_path:
                find = getattr(finder, "find_spec", None)
                spec: ModuleSpec | None = None
                if finder is not self and find is not None:
                    spec = find(name, path, target)
                if spec is not None:
                    if hasattr(spec.loader, "exec_module"):
                        spec.loader = _Loader(spec.loader, name)  # type: ignore[assignment]
                    return spec
        finally:
            names.discard(name)
        return None


class _Loader:
    """Loads a module by its own loader, which it names in the module, then runs what waits."""

    def __init__(self, loader: Any, name: str) -> None:
        self._loader = loader
        self._name = name  # asking a lazy module for its name would load it once more

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loader, name)

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        module: ModuleType | None = self._loader.create_module(spec)
        return module

    def exec_module(self, module: ModuleType) -> None:
        module.__loader__ = self._loader
        if module.__spec__ is not None:
            module.__spec__.loader = self._loader
        self._loader.exec_module(module)
        for action in _waiting.pop(self._name, ()):
            try:
                action(module)
            except Exception as error:
                # The program's import must not fail because of us.
                if sys.stderr is not None:
                    sys.stderr.write(f"leakguard: {self._name} could not be hooked: {error}\n")


_finder: Any = _Finder()
