"""Tests of the device kernels in processes of their own, on emulated modules that were built for the purpose.

`run` starts one process, which may have a sanitizer, imports what tests need, and forks a child for each job: the dear
imports are made once.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass

import emulated

PRELOADED = {"plain": [], "address": ["libasan.so", "libstdc++.so"], "thread": ["libtsan.so"]}
"""Libraries that must be there from the start; AddressSanitizer looks for those of C++ exceptions then."""

FAILED = {1: "a test failed", 66: "ThreadSanitizer", 67: "AddressSanitizer"}
"""Exit statuses that say that something is wrong with the kernels; others are troubles of the run itself."""

_JOB_S = 600
_POLL_S = 0.02


@dataclass
class Job:
    """Tests that run on one module.

    Attributes:
        module: Path of the module.
        tests: Names of tests as pytest takes them, below ``tests``.
    """

    module: str
    tests: list


@dataclass
class Outcome:
    """How a job ended: its exit status, negative after a signal, and what it printed."""

    status: int
    output: str

    @property
    def caught(self):
        """Whether the kernels were found wrong."""
        return self.status in FAILED


def environment(variant):
    """The variables of a process that may load modules of a variant."""
    variables = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "MKL_NUM_THREADS": "1",
        "ASAN_OPTIONS": "detect_leaks=0:exitcode=67",
        "TSAN_OPTIONS": "exitcode=66:halt_on_error=1:report_signal_unsafe=0",
    }
    libraries = []
    for name in PRELOADED[variant]:
        command = [emulated.compiler(), f"-print-file-name={name}"]
        libraries.append(subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip())
    if libraries:
        variables["LD_PRELOAD"] = ":".join(libraries)
    return variables


def run(jobs, variant="plain"):
    """Run jobs one after another; return their outcomes."""
    done = subprocess.run(
        [sys.executable, __file__],
        input=json.dumps([asdict(job) for job in jobs]),
        capture_output=True,
        text=True,
        env=environment(variant),
        cwd=emulated.ROOT,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return [Outcome(**outcome) for outcome in json.loads(done.stdout.splitlines()[-1])]


def _main():
    jobs = [Job(**job) for job in json.load(sys.stdin)]
    import pytest
    import torch

    import hepfeed.sparse  # noqa: F401 (for the children)

    torch.set_num_threads(1)
    outcomes = []
    for job in jobs:
        with tempfile.TemporaryFile("w+") as printed:
            child = os.fork()
            if child == 0:
                os.dup2(printed.fileno(), 1)
                os.dup2(printed.fileno(), 2)
                os.environ["HEPFEED_EMULATED_MODULE"] = job.module
                names = [os.path.join("tests", name) for name in job.tests]
                status = pytest.main(
                    ["-q", "-x", "-n0", "-k", "not cuda", "-p", "no:cacheprovider", "--capture=sys", *names]
                )
                sys.stdout.flush()
                os._exit(int(status))
            status = _ended(child)
            printed.seek(0)
            outcomes.append(asdict(Outcome(status, printed.read())))
    print(json.dumps(outcomes))


def _ended(child):
    """Exit status of a child, which is killed when it takes too long."""
    deadline = time.monotonic() + _JOB_S
    while True:
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() > deadline:
            os.kill(child, signal.SIGKILL)
        time.sleep(_POLL_S)


if __name__ == "__main__":
    _main()
