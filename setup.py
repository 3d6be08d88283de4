"""What pyproject.toml cannot say: the C sources, found by looking."""

from pathlib import Path

from setuptools import Extension, setup

ROOT = Path(__file__).parent


def sources() -> list[str]:
    """The glue, and the core as ext/core/sources.txt lists it for Meson and for us."""
    glue = sorted(path.relative_to(ROOT).as_posix() for path in ROOT.glob("ext/module/*.c"))
    core = (ROOT / "ext/core/sources.txt").read_text(encoding="utf-8").split()
    return glue + [f"ext/core/{name}" for name in core]


# libunwind, optional and found by pkg-config, joins here with the first source that unwinds.
core = Extension(
    "leakguard._core",
    sources(),
    include_dirs=["include"],
    # The core's names are the extension's own: hidden, no other library can take their place.
    extra_compile_args=["-fvisibility=hidden"],
)

setup(ext_modules=[core])
