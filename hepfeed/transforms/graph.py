"""The step that connects points with their neighbours."""

from __future__ import annotations

import numpy as np
from pydantic import field_validator, model_validator

from hepfeed.draws import Draws
from hepfeed.errors import SpecError
from hepfeed.graphs import build_graph, check_neighbours
from hepfeed.transforms.lookup import check_made, jagged, names_of
from hepfeed.transforms.points import error_at, naming, points_of, put
from hepfeed.transforms.step import Batch, Keys, Step

__all__ = ["BuildGraph"]


class BuildGraph(Step):
    """Connects each point with its nearest neighbours in the same event.

    Of points at the same distance the one of the lower row is nearer, so that the graph is unique.

    Attributes:
        points: ``Jagged (T, D)`` coordinates of any ``D``, or keys of one coordinate each.  Its rows are the nodes: all
            that they have lies in jagged keys of the same rows, which stay in the batch.
        k: Edges to each point from its nearest, or from all others where the event has fewer.
        radius: Instead of ``k``: edges from all points within it, those at exactly the radius too.
        max_neighbours: With a radius: from the nearest of them only.
        loop: Whether each point has an edge to itself, which counts as one of ``k`` or of ``max_neighbours``.
        into: Key of the graph, whose edges ``(source, target)`` go from a neighbour to the point, sorted by
            (target, source).

    Raises:
        ProcessError: A coordinate is not finite, or the points are not jagged.
    """

    points: Keys
    k: int | None = None
    radius: float | None = None
    max_neighbours: int | None = None
    loop: bool = False
    into: str = "graph"

    @field_validator("points")
    @classmethod
    def _check_points(cls, points: Keys) -> Keys:
        names_of(points, "points")
        return points

    @field_validator("into")
    @classmethod
    def _check_into(cls, name: str) -> str:
        return check_made(name, "into")

    @model_validator(mode="after")
    def _check(self) -> BuildGraph:
        check_neighbours(self.k, self.radius, self.max_neighbours)
        if self.into in names_of(self.points):
            raise SpecError(f"into {self.into!r} is a key of the points: give another")
        return self

    def __call__(self, batch: Batch, draws: Draws) -> Batch:
        """Return the batch with a graph."""
        names = names_of(self.points)
        for name in names:
            jagged(batch, name)  # the rows of padded points are not those of a graph
        points, offsets = points_of(batch, self.points)
        coords = points if isinstance(points, np.ndarray) else np.stack(points, axis=1)
        made = dict(batch)
        with naming(names[0]):
            graph = build_graph(
                coords, offsets, self.k, self.radius, self.max_neighbours, self.loop, error_at(batch, names[0])
            )
        put(made, self.into, graph)
        return made
