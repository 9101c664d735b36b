"""Types of the native kernels for CUDA devices.

Arrays are given by their address and streams by their handle, both as integers; 0 stands for none.
"""

from collections.abc import Sequence

# runtime

def devices() -> tuple[int, str]: ...
def runtime_version() -> int: ...
def sort_pairs_bytes(count: int, end_bit: int) -> int: ...
def sort_pairs(
    work: int,
    bytes: int,
    keys_in: int,
    keys_out: int,
    values_in: int,
    values_out: int,
    count: int,
    end_bit: int,
    stream: int,
) -> None: ...

# plan of a convolution, and the convolution along it

TILE_ROWS: int

def mark_taps(
    in_maps: int,
    out_maps: int,
    offsets: int,
    pairs: int,
    taps: int,
    in_rows: int,
    out_rows: int,
    row_taps: int,
    fault: int,
    stream: int,
) -> None: ...
def join_taps(
    row_taps: int, rows: int, out_rows: int, words: int, positions: int, tile_taps: int, stream: int
) -> None: ...
def place_pairs(
    in_maps: int,
    out_maps: int,
    offsets: int,
    pairs: int,
    taps: int,
    in_rows: int,
    out_rows: int,
    positions: int,
    table: int,
    stream: int,
) -> None: ...
def convolve(
    arithmetic: str,
    variant: str,
    features: int,
    weight: int,
    bias: int,
    table: int,
    rows: int,
    tile_taps: int,
    out: int,
    positions: int,
    taps: int,
    words: int,
    depth: int,
    width: int,
    groups: int,
    stream: int,
) -> None: ...

# gradients of the weight and of the bias

def weight_gradient_tiles(arithmetic: str) -> dict[int, tuple[int, int]]: ...
def check_pairs(
    in_maps: int,
    out_maps: int,
    offsets: int,
    pairs: int,
    taps: int,
    in_rows: int,
    out_rows: int,
    fault: int,
    stream: int,
) -> None: ...
def make_work_items(
    offsets: int, taps: int, chunk: int, items: int, first_item: int, work: int, stream: int
) -> None: ...
def weight_gradient(
    arithmetic: str,
    tile: int,
    left: int,
    left_numbers: int,
    left_rows: int,
    left_channels: int,
    right: int,
    right_numbers: int,
    right_rows: int,
    right_channels: int,
    turned: bool,
    groups: int,
    taps: int,
    first_item: int,
    work: int,
    items: int,
    sums: int,
    gradient: int,
    stream: int,
) -> None: ...
def column_sum(
    dtype: str, values: int, rows: int, columns: int, block_rows: int, sums: int, out: int, stream: int
) -> None: ...

# sets of sites and kernel maps

_Grid = tuple[int, Sequence[int], Sequence[int]]
_Taps = tuple[Sequence[int], Sequence[int], Sequence[int], Sequence[int], bool]
_Sites = tuple[int, int, int]

def number_sites(sites: _Sites, grid: _Grid, keys: int, faults: int, stream: int) -> None: ...
def find_repeats(keys: int, count: int, faults: int, stream: int) -> None: ...
def mark_distinct(keys: int, count: int, is_first: int, stream: int) -> None: ...
def write_distinct(
    keys: int, firsts: int, order: int, count: int, grid: _Grid, row_of: int, sites: int, stream: int
) -> None: ...
def find_sites(keys: int, sites: _Sites, queries: int, count: int, grid: _Grid, found: int, stream: int) -> None: ...
def cells_of_points_float32_int32(
    points: int, events: int, count: int, dims: int, farthest: int, cells: int, faults: int, stream: int
) -> None: ...
def cells_of_points_float32_int64(
    points: int, events: int, count: int, dims: int, farthest: int, cells: int, faults: int, stream: int
) -> None: ...
def cells_of_points_float64_int32(
    points: int, events: int, count: int, dims: int, farthest: int, cells: int, faults: int, stream: int
) -> None: ...
def cells_of_points_float64_int64(
    points: int, events: int, count: int, dims: int, farthest: int, cells: int, faults: int, stream: int
) -> None: ...
def count_neighbours(
    keys: int, outputs: int, sites: int, grid: _Grid, taps: _Taps, starts: int, counts: int, stream: int
) -> None: ...
def write_neighbours(
    keys: int,
    outputs: int,
    sites: int,
    order: int,
    grid: _Grid,
    taps: _Taps,
    starts: int,
    totals: int,
    places: Sequence[int],
    pairs: int,
    stream: int,
) -> None: ...
def count_reached(sites: _Sites, grid: _Grid, taps: _Taps, counts: int, stream: int) -> None: ...
def write_reached(
    sites: _Sites, grid: _Grid, taps: _Taps, totals: int, in_maps: int, keys: int, stream: int
) -> None: ...
def key_pairs(in_maps: int, offsets: int, taps: int, rows: int, pairs: int, keys: int, stream: int) -> None: ...
def unkey_pairs(keys: int, offsets: int, taps: int, rows: int, pairs: int, back_out: int, stream: int) -> None: ...

# rows

def look_at_pairs(
    targets: int, sources: int, pairs: int, target_rows: int, source_rows: int, found: int, stream: int
) -> None: ...
def find_starts(sorted: int, wide: bool, pairs: int, lists: int, starts: int, stream: int) -> None: ...
def row_sum_bytes(type: str, channels: int, entries: int) -> int: ...
def row_max_bytes(type: str, channels: int, entries: int) -> int: ...
def row_sum(
    type: str,
    features: int,
    rows: int,
    channels: int,
    starts: int,
    columns: int,
    lists: int,
    entries: int,
    coefficients: int,
    places: int,
    out: int,
    work: int,
    stream: int,
) -> None: ...
def row_dot(
    type: str,
    left: int,
    right: int,
    right_rows: int,
    channels: int,
    starts: int,
    columns: int,
    lists: int,
    entries: int,
    places: int,
    out: int,
    stream: int,
) -> None: ...
def row_max(
    type: str,
    features: int,
    rows: int,
    channels: int,
    starts: int,
    columns: int,
    lists: int,
    entries: int,
    out: int,
    argmax: int,
    work: int,
    stream: int,
) -> None: ...
def row_pick(
    type: str, features: int, rows: int, channels: int, argmax: int, out_rows: int, out: int, stream: int
) -> None: ...
def row_put(
    type: str,
    features: int,
    argmax: int,
    rows: int,
    channels: int,
    starts: int,
    columns: int,
    lists: int,
    entries: int,
    out: int,
    work: int,
    stream: int,
) -> None: ...
def batch_norm_bytes(type: str, rows: int, channels: int) -> int: ...
def batch_statistics(
    type: str,
    features: int,
    rows: int,
    channels: int,
    eps: float,
    mean: int,
    inverse: int,
    variance: int,
    work: int,
    stream: int,
) -> None: ...
def given_statistics(
    type: str,
    running_mean: int,
    running_variance: int,
    channels: int,
    eps: float,
    mean: int,
    inverse: int,
    variance: int,
    stream: int,
) -> None: ...
def batch_norm(
    type: str,
    features: int,
    rows: int,
    channels: int,
    mean: int,
    inverse: int,
    weight: int,
    bias: int,
    relu: bool,
    out: int,
    stream: int,
) -> None: ...
def batch_norm_grad(
    type: str,
    grad: int,
    features: int,
    rows: int,
    channels: int,
    mean: int,
    inverse: int,
    weight: int,
    bias: int,
    relu: bool,
    of_batch: bool,
    out: int,
    weight_grad: int,
    bias_grad: int,
    slopes: int,
    work: int,
    stream: int,
) -> None: ...
def densify(
    features: int,
    indices: int,
    sites: int,
    shape: list[int],
    events: int,
    channels: int,
    item: int,
    channels_first: bool,
    dense: int,
    stream: int,
) -> None: ...
def take_sites(
    dense: int,
    indices: int,
    sites: int,
    shape: list[int],
    events: int,
    channels: int,
    item: int,
    channels_first: bool,
    features: int,
    stream: int,
) -> None: ...

# steps of the feed

# Arrays of any type are (address, type); events (offsets, count, items of a row); a key (seed, step, epoch, ids of the
# events); groups (keys, order, starts, count, rows, first key outside); an axis of points (address, type, stride, low,
# size, bins, edges, whether the last edge is closed).

def draw(
    events: tuple[int, int, int],
    total: int,
    key: tuple[int, int, int, int],
    drawn: str,
    low: float,
    high: float,
    out: int,
    stream: int,
) -> None: ...
def gaussian_noise(
    items: tuple[int, int],
    out: tuple[int, int],
    events: tuple[int, int, int],
    total: int,
    key: tuple[int, int, int, int],
    sigma: float,
    relative: bool,
    only_active: bool,
    stream: int,
) -> None: ...
def poisson_noise(
    items: tuple[int, int],
    out: tuple[int, int],
    events: tuple[int, int, int],
    total: int,
    key: tuple[int, int, int, int],
    scale: float,
    fault: int,
    stream: int,
) -> None: ...
def drop_items(
    items: int,
    out: int,
    item_bytes: int,
    events: tuple[int, int, int],
    total: int,
    key: tuple[int, int, int, int],
    probability: float,
    stream: int,
) -> None: ...
def pointwise(
    items: tuple[int, int],
    out: tuple[int, int],
    count: int,
    ops: int,
    length: int,
    params: int,
    entries: int,
    run: int,
    rows: int,
    width: int,
    fault: int,
    stream: int,
) -> None: ...
def cast(
    items: tuple[int, int],
    out: tuple[int, int],
    count: int,
    rounding: str,
    fault: int,
    stream: int,
) -> None: ...
def move_images(
    images: int,
    out: int,
    unit_bytes: int,
    in_shape: tuple[int, ...],
    out_shape: tuple[int, ...],
    events: int,
    origin: int,
    reversed: int,
    quarters: int,
    first: int,
    second: int,
    fill: bytes,
    stream: int,
) -> None: ...
def move_sites(
    indices: int,
    count: int,
    in_shape: tuple[int, ...],
    out_shape: tuple[int, ...],
    events: int,
    origin: int,
    reversed: int,
    quarters: int,
    first: int,
    second: int,
    moved: int,
    keys: int,
    rows: int,
    fault: int,
    stream: int,
) -> None: ...
def put_sites(
    indices: int,
    features: int,
    item_bytes: int,
    count: int,
    shape: tuple[int, ...],
    events: int,
    channels: int,
    inner: int,
    out: int,
    fault: int,
    stream: int,
) -> None: ...
def mark_active(
    images: tuple[int, int],
    outer: int,
    channels: int,
    inner: int,
    threshold: float,
    absolute: bool,
    marks: int,
    stream: int,
) -> None: ...
def cells_of_points(
    axes: list[tuple[int, int, int, float, float, int, int, bool]],
    events: tuple[int, int, int],
    points: int,
    outside: str,
    keys: int,
    rows: int,
    fault: int,
    stream: int,
) -> None: ...
def reduce_groups(
    groups: tuple[int, int, int, int, int, int],
    items: tuple[int, int],
    columns: int,
    reduction: str,
    out: int,
    out_stride: int,
    stream: int,
) -> None: ...
def labels_of_largest(
    groups: tuple[int, int, int, int, int, int],
    labels: int,
    weights: tuple[int, int],
    stride: int,
    out: int,
    stream: int,
) -> None: ...
def labels_of_majority(
    groups: tuple[int, int, int, int, int, int],
    labels: int,
    out: int,
    stream: int,
) -> None: ...
