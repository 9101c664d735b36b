"""The device kernels as a module that runs them on the processor: ``hepfeed._cuda`` without a GPU.

The same ``csrc/kernels/*.cuh``, ``csrc/cuda/*.cu`` and bindings are compiled by the C++ compiler against the emulator
in ``csrc/emu``: one fibre a CUDA thread, blocks one after another.  Addresses are those of the host, the stream is 0,
and ``set_seed`` picks the order of blocks and threads.

It can't show: what weak memory ordering does (a missing fence), how often a float is rounded where nvcc fuses a product
and a sum or the tensor cores add in an order of their own, the blocks that run at once and how they end, what nvcc's
code generator makes of the source, the PTX of ``csrc/cuda/port_cuda.h``, and any time.

Objects and modules are kept under the hash of all that they are made of, in ``HEPFEED_EMULATED_BUILD`` or the user's
cache.  Of two processes that need the same, one builds and the other waits for it.
"""

import contextlib
import fcntl
import functools
import hashlib
import importlib.machinery
import importlib.util
import itertools
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SOURCES = Path("csrc")
NAME = "emulated"
VARIANTS = {
    "plain": [],
    "address": ["-fsanitize=address", "-fno-omit-frame-pointer", "-g1"],
    "thread": ["-fsanitize=thread", "-g1"],
}
"""Options for kernels and launchers; the emulator and the bindings are compiled without them."""

_WARNINGS = ["-Wall", "-Wextra", "-Wno-unknown-pragmas"]  # of which "unroll" is nvcc's
_OPTIONS = ["-std=c++17", "-O1", "-ffp-contract=off", "-fPIC", "-fvisibility=hidden", "-pthread", *_WARNINGS]
_EMULATOR_OPTIONS = ["-O2"]
_KERNEL_OPTIONS = ["-fsanitize=alignment", "-fno-sanitize-recover=alignment"]  # which calls the emulator
PROGRAMS = {
    "kernels": ("cuda_module.cpp", "cuda/*.cpp", "cuda/*.cu", "emu/*.cpp"),
    "primitives": ("emu/tests/*.cpp", "emu/tests/*.cu", "emu/*.cpp"),
}
"""What is built: the kernels, and those that test the emulator itself."""

_PARALLEL = 2
_KEPT_S = 14 * 24 * 3600


class BuildError(Exception):
    """The compiler's own words."""


def compiler():
    """Path of the C++ compiler, or None."""
    return shutil.which(os.environ.get("CXX", "g++"))


def given():
    """Path of a module that stands for the plain one, as one with a sanitizer or a seeded bug; or None."""
    return os.environ.get("HEPFEED_EMULATED_MODULE")


def build(variant="plain", program="kernels", changes=None, only=None):
    """Build a module and return its path.

    Args:
        variant: Which of ``VARIANTS``.
        program: Which of ``PROGRAMS``.
        changes: Text of files, by their path in ``csrc``, in place of what they contain.
        only: Units that are to be compiled with the changes; all that contain them by default.
    """
    tree = Tree(changes or {}, only)
    folder = _folder()
    objects = {unit: folder / f"{_key(tree, variant, unit)}.o" for unit in tree.units(PROGRAMS[program])}
    key = _hash(variant, *(path.name for path in objects.values()))
    module = folder / f"{key}{sysconfig.get_config_var('EXT_SUFFIX')}"
    if key in _failed:
        raise _failed[key]
    if _found(module):
        return module
    try:
        with ThreadPoolExecutor(_PARALLEL) as pool:
            list(pool.map(functools.partial(_compile, tree, variant), objects, objects.values()))
        options = [option for option in VARIANTS[variant] if option.startswith("-fsanitize")]
        _run(["-shared", "-pthread", *options, *map(str, objects.values())], module)
    except BuildError as error:
        _failed[key] = error
        raise
    return module


def prepare(builds):
    """Build modules ahead of the tests on them; what can't be built is for those tests to say.

    Args:
        builds: Tuples of arguments of `build`.
    """
    for arguments in sorted(builds) if compiler() else ():
        if arguments or not given():
            with contextlib.suppress(BuildError):
                build(*arguments)


_failed = {}
"""What could not be built, and why: the next test that needs it does not try again."""


class Tree:
    """The sources, some of them changed."""

    def __init__(self, changes, only=None):
        unknown = [path for path in [*changes, *(only or ())] if not (ROOT / SOURCES / path).exists()]
        assert not unknown, f"{', '.join(unknown)}: not a source"
        self.only = only
        self._changes = changes
        self._files = {}

    def units(self, patterns):
        """Paths of what is compiled; where the emulator has a file of a launcher's name, it stands for that."""
        found = [path.relative_to(ROOT / SOURCES) for pattern in patterns for path in (ROOT / SOURCES).glob(pattern)]
        twins = {path.stem for path in found if path.parent == Path("emu")}
        units = [str(path) for path in found if path.suffix != ".cu" or path.stem not in twins]
        return sorted(units, key=lambda unit: (Path(unit).suffix != ".cu", unit))  # the slowest first

    def closure(self, unit):
        """Text of a unit and of all of ours that it includes, by path."""
        found, open_ = {}, [unit]
        while open_:
            path = open_.pop()
            text = self._text(path) if path not in found else None
            if text is not None:
                found[path] = self.changes(unit).get(path, text)
                open_ += re.findall(r'^#include "([^"]+)"', found[path], re.MULTILINE)
        return dict(sorted(found.items()))

    def changes(self, unit):
        """The changes that a unit is compiled with."""
        return self._changes if self.only is None or unit in self.only else {}

    def _text(self, path):
        if path not in self._files:
            file = ROOT / SOURCES / path
            self._files[path] = file.read_text() if file.is_file() else None
        return self._files[path]


def _options(unit, variant):
    options = [*_OPTIONS, "-DHEPFEED_EMULATED", f"-DHEPFEED_CUDA_MODULE={NAME}"]
    if unit.endswith(".cu"):
        options += [*_KERNEL_OPTIONS, *VARIANTS[variant]]
    elif Path(unit).parent == Path("emu"):
        options += _EMULATOR_OPTIONS
        if variant != "plain":
            options.append(f"-DHEPFEED_{variant.upper()}_SANITIZER")
    else:
        import pybind11

        options += [f"-I{pybind11.get_include()}", f"-I{sysconfig.get_path('include')}"]
    return options


def _key(tree, variant, unit):
    """The hash of all that an object is made of."""
    return _hash(_version(), *_options(unit, variant), *itertools.chain(*tree.closure(unit).items()))


def _compile(tree, variant, unit, path):
    """Compile a unit, unless its object is kept already."""
    if _found(path):
        return
    texts = tree.closure(unit)
    changed = tree.changes(unit).keys() & texts.keys()
    with tempfile.TemporaryDirectory() as overlay:
        for file in changed:
            (Path(overlay) / file).parent.mkdir(parents=True, exist_ok=True)
            (Path(overlay) / file).write_text(texts[file])
        source = Path(overlay) / unit if unit in changed else SOURCES / unit
        _run([*_options(unit, variant), f"-I{overlay}", f"-I{SOURCES}", "-x", "c++", "-c", str(source)], path)


def _run(arguments, target):
    """Run the compiler, unless another process did meanwhile; the target appears as a whole."""
    with _alone(target):
        if _found(target):
            return
        part = target.with_name(f"{target.name}.{os.getpid()}.{time.monotonic_ns()}")
        command = [compiler(), *arguments, "-o", str(part)]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        if done.returncode:
            part.unlink(missing_ok=True)
            raise BuildError(f"{' '.join(command)}\n{done.stderr}")
        part.replace(target)


@contextlib.contextmanager
def _alone(target):
    """Keep others from making a target meanwhile, and few that are not it."""
    lock = target.with_name(f"{target.name[0]}.lock")
    with lock.open("w") as file:
        os.utime(lock)  # in use
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _found(path):
    """Whether a file is kept already; it is kept longer then."""
    try:
        os.utime(path)
    except FileNotFoundError:
        return False
    return True


@functools.cache
def _folder():
    """The folder of what was built, without what nobody has used for long."""
    cache = os.environ.get("XDG_CACHE_HOME", str(Path.home() / ".cache"))
    folder = Path(os.environ.get("HEPFEED_EMULATED_BUILD", Path(cache) / "hepfeed" / NAME))
    try:
        folder.mkdir(parents=True, exist_ok=True)
        writable = os.access(folder, os.W_OK)
    except OSError:
        writable = False
    if not writable:
        folder = Path(tempfile.gettempdir()) / f"hepfeed-{NAME}-{os.getuid()}"
        folder.mkdir(mode=0o700, exist_ok=True)
    for path in folder.iterdir():
        if time.time() - path.stat().st_mtime > _KEPT_S:
            path.unlink(missing_ok=True)
    return folder


@functools.cache
def _version():
    return subprocess.run([compiler(), "--version"], capture_output=True, text=True, check=True).stdout


@functools.cache
def imported(path):
    """Import a module that was built."""
    name = f"{Path(path).name.partition('.')[0]}.{NAME}"  # pybind11 knows modules by their full names
    loader = importlib.machinery.ExtensionFileLoader(name, str(path))
    module = importlib.util.module_from_spec(importlib.util.spec_from_file_location(name, path, loader=loader))
    loader.exec_module(module)
    return module


def _hash(*parts):
    state = hashlib.sha256()
    for part in parts:
        state.update(f"{len(part)}:{part}".encode())
    return state.hexdigest()[:32]


if __name__ == "__main__":
    print(build(*sys.argv[1:]))
