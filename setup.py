"""What pyproject.toml cannot say: the C sources, found by looking, and the start-up files."""

import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.errors import CompileError, LinkError

ROOT = Path(__file__).parent


def sources() -> list[str]:
    """The glue, and the core as ext/core/sources.txt lists it for Meson and for us."""
    glue = sorted(path.relative_to(ROOT).as_posix() for path in ROOT.glob("ext/module/*.c"))
    core = (ROOT / "ext/core/sources.txt").read_text(encoding="utf-8").split()
    return glue + [f"ext/core/{name}" for name in core]


def libunwind() -> list[str]:
    """How to link libunwind, as pkg-config says; empty without it: no native stacks then."""
    command = ["pkg-config", "--libs", "libunwind"]
    try:
        found = subprocess.run(command, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return []
    return shlex.split(found.stdout)


class Build(build_ext):
    """With link-time optimization where the compiler and the linker know it: a birth calls through
    five files, and takes 13 ns less where these are one."""

    def build_extensions(self) -> None:
        flag = "-flto=auto"
        if self.links_with(flag):
            for extension in self.extensions:
                extension.extra_compile_args.append(flag)
                extension.extra_link_args.append(flag)
        super().build_extensions()

    def links_with(self, flag: str) -> bool:
        with tempfile.TemporaryDirectory() as folder:
            source = Path(folder, "probe.c")
            source.write_text("int probe(void) { return 0; }\n", encoding="utf-8")
            try:
                objects = self.compiler.compile([str(source)], folder, extra_postargs=[flag])
                target = str(Path(folder, "probe.so"))
                self.compiler.link_shared_object(objects, target, extra_postargs=[flag])
            except (CompileError, LinkError):
                return False
        return True


def start_up_file() -> str:
    """The one file in site-packages that starts leakguard with the interpreter built for.

    Python 3.15 to 3.17 know both kinds (PEP 829). To call what a .start file names, `site` imports
    pkgutil, which imports re: some 7 ms of every start, with LEAKGUARD unset too. An import line in
    a .pth file is run at once, without a warning, but only where no .start file of the same name
    lies beside it. From 3.18 on it is ignored.
    """
    return "leakguard.pth" if sys.version_info < (3, 18) else "leakguard.start"


unwind = libunwind()
core = Extension(
    "leakguard._core",
    sources(),
    include_dirs=["include"],
    # CFLAGS may take the place of Python's own flags: without NDEBUG the inline functions of its
    # headers check themselves for each frame of each birth, and would abort the program.
    define_macros=[("NDEBUG", None), *([("LG_WITH_LIBUNWIND", None)] if unwind else [])],
    extra_link_args=unwind,
    # The core's names are the extension's own: hidden, no other library can take their place.
    extra_compile_args=["-fvisibility=hidden"],
)

setup(
    cmdclass={"build_ext": Build},
    ext_modules=[core],
    # "../" puts the file beside the package, into site-packages, where Python looks for it.
    package_data={"leakguard": ["py.typed", "*.pyi", f"../{start_up_file()}"]},
)
