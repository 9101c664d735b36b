"""A model of nodes that read one set over a shared file system: what to stage, and when.  It measures nothing.

Readers are customers of a closed network of queues (:mod:`hepfeed.bench.queues`): a request waits for the latency,
for the file system's servers (requests/s), for its bandwidth and for the node's link, then the reader decodes what has
come on a core of its own.  Assumptions:

- Every node has the same number of readers, and a core for each of them and for its parent.
- Each epoch a node reads another random ``1 / nodes`` of the set, as hepfeed's canonical partitions do.  The page cache
  keeps what it has until it is full, so that a request finds its bytes there with the probability
  ``min(memory, read before) / set``; before epoch ``e`` a node has read ``1 - (1 - 1 / nodes)**e`` of the set.
- The device takes what readers deliver, up to its own speed: enough batches are ready, so that the waiting of an epoch
  is that of its mean.  Ranks do not wait for the slowest one.
- A reader keeps 256 files open, and opens another one for a request with the probability that its file is none of them.
- Copies to nodes share the file system's bandwidth fairly; nothing else uses it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from hepfeed.bench.queues import rounds_per_s
from hepfeed.store import LOOKERS

__all__ = [
    "PLACES",
    "Cluster",
    "Epoch",
    "FileSystem",
    "Node",
    "Place",
    "Run",
    "Stored",
    "Work",
    "break_even",
    "run",
    "start_s",
]

Place = Literal["sources", "shared cache", "cache on disk", "cache in memory"]
PLACES: tuple[Place, ...] = get_args(Place)
"""Where events are read from: their sources or a cache, both on the shared file system, or a copy on each node."""
_OPEN_FILES = 256


@dataclass(frozen=True)
class FileSystem:
    """What all nodes share.

    Attributes:
        bytes_per_s: Of all nodes together.
        requests_per_s: Reads of all nodes together.
        metadata_per_s: Opens and looks at files, of all nodes together.
        latency_s: Of a request where nobody else waits.
    """

    bytes_per_s: float
    requests_per_s: float
    metadata_per_s: float
    latency_s: float


@dataclass(frozen=True)
class Node:
    """One of the nodes, all of which are alike.

    Attributes:
        readers: Processes that read.
        link_bytes_per_s: To the shared file system.
        memory_bytes: That the page cache may take.
        disk_bytes: Of its own disk that are free; 0: it has none.
        disk_bytes_per_s: Of its own disk.
        disk_latency_s: Of its own disk.
    """

    readers: int
    link_bytes_per_s: float
    memory_bytes: float
    disk_bytes: float
    disk_bytes_per_s: float
    disk_latency_s: float


@dataclass(frozen=True)
class Stored:
    """How events are stored, and what reading them takes.

    Attributes:
        files: They are in.
        event_bytes: Of an event in them.
        request_bytes: Of a read: a chunk of the sources, or an event or a run of them of the cache.
        in_flight: Reads that a reader begins together, so that they wait for the latency together.
        event_s: Seconds of a reader to decode an event, or to copy it.
    """

    files: int
    event_bytes: float
    request_bytes: float
    in_flight: int
    event_s: float


@dataclass(frozen=True)
class Work:
    """What is done.

    Attributes:
        events: Of an epoch, on all nodes together.
        sources: As they are.
        cache: As hepfeed writes it.
        parent_s: Seconds of the training process to plan and hand over an event.
        batch_size: Events of a step, on one node.
        step_s: Of the device; above 0.
        open_s: Seconds of a process to describe one file that the index does not know.
    """

    events: int
    sources: Stored
    cache: Stored
    parent_s: float
    batch_size: int
    step_s: float
    open_s: float

    def stored(self, place: Place) -> Stored:
        """Return what is read in a place."""
        return self.sources if place == "sources" else self.cache


@dataclass(frozen=True)
class Cluster:
    """All of it.

    Attributes:
        nodes: How many.
        node: Each of them.
        shared: The file system.
        work: What they do.
    """

    nodes: int
    node: Node
    shared: FileSystem
    work: Work

    @property
    def demand(self) -> float:
        """Events/s that the device of a node can take."""
        return self.work.batch_size / self.work.step_s


@dataclass(frozen=True)
class Epoch:
    """One epoch.

    Attributes:
        seconds: Of all nodes, which are equally fast.
        node_events_per_s: Of one node.
        wait: Part of the time that the device has no batch.
        shared_bytes: Read from the shared file system, by all nodes.
        disk_bytes: Read from the nodes' own disks.
        memory_bytes: Found in the page caches of nodes.
        shared_load: Part of the file system's bandwidth, or of its requests, that is used: the larger one.
    """

    seconds: float
    node_events_per_s: float
    wait: float
    shared_bytes: float
    disk_bytes: float
    memory_bytes: float
    shared_load: float


@dataclass(frozen=True)
class Run:
    """What becomes of a training run.

    Attributes:
        place: Where events are read from.
        impossible: Why that can't be; empty where it can.
        prepare_s: To build the cache and to copy it.
        epochs: The epochs after that; none where it can't be.
    """

    place: Place
    impossible: str
    prepare_s: float
    epochs: tuple[Epoch, ...]

    def total_s(self, epochs: int) -> float:
        """Return the seconds until so many epochs are over."""
        return self.prepare_s + sum(epoch.seconds for epoch in self.epochs[:epochs])


def run(cluster: Cluster, place: Place, epochs: int) -> Run:
    """Return what some epochs take.

    Args:
        cluster: The nodes and what they do.
        place: Where they read from.
        epochs: How many.
    """
    node, work = cluster.node, cluster.work
    size = work.events * work.cache.event_bytes
    room = {"cache on disk": node.disk_bytes, "cache in memory": node.memory_bytes}.get(place, float("inf"))
    if size > room:
        return Run(place, f"the cache takes {size / 1e9:,.0f} GB, and a node has {room / 1e9:,.0f} GB", 0.0, ())
    done = tuple(_epoch(cluster, place, number) for number in range(epochs))
    return Run(place, "", _prepare_s(cluster, place), done)


def break_even(first: Run, other: Run) -> int | None:
    """Return after how many epochs ``other`` has taken less time than ``first``; None where it has not at the end."""
    if other.impossible or first.impossible:
        return None
    together = min(len(first.epochs), len(other.epochs))
    return next((n for n in range(1, together + 1) if other.total_s(n) < first.total_s(n)), None)


def start_s(cluster: Cluster, index: bool) -> float:
    """Return the seconds until every node knows all files.

    Without an index each node opens each file, with one process for each reader; with one it only looks at its size and
    time of change, some files at a time.
    """
    work, node, shared = cluster.work, cluster.node, cluster.shared
    at_server = [1 / shared.metadata_per_s]
    if index:
        rate = rounds_per_s(cluster.nodes, LOOKERS, shared.latency_s, at_server, [])
    else:
        reads = [1 / shared.requests_per_s]
        think_s = 2 * shared.latency_s + work.open_s
        rate = rounds_per_s(cluster.nodes, node.readers, think_s, at_server + reads, [])
    return cluster.nodes * work.sources.files / rate


def _prepare_s(cluster: Cluster, place: Place) -> float:
    """Return the seconds to build a cache with all nodes, and to copy it to each of them."""
    if place == "sources":
        return 0.0
    node, shared, work = cluster.node, cluster.shared, cluster.work
    size = work.events * work.cache.event_bytes
    reading = work.events / (cluster.nodes * _reader_rate(cluster, "sources", 0.0))
    writing = max(size / shared.bytes_per_s, size / (cluster.nodes * node.link_bytes_per_s))
    build = max(reading, writing)
    if place == "shared cache":
        return build
    speed = min(shared.bytes_per_s / cluster.nodes, node.link_bytes_per_s)
    if place == "cache on disk":
        speed = min(speed, node.disk_bytes_per_s)
    return build + size / speed


def _epoch(cluster: Cluster, place: Place, number: int) -> Epoch:
    work, shared = cluster.work, cluster.shared
    stored = work.stored(place)
    hits = _hits(cluster, place, number)
    rate = min(_reader_rate(cluster, place, hits), cluster.demand)
    if work.parent_s:
        rate = min(rate, 1 / work.parent_s)
    total = work.events * stored.event_bytes
    seconds = work.events / (cluster.nodes * rate)
    read = total * (1 - hits)
    local = place in ("cache on disk", "cache in memory")
    from_shared = 0.0 if local else read
    requests = from_shared / stored.request_bytes
    load = max(from_shared / shared.bytes_per_s, requests / shared.requests_per_s) / seconds
    wait = 1 - rate / cluster.demand
    return Epoch(seconds, rate, wait, from_shared, read if local else 0.0, total * hits, load)


def _hits(cluster: Cluster, place: Place, number: int) -> float:
    """Return the part of the requests of an epoch that finds its bytes in the node's memory."""
    work, memory = cluster.work, cluster.node.memory_bytes
    size = work.events * work.stored(place).event_bytes
    if place in ("cache on disk", "cache in memory"):  # the copy went through the page cache
        return min(1.0, memory / size)
    seen = 1 - (1 - 1 / cluster.nodes) ** number
    return min(seen, memory / size)


def _reader_rate(cluster: Cluster, place: Place, hits: float) -> float:
    """Return events/s that the readers of one node can deliver; ``hits`` of the requests are in its memory."""
    node, shared, stored = cluster.node, cluster.shared, cluster.work.stored(place)
    misses = 1 - hits
    missed_bytes = misses * stored.request_bytes
    events = stored.request_bytes / stored.event_bytes
    decode_s = events * stored.event_s
    if place in ("cache on disk", "cache in memory"):
        own = [missed_bytes / node.disk_bytes_per_s] if misses else []
        think_s = decode_s + misses * node.disk_latency_s / stored.in_flight
        return rounds_per_s(1, node.readers, think_s, [], own) * events
    opens = max(0.0, 1 - _OPEN_FILES / stored.files)
    servers = [misses / shared.requests_per_s, missed_bytes / shared.bytes_per_s, opens / shared.metadata_per_s]
    link = [missed_bytes / node.link_bytes_per_s]
    think_s = decode_s + (misses / stored.in_flight + opens) * shared.latency_s
    return rounds_per_s(cluster.nodes, node.readers, think_s, servers, link) * events / cluster.nodes
