"""The scripts of tests/tools that remove folders remove none but their own."""

import subprocess
from pathlib import Path

import pytest

FRESH = Path(__file__).parent.parent / "tools/fresh_folder.sh"


@pytest.fixture
def fresh(tmp_path):
    """Makes a folder anew, run in another one; the exit status."""

    def make(folder):
        done = subprocess.run([FRESH, folder], cwd=tmp_path, capture_output=True, check=False)
        assert (done.returncode == 0) == (done.stderr == b"")
        return done.returncode

    return make


def test_a_folder_that_holds_what_others_made_is_refused(fresh, tmp_path):
    folder = tmp_path / "home"
    folder.mkdir()
    folder.joinpath("letter").write_text("mine")
    outside = ["home", folder, "build/../home", ".", ".."]
    assert [fresh(it) for it in outside] == [1] * len(outside)
    assert fresh(folder / "letter") == 1
    tmp_path.joinpath("build").symlink_to(folder)
    assert fresh("build") == 1
    assert list(folder.iterdir()) == [folder / "letter"]
    assert folder.joinpath("letter").read_text() == "mine"


@pytest.mark.parametrize("name", ["new", "empty", "below/new", "build/wheel"])
def test_a_new_folder_is_made_and_made_anew(fresh, tmp_path, name):
    folder = tmp_path / name
    tmp_path.joinpath("empty").mkdir()
    assert fresh(name) == 0
    for _ in range(2):
        folder.joinpath("left over").mkdir()
        assert fresh(name) == 0
        assert [path.name for path in folder.iterdir()] == [".made-by-leakguard"]


def test_what_stands_below_build_is_ours(fresh, tmp_path):
    folder = tmp_path / "build/asan"
    folder.joinpath("wheel").mkdir(parents=True)
    assert fresh("build/asan") == 0
    assert not folder.joinpath("wheel").exists()
