"""What the kernels of devices run on in tests: the emulator, and a CUDA device where there is one."""

import contextlib
import functools

import emulated

from hepfeed.device import native


class Backend:
    """A module of kernels and the device of the tensors that it takes.

    Attributes:
        device: ``"cpu"`` or ``"cuda"``.
        kernels: ``hepfeed._cuda``, or the same functions on the emulator.
    """

    def __init__(self, device, kernels):
        self.device = device
        self.kernels = kernels

    def seed(self, seed):
        """Have blocks and threads run in the order of a seed, 0 being the rising one; nothing on a device."""
        if self.device == "cpu":
            self.kernels.set_seed(seed)

    def use(self, monkeypatch):
        """Let `hepfeed.device` take these kernels; a test may set others with the same ``monkeypatch``."""
        monkeypatch.setattr(native, "kernels", lambda: self.kernels)
        self.seed(0)

    @contextlib.contextmanager
    def operators(self):
        """Let the operators of `hepfeed.sparse` take the device's functions for tensors on `device`."""
        taken = {operator: operator._backend_fns["cpu"] for operator in _operators()} if self.device == "cpu" else {}
        for operator in taken:
            operator._backend_fns["cpu"] = operator._backend_fns["cuda"]
        try:
            yield
        finally:
            for operator, function in taken.items():
                operator._backend_fns["cpu"] = function


@functools.cache  # sources that change meanwhile are for the next session
def find(name):
    """Return the backend ``"emulated"`` or ``"cuda"`` and an empty string, or None and why there is none."""
    if name == "emulated":
        if emulated.compiler() is None:
            return None, "there is no C++ compiler to build the emulator with"
        return Backend("cpu", emulated.imported(emulated.given() or emulated.build())), ""
    if not native.available():
        return None, native.why_not()
    return Backend("cuda", native.kernels()), ""


def _operators():
    """The custom operators of hepfeed that have a function for CUDA."""
    from torch._library.custom_ops import OPDEFS

    import hepfeed.sparse  # noqa: F401 (defines them)

    return [operator for name, operator in OPDEFS.items() if name.startswith("hepfeed::") and _for_cuda(operator)]


def _for_cuda(operator):
    return "cuda" in operator._backend_fns
