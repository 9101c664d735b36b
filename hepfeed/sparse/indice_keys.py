"""Links under names: what layers share by their ``indice_key``."""

from __future__ import annotations

from hepfeed.errors import SpecError
from hepfeed.sparse.sites import Axes, Link, parameters_of
from hepfeed.sparse.tensor import SparseTensor

__all__ = ["find_inverse", "find_link"]


def find_link(
    x: SparseTensor,
    kernel_size: Axes,
    stride: Axes,
    padding: Axes,
    dilation: Axes,
    *,
    submanifold: bool = False,
    transposed: bool = False,
    indice_key: str | None = None,
) -> tuple[Link, dict[str, Link]]:
    """Return the link of a layer on the sites of a tensor, and the ``indice_dict`` of its output.

    Args:
        x: Input of the layer.
        kernel_size: Taps, of each axis, as the ones that follow; see :meth:`hepfeed.sparse.sites.Sites.link`.
        stride: Of the output grid.
        padding: Of the input grid.
        dilation: Of the taps.
        submanifold: Whether outputs lie where inputs do.
        transposed: Whether sites follow ``o = i * stride - padding + k * dilation``.
        indice_key: Name of the link.  Where the tensor has a link of that name, it is the one, and must fit.

    Raises:
        SpecError: The link of that name is of other sites or parameters, or the kernel does not fit the images.
    """
    known = x.find_indice_pair(indice_key)
    if known is None:
        link = x.sites.link(kernel_size, stride, padding, dilation, submanifold, transposed)
        return link, x.indice_dict if indice_key is None else {**x.indice_dict, indice_key: link}
    wanted = (kernel_size, stride, padding, dilation, submanifold, transposed)
    has = parameters_of(known.kernel_map)
    if has != wanted:
        raise SpecError(
            f"indice_key {indice_key!r} is taken by a layer with {_described(*has)}, and this one has"
            f" {_described(*wanted)}: give it another key"
        )
    if not known.source.equal(x.sites):
        raise SpecError(
            f"indice_key {indice_key!r} is taken by a layer on {known.source}, and this one is on {x.sites}: give it"
            " another key"
        )
    return known, x.indice_dict


def find_inverse(x: SparseTensor, indice_key: str, kernel_size: Axes | None = None) -> Link:
    """Return the link that a layer undoes, which led to the sites of ``x``.

    Args:
        x: Input of the layer.
        indice_key: Name of the link, given to a layer before.
        kernel_size: Taps of this layer, where it has some.

    Raises:
        SpecError: There is no link of that name, it is submanifold, it led to other sites or has another kernel.
    """
    link = x.find_indice_pair(indice_key)
    if link is None:
        known = ", ".join(map(repr, x.indice_dict)) or "none"
        raise SpecError(
            f"indice_key {indice_key!r} must be that of a layer before this one in the same pass, and the tensor has"
            f" {known}"
        )
    if link.kernel_map.submanifold:
        raise SpecError(
            f"indice_key {indice_key!r} is that of a submanifold layer, which changes no sites to go back to"
        )
    if kernel_size is not None and kernel_size != link.kernel_map.kernel_size:
        raise SpecError(
            f"kernel_size must be {link.kernel_map.kernel_size}, as of the layer of indice_key {indice_key!r}, not"
            f" {kernel_size}"
        )
    if not link.target.equal(x.sites):
        raise SpecError(f"the layer of indice_key {indice_key!r} led to {link.target}, and this one is on {x.sites}")
    return link


def _described(
    kernel_size: Axes, stride: Axes, padding: Axes, dilation: Axes, submanifold: bool, transposed: bool
) -> str:
    kind = "submanifold " if submanifold else "transposed " if transposed else ""
    return f"{kind}kernel {kernel_size}, stride {stride}, padding {padding}, dilation {dilation}"
