"""Rules of the tree that a test can keep."""

import ast
import re
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

ROOT = Path(__file__).parent.parent.parent

pytestmark = pytest.mark.skipif(
    not (ROOT / "ext").is_dir(), reason="the tests run without the source tree"
)


def sources(*patterns):
    found = [path for pattern in patterns for path in sorted(ROOT.glob(pattern))]
    assert found, patterns
    return found


def naming(word, *patterns):
    return [path.name for path in sources(*patterns) if word in path.read_text(encoding="utf-8")]


def test_the_core_knows_no_python():
    assert naming("Python.h", "ext/core/*.c", "include/leakguard/*.h") == []


def test_version_checks_stand_in_the_compat_header_only():
    assert naming("PY_VERSION_HEX", "ext/**/*.c", "ext/**/*.h") == ["compat.h"]


def test_internal_headers_are_included_in_one_file():
    assert naming("Py_BUILD_CORE", "ext/**/*.c", "ext/**/*.h") == ["frames.c"]


def test_no_python_code_lists_all_objects():
    """A tuple that another thread is filling would have one reference too many, and fail there."""
    assert naming("get_objects", "python/**/*.py") == []


def test_the_list_of_sources_is_the_folder():
    listed = (ROOT / "ext/core/sources.txt").read_text().split()
    assert listed == sorted(path.name for path in (ROOT / "ext/core").glob("*.c"))


def test_every_core_file_has_its_header():
    for path in sources("ext/core/*.c"):
        assert (ROOT / "include/leakguard" / f"{path.stem}.h").is_file()
        assert f'#include "leakguard/{path.stem}.h"' in path.read_text()


def test_the_start_up_files_are_one_line():
    assert (ROOT / "python/leakguard.pth").read_text().splitlines() == [
        "import _leakguard_autostart; _leakguard_autostart.start()"
    ]
    assert (ROOT / "python/leakguard.start").read_text().splitlines() == [
        "_leakguard_autostart:start"
    ]


class FakeBuild:
    """What setup.py asks of setuptools' build_ext and its compiler."""

    fails = ()

    def __init__(self):
        self.extensions = [SimpleNamespace(extra_compile_args=["-O2"], extra_link_args=[])]
        self.compiler = self
        self.built = False

    def compile(self, sources, folder, extra_postargs):
        assert Path(sources[0]).read_text()
        if "compile" in self.fails:
            raise ArithmeticError
        return [f"{folder}/probe.o"]

    def link_shared_object(self, objects, target, extra_postargs):
        if "link" in self.fails:
            raise LookupError

    def build_extensions(self):
        self.built = True


def run_setup(monkeypatch):
    """What setup.py gives to setup(), and its own build command, with a fake setuptools."""
    given = {}
    fakes = {
        "setuptools": {"Extension": lambda *_, **__: None, "setup": given.update},
        "setuptools.command": {},
        "setuptools.command.build_ext": {"build_ext": FakeBuild},
        "setuptools.errors": {"CompileError": ArithmeticError, "LinkError": LookupError},
    }
    for name, members in fakes.items():
        monkeypatch.setitem(sys.modules, name, SimpleNamespace(**members))
    monkeypatch.chdir(ROOT)
    script = ROOT / "setup.py"
    exec(compile(script.read_text(), script, "exec"), {"__file__": str(script)})
    return given, given["cmdclass"]["build_ext"]


@pytest.mark.parametrize(
    ("fails", "flags"), [((), ["-flto=auto"]), (("compile",), []), (("link",), [])]
)
def test_link_time_optimization_is_used_where_it_is_known(fails, flags, monkeypatch):
    build = run_setup(monkeypatch)[1]()
    build.fails = fails
    build.build_extensions()
    assert build.built
    assert build.extensions[0].extra_compile_args == ["-O2", *flags]
    assert build.extensions[0].extra_link_args == flags


@pytest.mark.parametrize(
    ("version", "wanted"),
    [
        ((3, 11, 0), "../leakguard.pth"),
        ((3, 15, 0), "../leakguard.pth"),  # which also knows .start files, but resolves them slowly
        ((3, 17, 9), "../leakguard.pth"),
        ((3, 18, 0), "../leakguard.start"),  # where import lines are ignored
    ],
)
def test_a_wheel_has_one_start_up_file_and_the_sdist_both(version, wanted, monkeypatch):
    monkeypatch.setattr(sys, "version_info", version)
    given, _ = run_setup(monkeypatch)
    assert given["package_data"] == {"leakguard": ["py.typed", "*.pyi", wanted]}
    sdist = (ROOT / "MANIFEST.in").read_text().splitlines()
    assert "include python/leakguard.pth python/leakguard.start" in sdist


def test_the_start_up_module_imports_os_and_sys_only():
    tree = ast.parse((ROOT / "python/_leakguard_autostart.py").read_text())
    names = [
        alias.name for node in tree.body if isinstance(node, ast.Import) for alias in node.names
    ]
    assert names == ["os", "sys"]
    assert not any(isinstance(node, ast.ImportFrom) for node in tree.body)


def test_the_version_is_the_same_everywhere():
    version = re.search(
        r'__version__ = "(.*)"', (ROOT / "python/leakguard/_version.py").read_text()
    )
    meson = re.search(r"version: '(.*?)'", (ROOT / "meson.build").read_text())
    assert version[1] == meson[1]
    # The wheel takes it from the package.
    assert 'attr = "leakguard._version.__version__"' in (ROOT / "pyproject.toml").read_text()


def test_no_document_installs_the_unrelated_package():
    wrong = re.compile(r"pip install (-\S+ )*leakguard(?!-)")
    for path in sources("*.md", "pyproject.toml", "python/**/*.py"):
        assert not wrong.search(path.read_text(encoding="utf-8")), path


def test_the_kinds_are_numbered_alike_in_c_and_python():
    from leakguard._kinds import KINDS

    header = (ROOT / "include/leakguard/base.h").read_text()
    block = header[header.index("LG_TASK,") : header.index("LG_KIND_COUNT")]
    enumerated = re.findall(r"LG_([A-Z_]+),", block)
    assert tuple(name.lower() for name in enumerated) == KINDS


def test_every_cause_is_explained():
    from leakguard import _task_causes, _thread_causes

    tests = (*_task_causes.TESTS, *_thread_causes.TESTS)
    words = {word for word, _ in tests} | {"still-running", "destroyed-pending", "held-exit"}
    explained = (ROOT / "docs/causes.md").read_text(encoding="utf-8")
    assert [word for word in sorted(words) if f"| `{word}` |" not in explained] == []
