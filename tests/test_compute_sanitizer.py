"""The kernels of devices under compute-sanitizer, which sees what they do on a device.

torch takes memory for each tensor by itself meanwhile, so that the bounds of tensors are known.
"""

import os
import subprocess
import sys

import cuda_code
import pytest
from emulated import ROOT
from test_device_sanitizers import IN_BOUNDS

from hepfeed.device import native

ERROR = 99


@pytest.fixture
def program():
    if not native.available():
        pytest.skip(native.why_not())
    found = cuda_code.tool("compute-sanitizer")
    if found is None:
        pytest.skip("compute-sanitizer is missing: install nvidia-cuda-sanitizer-api")
    return found


@pytest.mark.gpu
@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("checked", ["memcheck", "racecheck", "synccheck"])
def test_all_kernels_pass_under_compute_sanitizer(program, checked):
    command = [program, "--tool", checked, "--error-exitcode", str(ERROR), "--target-processes", "application-only"]
    command += [sys.executable, "-m", "pytest", "-q", "-x", "-m", "gpu", "--timeout=0", "-p", "no:cacheprovider"]
    command += [os.path.join("tests", test) for test in IN_BOUNDS]
    variables = {**os.environ, "PYTORCH_NO_CUDA_MEMORY_CACHING": "1"}
    done = subprocess.run(command, cwd=ROOT, env=variables, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
