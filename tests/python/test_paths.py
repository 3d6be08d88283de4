"""Which frames are the user's, and how paths are shown."""

# Paths here are text, as in a code object: pathlib would tidy them.
# ruff: noqa: PTH118, PTH120, PTH119

import asyncio
import json
import os
import sysconfig
import threading
from pathlib import Path

import pytest

from leakguard import _paths
from leakguard._paths import display, is_foreign

STDLIB = sysconfig.get_path("stdlib")


@pytest.fixture
def fresh(monkeypatch):
    """Nothing remembered: the roots are found again."""
    monkeypatch.setattr(_paths, "_roots", ())
    monkeypatch.setattr(_paths, "_memo", {})


@pytest.mark.parametrize(
    "filename",
    [
        threading.__file__,
        asyncio.tasks.__file__,
        json.decoder.__file__,
        os.path.join(STDLIB, "lib-dynload", "x.so"),
        os.path.join(STDLIB, "..", os.path.basename(STDLIB), "queue.py"),
        "<frozen importlib._bootstrap>",
        "<frozen runpy>",
        _paths.__file__,
        os.path.join(os.path.dirname(_paths.__file__), "any", "thing.py"),
        os.path.join(os.path.dirname(_paths.__file__), "..", "_leakguard_autostart.py"),
    ],
)
def test_the_standard_library_frozen_modules_and_leakguard_are_foreign(filename):
    assert is_foreign(filename) is True


@pytest.mark.parametrize(
    "filename",
    [
        __file__,
        pytest.__file__,
        os.path.join(STDLIB, "site-packages", "aiohttp", "client.py"),
        os.path.join(STDLIB, "dist-packages", "aiohttp", "client.py"),
        os.path.join(sysconfig.get_path("purelib"), "six.py"),
        STDLIB + "_of_mine/app.py",
        os.path.dirname(_paths.__file__) + "_demo/app.py",
        "/srv/app/asyncio/tasks.py",
        "<string>",
        "<stdin>",
        "<attrs generated init app.Client>",
        "asyncio/tasks.py",
        "",
        "/bad\0name.py",
        "/bad\udcffname.py",
    ],
)
def test_all_else_is_the_users(filename):
    assert is_foreign(filename) is False


def test_a_library_reached_through_a_symlink_is_foreign(tmp_path, fresh):
    link = tmp_path / "lib"
    link.symlink_to(STDLIB)
    assert is_foreign(str(link / "asyncio" / "tasks.py")) is True
    assert is_foreign(str(link / "site-packages" / "six.py")) is False


def test_the_spelling_of_a_symlinked_installation_is_foreign(tmp_path, monkeypatch, fresh):
    link = tmp_path / "python"
    link.symlink_to(STDLIB)
    monkeypatch.setattr(sysconfig, "get_path", lambda name: str(link))
    monkeypatch.setattr(os, "__file__", str(link / "os.py"))
    assert is_foreign(str(link / "queue.py")) is True
    assert is_foreign(os.path.join(os.path.realpath(STDLIB), "queue.py")) is True


def test_a_library_of_a_virtual_environment_counts_with_that_of_its_base(monkeypatch, fresh):
    paths = {"stdlib": "/base/lib/python3", "platstdlib": "/venv/lib/python3"}
    monkeypatch.setattr(sysconfig, "get_path", paths.get)
    assert is_foreign("/base/lib/python3/queue.py") is True
    assert is_foreign("/venv/lib/python3/queue.py") is True
    assert is_foreign("/venv/lib/python3/site-packages/queue.py") is False


def test_a_zipped_library_is_foreign(monkeypatch, fresh):
    version = sysconfig.get_python_version().replace(".", "")
    monkeypatch.syspath_prepend(f"/opt/lib/python{version}.zip")
    assert is_foreign(f"/opt/lib/python{version}.zip/queue.py") is True
    assert is_foreign("/opt/lib/app.zip/queue.py") is False


def test_the_library_is_found_by_its_os_module_where_sysconfig_is_wrong(monkeypatch, fresh):
    monkeypatch.setattr(sysconfig, "get_path", lambda name: None)
    assert is_foreign(threading.__file__) is True


def test_an_answer_is_remembered(monkeypatch, fresh):
    assert is_foreign(threading.__file__) is True
    monkeypatch.setattr(_paths, "_look", lambda filename: pytest.fail("looked twice"))
    assert is_foreign(threading.__file__) is True


def test_what_is_remembered_stays_bounded(monkeypatch, fresh):
    monkeypatch.setattr(_paths, "_MEMO_LIMIT", 10)
    for number in range(100):
        is_foreign(f"/app/{number}.py")
    assert len(_paths._memo) <= 10


def test_a_path_below_the_working_directory_is_shown_relative(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert display(str(tmp_path / "app" / "client.py")) == "app/client.py"
    assert display(f"{tmp_path}/src/../app.py") == "app.py"


def test_a_path_elsewhere_is_shown_as_it_is(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    beside = str(tmp_path) + "2/app.py"
    assert display(beside) == beside
    assert display("app.py") == "app.py"
    assert display("<string>") == "<string>"


def test_from_the_root_directory_every_path_is_relative(monkeypatch):
    monkeypatch.chdir("/")
    assert display("/srv/app.py") == "srv/app.py"


def test_a_working_directory_that_is_gone_does_no_harm(tmp_path, monkeypatch):
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    Path(gone).rmdir()
    assert display("/srv/app.py") == "/srv/app.py"
