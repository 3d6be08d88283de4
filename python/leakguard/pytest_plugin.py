"""The pytest plugin, for `-p leakguard.pytest_plugin`; its entry point names the module itself."""

from _leakguard_pytest import (
    no_leaks,
    pytest_addoption,
    pytest_collection_finish,
    pytest_configure,
    pytest_unconfigure,
)

__all__ = [
    "no_leaks",
    "pytest_addoption",
    "pytest_collection_finish",
    "pytest_configure",
    "pytest_unconfigure",
]
