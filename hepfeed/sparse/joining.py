"""Tensors on different sites joined to one, and rows left out.

Results are the same bits for any number of threads, and can be differentiated any number of times.
"""

from __future__ import annotations

import torch

from hepfeed.errors import SpecError
from hepfeed.sparse import lookup, maps
from hepfeed.sparse.arrays import check_device, kind_of
from hepfeed.sparse.rows import RowLists, row_sum
from hepfeed.sparse.sites import Link, Sites
from hepfeed.sparse.tensor import SparseTensor

__all__ = ["add", "concatenate", "prune", "union"]


def union(*tensors: SparseTensor) -> list[SparseTensor]:
    """Bring tensors to the sites that any of them has; their features are 0 where they had no site.

    Args:
        tensors: Of the same images; numbers of channels and dtypes may differ.

    Returns:
        The tensors on common sites, sorted by (event, coordinates); as they were, where they share their
        :attr:`~SparseTensor.sites` already.  All of them have the links of all.

    Raises:
        SpecError: There is no tensor, or their images differ.
    """
    links = _links(tensors)
    if all(tensor.sites is tensors[0].sites for tensor in tensors):
        return [SparseTensor._on(tensor.features, tensor.sites, links) for tensor in tensors]
    sites, row_of = _united(tensors)
    parts = torch.split(row_of, [tensor.num_sites for tensor in tensors])
    spread = [row_sum(tensor.features, _to_rows(part, sites)) for tensor, part in zip(tensors, parts)]
    return [SparseTensor._on(features, sites, links) for features in spread]


def add(*tensors: SparseTensor) -> SparseTensor:
    """Add tensors that may be on different sites; see :func:`union`.

    Args:
        tensors: Of the same images, number of channels and dtype.

    Raises:
        SpecError: There is no tensor, or they differ in more than their sites.
    """
    links, first = _links(tensors), tensors[0]
    for tensor in tensors:
        if (tensor.channels, tensor.dtype) != (first.channels, first.dtype):
            raise SpecError(
                f"tensors of {first.channels} channels and {first.dtype}, as of the first, were expected, not of"
                f" {tensor.channels} and {tensor.dtype}"
            )
    if all(tensor.sites is first.sites for tensor in tensors):
        total = first.features
        for tensor in tensors[1:]:
            total = total + tensor.features
        return SparseTensor._on(total, first.sites, links)
    sites, row_of = _united(tensors)
    features = torch.cat([tensor.features for tensor in tensors])
    return SparseTensor._on(row_sum(features, _to_rows(row_of, sites)), sites, links)


def concatenate(*tensors: SparseTensor) -> SparseTensor:
    """Put the channels of tensors, which may be on different sites, one behind another; see :func:`union`.

    Args:
        tensors: Of the same images; numbers of channels may differ.

    Raises:
        SpecError: There is no tensor, or their images or dtypes differ.
    """
    joined = union(*tensors)
    for tensor in joined:
        if tensor.dtype != joined[0].dtype:
            raise SpecError(f"tensors of {joined[0].dtype}, as the first, were expected, not of {tensor.dtype}")
    features = torch.cat([tensor.features for tensor in joined], 1)
    return SparseTensor._on(features, joined[0].sites, joined[0].indice_dict)


def prune(x: SparseTensor, mask: torch.Tensor) -> SparseTensor:
    """Leave out sites.

    Args:
        x: A tensor of N sites.
        mask: ``(N,) bool``: True for the sites that stay.

    Returns:
        A tensor on these sites, in the order in which they were, without links.

    Raises:
        SpecError: The mask is none, or not of these sites.
    """
    if not isinstance(mask, torch.Tensor) or mask.dtype != torch.bool or mask.ndim != 1:
        raise SpecError(f"mask must be (N,) bool, not {kind_of(mask)}")
    if torch.compiler.is_compiling():  # lengths that the compiler does not know can't be asked for here
        torch._check(mask.shape[0] == x.num_sites)  # type: ignore[no-untyped-call]
    elif mask.shape[0] != x.num_sites:
        raise SpecError(f"mask must have an item for each of {x.num_sites} sites, not {mask.shape[0]}")
    check_device(features=x.features, mask=mask)
    rows = lookup.rows_of_mask(mask)
    own = torch.arange(rows.shape[0], dtype=torch.int32, device=rows.device)
    lists = RowLists.of_pairs(own, rows, rows.shape[0], x.num_sites)
    sites = Sites(x.indices.index_select(0, rows), x.spatial_shape, x.batch_size)
    return SparseTensor._on(row_sum(x.features, lists), sites, {})


def _links(tensors: tuple[SparseTensor, ...]) -> dict[str, Link]:
    """Check tensors that are to be joined; return the links of all, the first of each name."""
    if not tensors:
        raise SpecError("one tensor or more was expected, not none")
    first = tensors[0]
    links: dict[str, Link] = {}
    for tensor in tensors:
        if not isinstance(tensor, SparseTensor):
            raise SpecError(f"sparse tensors were expected, not a {type(tensor).__name__}")
        check_device(features=tensor.features)
        if tensor.device != first.device:
            raise SpecError(f"tensors on {first.device}, as the first, were expected, not on {tensor.device}")
        if (tensor.spatial_shape, tensor.batch_size) != (first.spatial_shape, first.batch_size):
            raise SpecError(
                f"tensors of {first.batch_size} images of {first.spatial_shape}, as the first, were expected, not of"
                f" {tensor.batch_size} images of {tensor.spatial_shape}"
            )
        links = {**tensor.indice_dict, **links}
    return links


def _united(tensors: tuple[SparseTensor, ...]) -> tuple[Sites, torch.Tensor]:
    """Sites that any tensor has; and which of them each row is, of all tensors one after another."""
    shape, events = tensors[0].spatial_shape, tensors[0].batch_size
    indices, row_of = maps.unique_sites(torch.cat([tensor.indices for tensor in tensors]), shape, events)
    return Sites(indices, shape, events, indices.new_empty((0,))), row_of


def _to_rows(row_of: torch.Tensor, sites: Sites) -> RowLists:
    """Lists that bring each row to its place on the sites."""
    rows = row_of.shape[0]
    own = torch.arange(rows, dtype=torch.int32, device=row_of.device)
    return RowLists.of_pairs(row_of, own, sites.num_sites, rows)
