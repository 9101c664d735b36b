"""Weights that other libraries have trained, for modules of hepfeed.

Libraries differ in how they arrange the weights of a convolution, not in what they mean: all correlate, and none flips
its kernel.  With the taps k of a kernel ``(k0, k1, ...)``, K in total, and g groups:

================================  ==========================  ======================================================
library                           weight                      order of the taps
================================  ==========================  ======================================================
hepfeed, spconv 2                 ``(Co, *kernel, Ci / g)``   last axis fastest (C order)
spconv 1                          ``(*kernel, Ci, Co)``       last axis fastest
MinkowskiEngine 0.4, 0.5          ``(K, Ci, Co)``             first axis fastest; ``(Ci, Co)`` where K and stride are 1
SparseConvNet                     ``(K, g, Ci / g, Co / g)``  last axis fastest; ``(K, Ci, Co)`` in older versions
``torch.nn.Conv1d`` to ``3d``     ``(Co, Ci / g, *kernel)``   last axis fastest
``torch.nn.ConvTranspose1d-3d``   ``(Ci, Co / g, *kernel)``   last axis fastest
================================  ==========================  ======================================================

Sources: ``spconv/pytorch/conv.py`` of spconv 2.3.8, which was also run; ``spconv/conv.py`` of 1.2;
``src/kernel_region.hpp`` and ``MinkowskiConvolution.py`` of MinkowskiEngine 0.5; ``RectangularRegions.h``,
``SubmanifoldConvolutionRules.h`` and ``SCN/CPU/Convolution.cpp`` of SparseConvNet.

``from_*`` convert a state dict for a model of hepfeed; ``*_weight`` convert one tensor.  What a weight can't carry must
be given to the model:

- SparseConvNet's batch norms have ``eps=1e-4``, torch's 1e-5.
- MinkowskiEngine puts the outputs of a strided convolution on every coarse site that holds an input.  hepfeed, spconv
  and SparseConvNet put them wherever the kernel reaches an input, which is the same where the kernel is not larger than
  the stride.  Kernels with an odd size are centred there: here that is ``padding=dilation * (kernel_size // 2)``.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from torch import Tensor, nn

from hepfeed.errors import SpecError, nearest
from hepfeed.sparse.modules.convolution import Convolution

__all__ = [
    "Rename",
    "dense_weight",
    "from_dense",
    "from_minkowski",
    "from_sparseconvnet",
    "from_spconv",
    "minkowski_weight",
    "sparseconvnet_weight",
    "spconv_weight",
]

Rename = Mapping[str, "str | None"] | Callable[[str], "str | None"] | Literal["order"]
"""How names of the source become names of the model.

A mapping of regular expressions to what replaces them (:func:`re.sub`, one after another; None drops the names that
match), a function (None drops), or ``"order"``: layer by layer in the order of both state dicts, whatever their names.
"""

_Layout = Literal["KRSC", "RSCK"]


def from_spconv(
    state: Mapping[str, Tensor], model: nn.Module, *, rename: Rename | None = None, layout: _Layout = "KRSC"
) -> dict[str, Tensor]:
    r"""Convert a state dict of spconv.

    Args:
        state: Name -> tensor.
        model: Whose names and shapes are wanted; it is not changed.
        rename: How names differ; None: not at all.
        layout: ``"KRSC"`` of spconv 2, or ``"RSCK"`` of spconv 1, in spconv's own words.

    Returns:
        A state dict for ``model.load_state_dict``, which says what is missing.  Tensors may share the memory of
        ``state``.

    Raises:
        SpecError: A name is not in the model, or a tensor does not fit; the message names both sides.

    Example::

        model.load_state_dict(from_spconv(torch.load("spconv.pt"), model, rename={r"^module\.": ""}))
    """

    def weight(value: Tensor, conv: Convolution) -> Tensor:
        # spconv counts the stride of an inverse convolution as 1; here it has none.
        return spconv_weight(value, getattr(conv, "stride", 1), layout)

    return _Conversion("spconv", weight).run(state, model, rename)


def from_minkowski(state: Mapping[str, Tensor], model: nn.Module, *, rename: Rename | None = None) -> dict[str, Tensor]:
    """Convert a state dict of MinkowskiEngine 0.4 or 0.5.

    ``kernel`` becomes ``weight``, a bias ``(1, C)`` becomes ``(C,)``, and the names of the torch modules inside of
    ``MinkowskiBatchNorm`` (``bn``) and ``MinkowskiLinear`` (``linear``) are left out where the model has none.  A
    kernel of one tap may go to a linear layer.

    Args:
        state: See :func:`from_spconv`, as for the other arguments.
        model: Sizes of the kernels are taken from its modules.
        rename: See :func:`from_spconv`.

    Returns:
        See :func:`from_spconv`.

    Raises:
        SpecError: A name is not in the model, or a tensor does not fit, such as kernels in the shape of a cross.
    """

    def weight(value: Tensor, conv: Convolution) -> Tensor:
        return minkowski_weight(value, conv.kernel_size)

    conversion = _Conversion("MinkowskiEngine", weight, leaves={"kernel": "weight"}, inner=("bn", "linear"))
    return conversion.run(state, model, rename)


def from_sparseconvnet(
    state: Mapping[str, Tensor], model: nn.Module, *, rename: Rename | None = None
) -> dict[str, Tensor]:
    """Convert a state dict of SparseConvNet.

    A ``NetworkInNetwork`` goes to a convolution of one tap; what goes to a linear layer must come from one.
    :class:`hepfeed.sparse.SparseUNet` has its layers in the order of ``sparseconvnet.UNet``, so that ``rename="order"``
    takes the weights of a U-ResNet.

    Args:
        state: See :func:`from_spconv`, as for the other arguments.
        model: See :func:`from_minkowski`.
        rename: See :func:`from_spconv`.

    Returns:
        See :func:`from_spconv`.

    Raises:
        SpecError: A name is not in the model, or a tensor does not fit.
    """

    def weight(value: Tensor, conv: Convolution) -> Tensor:
        return sparseconvnet_weight(value, conv.kernel_size)

    leaves = {"runningMean": "running_mean", "runningVar": "running_var"}
    return _Conversion("SparseConvNet", weight, leaves).run(state, model, rename)


def from_dense(state: Mapping[str, Tensor], model: nn.Module, *, rename: Rename | None = None) -> dict[str, Tensor]:
    """Convert a state dict of torch's dense convolutions.

    ``ConvNd`` goes to submanifold and strided convolutions, ``ConvTransposeNd`` to transposed and inverse ones.  On
    images of which every site is active the results are those of the dense network.

    Args:
        state: See :func:`from_spconv`, as for the other arguments.
        model: Tells which convolutions are transposed, and their groups.
        rename: See :func:`from_spconv`.

    Returns:
        See :func:`from_spconv`.

    Raises:
        SpecError: A name is not in the model, or a tensor does not fit.
    """

    def weight(value: Tensor, conv: Convolution) -> Tensor:
        return dense_weight(value, conv.groups, transposed=conv.transposed)

    return _Conversion("torch", weight).run(state, model, rename)


def spconv_weight(weight: Tensor, stride: int | Sequence[int] = 1, layout: _Layout = "KRSC") -> Tensor:
    """Convert the weight of a convolution of spconv.

    spconv 2 has the layout of hepfeed, with one exception that its own shape hides: where kernel and stride are 1, it
    multiplies by ``weight.view(C_in, C_out)``, so that the numbers of ``(C_out, 1, ..., C_in)`` lie in the order of
    ``(C_in, C_out)``.

    Args:
        weight: ``(C_out, *kernel, C_in)``, or ``(*kernel, C_in, C_out)`` in the layout ``"RSCK"``.
        stride: Of the convolution.
        layout: See :func:`from_spconv`.

    Returns:
        ``(C_out, *kernel, C_in)``.

    Raises:
        SpecError: The weight has fewer than three axes, or the layout is another one.
    """
    if weight.ndim < 3:
        raise SpecError(f"weight must have three axes or more, not {tuple(weight.shape)}")
    if layout == "RSCK":
        return weight.movedim(-1, 0).contiguous()
    if layout != "KRSC":
        raise SpecError(f"layout must be 'KRSC' or 'RSCK', not {layout!r}")
    steps = (stride,) if isinstance(stride, int) else tuple(stride)
    if weight.shape[1:-1].numel() == 1 and set(steps) == {1}:
        outputs, inputs = weight.shape[0], weight.shape[-1]
        return weight.reshape(inputs, outputs).t().reshape(weight.shape)
    return weight


def minkowski_weight(kernel: Tensor, kernel_size: Sequence[int]) -> Tensor:
    """Convert the kernel of a convolution of MinkowskiEngine, the region of which is a hypercube.

    Args:
        kernel: ``(K, C_in, C_out)``, the first axis fastest among the taps; or ``(C_in, C_out)`` of one tap.
        kernel_size: Taps along each axis.

    Returns:
        ``(C_out, *kernel_size, C_in)``.

    Raises:
        SpecError: The kernel has another number of taps or axes.
    """
    taps = _taps("kernel", kernel, kernel_size)
    backwards = taps.reshape(*reversed(kernel_size), *taps.shape[1:])
    axes = range(len(kernel_size))
    return backwards.permute(-1, *reversed(axes), -2).contiguous()


def sparseconvnet_weight(weight: Tensor, kernel_size: Sequence[int]) -> Tensor:
    """Convert the weight of a convolution or of a ``NetworkInNetwork`` of SparseConvNet.

    Args:
        weight: ``(K, groups, C_in / groups, C_out / groups)``, the last axis fastest among the taps; ``(K, C_in,
            C_out)`` of older versions; or ``(C_in, C_out)`` of one tap.
        kernel_size: Taps along each axis.

    Returns:
        ``(C_out, *kernel_size, C_in / groups)``.

    Raises:
        SpecError: The weight has another number of taps or axes.
    """
    if weight.ndim != 4:
        weight = _taps("weight", weight, kernel_size)[:, None]
    _check_taps("weight", weight, kernel_size)
    _, groups, inputs, outputs = weight.shape
    return weight.permute(1, 3, 0, 2).reshape(groups * outputs, *kernel_size, inputs)


def dense_weight(weight: Tensor, groups: int = 1, *, transposed: bool = False) -> Tensor:
    """Convert the weight of a dense convolution of torch.

    Args:
        weight: ``(C_out, C_in / groups, *kernel)``, or ``(C_in, C_out / groups, *kernel)`` where it is transposed.
        groups: Of the convolution.
        transposed: Whether it is of a ``ConvTransposeNd``.

    Returns:
        ``(C_out, *kernel, C_in / groups)``.

    Raises:
        SpecError: The weight has fewer than three axes, or channels that the groups do not divide.
    """
    if weight.ndim < 3 or weight.shape[0] % groups:
        raise SpecError(
            f"weight must have three axes or more, the first a multiple of {groups} groups, not {tuple(weight.shape)}"
        )
    if transposed:
        weight = weight.reshape(groups, -1, *weight.shape[1:]).transpose(1, 2).flatten(0, 1)
    return weight.movedim(1, -1).contiguous()


def _taps(name: str, weight: Tensor, kernel_size: Sequence[int]) -> Tensor:
    """Return ``(K, C_in, C_out)``, also where the first axis was left out."""
    if weight.ndim == 2:
        weight = weight[None]
    if weight.ndim != 3:
        raise SpecError(f"{name} must have two or three axes, not {tuple(weight.shape)}")
    _check_taps(name, weight, kernel_size)
    return weight


def _check_taps(name: str, weight: Tensor, kernel_size: Sequence[int]) -> None:
    if weight.shape[0] != math.prod(kernel_size):
        raise SpecError(
            f"{name} must have the {math.prod(kernel_size)} taps of a kernel of {tuple(kernel_size)}, not the"
            f" {weight.shape[0]} of {tuple(weight.shape)}"
        )


@dataclass(frozen=True)
class _Conversion:
    """State dicts of one library, for models of hepfeed.

    Attributes:
        library: Its name, for messages.
        weight: Converts the weight of a convolution; the second argument is the module that it is for.
        leaves: Names of parameters that the library calls otherwise.
        inner: Names of modules that the library wraps, and hepfeed does not.
    """

    library: str
    weight: Callable[[Tensor, Convolution], Tensor]
    leaves: Mapping[str, str] = field(default_factory=dict)
    inner: tuple[str, ...] = ()

    def run(self, state: Mapping[str, Tensor], model: nn.Module, rename: Rename | None) -> dict[str, Tensor]:
        """Return the state dict of the model; see :func:`from_spconv`."""
        for name, value in state.items():
            if not isinstance(value, Tensor):
                raise SpecError(
                    f"a state dict of {self.library}, name -> tensor, was expected, and {name!r} is of type"
                    f" {type(value).__name__}: checkpoints often have it under a key such as 'state_dict'"
                )
        wanted = model.state_dict()
        names = self._by_order(state, wanted) if rename == "order" else self._by_name(state, wanted, _rule(rename))
        return {target: self._fit(name, state[name], target, wanted[target], model) for target, name in names.items()}

    def _by_name(
        self, state: Mapping[str, Tensor], wanted: Mapping[str, Tensor], rule: Callable[[str], str | None]
    ) -> dict[str, str]:
        """Return name of the model -> name of the source."""
        names: dict[str, str] = {}
        for name in state:
            spellings = [spelling for spelling in map(rule, self._spellings(name)) if spelling is not None]
            if not spellings:
                continue
            target = next((spelling for spelling in spellings if spelling in wanted), None)
            if target is None:
                raise SpecError(
                    f"{name!r} of {self.library} is {spellings[-1]!r} here, and the model has no such name:"
                    f" {nearest(spellings[-1], wanted)} (rename= takes rules)"
                )
            if target in names:
                raise SpecError(f"{names[target]!r} and {name!r} of {self.library} both become {target!r}")
            names[target] = name
        return names

    def _by_order(self, state: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> dict[str, str]:
        """Return name of the model -> name of the source, one layer after another."""
        names: dict[str, str] = {}
        layers, targets = _layers(state), _layers(wanted)
        for leaves, (target, there) in zip(layers.values(), targets.items()):
            for leaf, name in leaves.items():
                known = self.leaves.get(leaf, leaf)
                if known not in there:
                    raise SpecError(
                        f"{name!r} of {self.library} comes where the model has {target!r}, which has no {known!r}: the"
                        " layers are in another order, or others"
                    )
                names[there[known]] = name
        if len(layers) != len(targets):
            raise SpecError(
                f"{len(layers)} layers with parameters of {self.library} can't go in order to the {len(targets)} of"
                " the model"
            )
        return names

    def _spellings(self, name: str) -> list[str]:
        """Return what the model may call a parameter, the likeliest first."""
        owner, _, leaf = name.rpartition(".")
        leaf = self.leaves.get(leaf, leaf)
        outer, _, last = owner.rpartition(".")
        return [_joined(owner, leaf), _joined(outer, leaf)] if last in self.inner else [_joined(owner, leaf)]

    def _is_kernel(self, name: str) -> bool:
        return self.leaves.get(name.rpartition(".")[2]) == "weight"

    def _fit(self, name: str, value: Tensor, target: str, wanted: Tensor, model: nn.Module) -> Tensor:
        owner, _, leaf = target.rpartition(".")
        module = model.get_submodule(owner)
        try:
            if leaf == "weight" and isinstance(module, Convolution):
                value = self.weight(value, module)
            elif self._is_kernel(name) and isinstance(module, nn.Linear) and value.ndim == 2:
                value = value.t()  # of one tap, (C_in, C_out)
            elif value.shape == (1, *wanted.shape):
                value = value[0]
            if value.shape != wanted.shape:
                raise SpecError(f"it is {tuple(value.shape)} here, and {tuple(wanted.shape)} was expected")
        except SpecError as error:
            raise SpecError(f"{name!r} of {self.library} does not fit {target!r} of the model: {error}") from None
        return value.detach()


def _rule(rename: Rename | None) -> Callable[[str], str | None]:
    if rename is None:
        return lambda name: name
    if callable(rename):
        return rename
    if not isinstance(rename, Mapping):
        raise SpecError(f"rename must be a mapping of regular expressions, a function or 'order', not {rename!r}")
    rules = [(re.compile(pattern), text) for pattern, text in rename.items()]

    def apply(name: str) -> str | None:
        for pattern, text in rules:
            if text is not None:
                name = pattern.sub(text, name)
            elif pattern.search(name):
                return None
        return name

    return apply


def _layers(state: Mapping[str, Tensor]) -> dict[str, dict[str, str]]:
    """Return layer -> parameter -> name, in the order of the state dict."""
    layers: dict[str, dict[str, str]] = {}
    for name in state:
        owner, _, leaf = name.rpartition(".")
        layers.setdefault(owner, {})[leaf] = name
    return layers


def _joined(owner: str, leaf: str) -> str:
    return f"{owner}.{leaf}" if owner else leaf
