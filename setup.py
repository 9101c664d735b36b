"""Build of the native extension; everything else is declared in pyproject.toml."""

from pathlib import Path

from pybind11.setup_helpers import ParallelCompile, Pybind11Extension
from setuptools import setup

CSRC = Path("csrc")

core = Pybind11Extension(
    "hepfeed._core",
    sources=sorted(str(path) for path in [*CSRC.glob("*.cpp"), *CSRC.glob("cpu/*.cpp")]),
    depends=sorted(str(path) for path in CSRC.rglob("*.h")),
    include_dirs=[str(CSRC)],
    cxx_std=17,
    extra_compile_args=["-O3", "-fno-math-errno", "-Wall", "-Wextra", "-Wno-maybe-uninitialized", "-pthread"],
    libraries=["dl"],
)

ParallelCompile("HEPFEED_BUILD_JOBS", default=0).install()
setup(ext_modules=[core])
