"""Replaces attributes of other modules, at once or right after their import; and puts them back."""

from __future__ import annotations

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from importlib.machinery import ModuleSpec
    from types import ModuleType
    from typing import Any

_ABSENT = object()
_waiting: dict[str, list[Callable[[ModuleType], None]]] = {}
_replaced: list[tuple[Any, str, Any, Any]] = []


def after(name: str, action: Callable[[ModuleType], None]) -> None:
    """Call `action` with the module `name`: now if it is loaded, else right after its import."""
    module = sys.modules.get(name)
    if module is not None and not _is_initializing(module):
        action(module)
        return
    _waiting.setdefault(name, []).append(action)
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
        if name not in _waiting:
            return None
        for finder in sys.meta_path:
            find = getattr(finder, "find_spec", None)
            spec: ModuleSpec | None = None
            if finder is not self and find is not None:
                spec = find(name, path, target)
            if spec is not None:
                if hasattr(spec.loader, "exec_module"):
                    spec.loader = _Loader(spec.loader)  # type: ignore[assignment]
                return spec
        return None


class _Loader:
    """Loads a module by its own loader, which it names in the module, then runs what waits."""

    def __init__(self, loader: Any) -> None:
        self._loader = loader

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
        for action in _waiting.pop(module.__name__, ()):
            try:
                action(module)
            except Exception as error:
                # The program's import must not fail because of us.
                print(f"leakguard: {module.__name__} could not be hooked: {error}", file=sys.stderr)


_finder: Any = _Finder()
