"""Temporary directories made through `tempfile`: a leak while they are there."""

import os
import shutil
import sys
import tempfile
import threading
from pathlib import Path
from tempfile import mkdtemp

import pytest

import leakguard
from leakguard import _core

from .conftest import Since, line_of, place

pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning")

HERE = str(Path(__file__))


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """Where `tempfile` makes what these tests leave behind."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


@pytest.fixture
def point():
    return Since("tempdir")


def test_mkdtemp_that_nobody_removes(point):
    path = mkdtemp()  # bound by name
    leak = point.only()
    assert place(leak) == (HERE, line_of("bound by name"))
    assert (leak.kind, leak.name, leak.function, leak.state) == ("tempdir", path, "mkdtemp", None)
    assert leak.why == "mkdtemp leaves it to its caller to remove it"


def test_mkdtemp_that_was_removed(point):
    shutil.rmtree(tempfile.mkdtemp())
    assert point.leaks() == []
    assert leakguard.stats()["tempdir"] == {"created": 1, "ended": 1, "live": 0}


def test_a_temporary_directory_that_is_open(point):
    directory = tempfile.TemporaryDirectory()  # an object
    leak = point.only()
    assert place(leak) == (HERE, line_of("an object"))
    assert (leak.name, leak.function, leak.state) == (directory.name, "TemporaryDirectory", None)
    assert leak.why == "its TemporaryDirectory was not closed: cleanup() or `with` removes it"
    directory.cleanup()
    assert point.leaks() == []


def test_a_temporary_directory_in_a_with_block(point):
    with tempfile.TemporaryDirectory() as path:
        Path(path, "file").write_text("x")
    assert point.leaks() == []


def test_a_temporary_directory_that_was_dropped_is_removed(point):
    tempfile.TemporaryDirectory()
    assert point.leaks() == []


def test_a_class_of_the_programs_own_keeps_its_line(point):
    class Own(tempfile.TemporaryDirectory):
        def __init__(self):
            super().__init__()  # inside

    directory = Own()
    leak = point.only()
    assert (place(leak), leak.function) == ((HERE, line_of("inside")), "TemporaryDirectory")
    directory.cleanup()


@pytest.mark.skipif(sys.version_info < (3, 12), reason="delete= came with 3.12")
def test_a_temporary_directory_that_is_to_be_kept(point):
    with tempfile.TemporaryDirectory(delete=False):
        pass
    leak = point.only()
    assert leak.state == "kept"
    assert leak.why == "its TemporaryDirectory does not remove it any more"


def test_bytes_and_a_relative_folder(point, folder, monkeypatch):
    monkeypatch.chdir(folder)
    mkdtemp(dir=".")
    mkdtemp(dir=os.fsencode(folder))
    monkeypatch.chdir("/")
    found = point.leaks()
    assert len(found) == 2
    assert all(Path(leak.name).is_dir() for leak in found)


def test_another_directory_at_the_same_place_is_not_it(point, folder):
    path = Path(mkdtemp())
    assert len(point.leaks()) == 1
    path.rename(folder / "moved")
    path.mkdir()
    assert point.leaks() == []


def test_a_file_in_its_place_is_not_it(point):
    path = Path(mkdtemp())
    path.rmdir()
    path.write_text("x")
    assert point.leaks() == []


def test_a_name_that_exists_is_tried_and_not_counted(point, folder, monkeypatch):
    (folder / "tmptaken").mkdir()
    names = iter(["taken", "free"])
    monkeypatch.setattr(tempfile, "_get_candidate_names", lambda: names)
    assert mkdtemp().endswith("tmpfree")
    assert [Path(leak.name).name for leak in point.leaks()] == ["tmpfree"]
    assert leakguard.stats()["tempdir"]["created"] == 1


def test_a_mkdir_that_fails_leaves_none(point, folder):
    with pytest.raises(FileNotFoundError):
        mkdtemp(dir=folder / "missing")
    assert point.leaks() == []
    assert leakguard.stats()["tempdir"]["live"] == 0


def test_a_look_in_the_midst_of_a_mkdtemp_loses_nothing(point, monkeypatch):
    made = os.mkdir
    announced, go_on = threading.Event(), threading.Event()

    def slow(*arguments):
        announced.set()
        go_on.wait()
        made(*arguments)

    monkeypatch.setattr(os, "mkdir", slow)
    thread = threading.Thread(target=mkdtemp)
    thread.start()
    announced.wait()
    assert point.leaks() == []
    assert leakguard.stats()["tempdir"] == {"created": 1, "ended": 0, "live": 1}
    go_on.set()
    thread.join()
    assert len(point.leaks()) == 1


def test_what_another_thread_made_and_removed_has_ended(point):
    thread = threading.Thread(target=lambda: shutil.rmtree(mkdtemp()))
    thread.start()
    thread.join()
    assert leakguard.stats()["tempdir"] == {"created": 1, "ended": 1, "live": 0}


def test_a_temporary_file_is_none(point):
    with tempfile.NamedTemporaryFile(), tempfile.TemporaryFile():
        assert point.leaks() == []


def test_a_guard_and_a_stable_cycle(folder):
    with pytest.raises(leakguard.LeakError, match=r"1 tempdir; "):
        with leakguard.guard(kinds="tempdir", grace=0):
            mkdtemp()
    leakguard.assert_stable("tempdirs", kinds="tempdir", grace=0)
    mkdtemp()
    with pytest.raises(leakguard.LeakError, match="0 → 1"):
        leakguard.assert_stable("tempdirs", kinds="tempdir", grace=0)


def test_pytests_own_folders_are_none_of_the_test(suite):
    result = suite(
        test_folders="""
        import tempfile
        import pytest

        pytestmark = pytest.mark.leakguard(kinds=("tempdir",), grace=0)

        def test_own(tmp_path, tmp_path_factory):
            tmp_path_factory.mktemp("more")

        def test_leaks(tmp_path):
            tempfile.mkdtemp(dir=tmp_path)
        """
    )
    assert (result.leaking, result.clean) == (["test_leaks"], ["test_own"])


def test_after_uninstall_the_event_does_nothing(point):
    mkdtemp()
    leakguard.uninstall()
    leakguard.install(kinds="task")
    mkdtemp()
    assert leakguard.stats()["tempdir"] == {"created": 0, "ended": 0, "live": 0}
    assert _core.failures() == 0


def test_a_child_does_not_own_its_parents_directories(program):
    result = program(
        """
import os, tempfile, warnings
import leakguard
warnings.simplefilter("ignore")
leakguard.install(kinds="tempdir")
directory = tempfile.TemporaryDirectory()
child = os.fork()
if child == 0:
    print(leakguard.stats()["tempdir"]["live"], flush=True)
    os._exit(0)
os.waitpid(child, 0)
print(leakguard.stats()["tempdir"]["live"])
"""
    )
    assert result.stdout.splitlines() == ["0", "1"], result.stderr


def test_a_process_that_lets_no_audit_hook_in_is_not_said_to_be_clean(program):
    result = program(
        """
import sys
import leakguard

def refuse(event, arguments):
    if event == "sys.addaudithook":
        raise RuntimeError("no more hooks")

sys.addaudithook(refuse)
try:
    with leakguard.guard(kinds="tempdir"):
        pass
except RuntimeError as error:
    print(error)
with leakguard.guard():
    pass
"""
    )
    assert result.stdout == (
        "leakguard: another audit hook lets none be added, so temporary directories cannot be "
        "seen\n"
    ), result.stderr
