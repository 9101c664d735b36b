"""Whether two batches are the same: types, dtypes, layouts and bits."""

import dataclasses

import numpy as np
import torch
from torch.nn.utils.rnn import PackedSequence


def assert_same(ours, theirs):
    """Compare two objects by their types and, to the last bit, by what they hold."""
    assert type(ours) is type(theirs)
    if isinstance(ours, torch.Tensor):
        assert_same_tensor(ours, theirs)
    elif isinstance(ours, np.ndarray | np.generic):
        assert (ours.dtype, ours.shape) == (theirs.dtype, theirs.shape)
        assert ours.tolist() == theirs.tolist() if ours.dtype.hasobject else ours.tobytes() == theirs.tobytes()
    elif isinstance(ours, dict):
        assert list(ours) == list(theirs)
        for key in ours:
            assert_same(ours[key], theirs[key])
    elif isinstance(ours, PackedSequence | list | tuple):
        assert len(ours) == len(theirs)
        for pair in zip(ours, theirs, strict=True):
            assert_same(*pair)
    elif dataclasses.is_dataclass(ours):
        assert_same(vars(ours), vars(theirs))
    else:
        assert ours == theirs


def assert_same_tensor(ours, theirs):
    """Compare two tensors."""
    assert (ours.dtype, ours.layout, ours.requires_grad) == (theirs.dtype, theirs.layout, theirs.requires_grad)
    if ours.is_nested:
        for pair in zip(ours.unbind(), theirs.unbind(), strict=True):
            assert_same(*pair)
        return
    assert ours.shape == theirs.shape
    if ours.layout is torch.sparse_coo:
        assert ours.is_coalesced() == theirs.is_coalesced()
        assert_same((ours._indices(), ours._values()), (theirs._indices(), theirs._values()))
    elif ours.layout is torch.sparse_csr:
        for part in ("crow_indices", "col_indices", "values"):
            assert_same(getattr(ours, part)(), getattr(theirs, part)())
    else:
        assert torch.equal(raw_bytes(ours), raw_bytes(theirs))


def raw_bytes(tensor):
    """The bits of a dense tensor, for NaN is not NaN."""
    if not tensor.numel():  # NumPy's empty arrays have strides that torch does not take as bytes
        return torch.empty(0, dtype=torch.uint8)
    return tensor.detach().resolve_conj().resolve_neg().contiguous().reshape(-1).view(torch.uint8)
