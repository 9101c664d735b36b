"""Batches of every type: what comes out of a reader is what the main process would have made."""

import dataclasses
import decimal
import enum
import types
from collections import Counter, OrderedDict, UserList, defaultdict, deque, namedtuple

import numpy as np
import pytest
import torch
import torch.utils.data
from loader_datasets import Images, only_list
from outcomes import error_of
from same_batches import assert_same
from torch.nn.utils.rnn import pack_sequence

pytestmark = [
    pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning"),
    pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:ComplexHalf support is experimental:UserWarning"),
    pytest.mark.filterwarnings("ignore:Sparse (CSR|invariant) .*:UserWarning"),
    pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors is in prototype stage:UserWarning"),
    pytest.mark.timeout(60),
]

DTYPES = [
    getattr(torch, name)
    for name in (
        *("bool", "uint8", "int8", "int16", "int32", "int64", "uint16", "uint32", "uint64"),
        *("float16", "bfloat16", "float32", "float64", "complex32", "complex64", "complex128"),
        *("float8_e4m3fn", "float8_e5m2", "float8_e4m3fnuz", "float8_e5m2fnuz"),
    )
]
NUMPY = [
    *("bool", "uint8", "int8", "int16", "int32", "int64", "uint16", "uint32", "uint64"),
    *("float16", "float32", "float64", "complex64", "complex128"),
]

Hit = namedtuple("Hit", "energy time")


@dataclasses.dataclass
class Track:
    """A user's own class."""

    points: torch.Tensor
    name: str
    weights: np.ndarray


class Particle(enum.Enum):
    """A user's own enumeration."""

    electron = 1
    pion = 2


class Table(dict):
    """A user's own mapping."""


def random_bits(dtype, *shape):
    """A tensor of any dtype; its bits are of every kind, NaN included."""
    count = int(np.prod(shape))
    if dtype is torch.bool:
        return torch.arange(count).view(shape) % 3 == 0
    generator = torch.Generator().manual_seed(count)
    width = torch.empty((), dtype=dtype).element_size()
    return torch.randint(0, 256, (count * width,), dtype=torch.uint8, generator=generator).view(dtype).view(shape)


def row_table(count):
    """A structured array with rows of several types."""
    table = np.zeros(count, [("id", "i4"), ("energy", ">f8"), ("name", "U5"), ("hits", "f4", (2, 3))])
    table["id"], table["energy"], table["name"] = np.arange(count), 0.5, "muon"
    return table


def nested_tensor(layout):
    return torch.nested.nested_tensor([torch.arange(3.0), torch.arange(5.0)], layout=layout)


# What torch's default_collate takes: an event of number i.
COLLATED = {
    "numbers": lambda i: (i, i / 3, bool(i % 2), np.float32(i / 3), np.int16(i), np.bool_(i % 2), np.float64(i)),
    "texts": lambda i: (f"event {i}", b"\x00" * i, "é☃"),
    "tensors of every dtype": lambda i: {str(dtype): random_bits(dtype, 2, 3) for dtype in DTYPES},
    "arrays of every dtype": lambda i: {name: np.full((3, 2), i % 2, name) for name in NUMPY},
    "scalars and empty ones": lambda i: [torch.tensor(i), torch.zeros(0, 3), np.array(i), np.zeros((2, 0))],
    "mappings": lambda i: {"a": i, "b": {"c": torch.ones(2), "d": {"e": f"{i}"}}, 3: [i]},
    "own mapping": lambda i: Table(a=i, b=Table(c=i)),
    "ordered mapping": lambda i: OrderedDict(b=i, a=i),
    "sequences": lambda i: [i, (i, [i, torch.full((2,), i)]), ()],
    "named tuples": lambda i: Hit(i, Hit(torch.ones(2) * i, "late")),
    "views": lambda i: (torch.arange(12.0).view(3, 4).T, torch.ones(1).expand(3, 3), torch.arange(9.0)[::3]),
    "memory formats": lambda i: torch.rand(2, 3, 4, generator=torch.Generator()).contiguous().transpose(0, 2),
}

# What travels as it is, where no function stacks it.
PLAIN = {
    "arrays of other dtypes": lambda i: [
        np.array(["2020-01-01", "NaT"], "M8[D]"),
        np.array([i], "m8[us]"),
        np.array(["a", "bcd"]),
        np.array([b"a", b"bcd"]),
        np.array([{"any": i}, None], object),
        row_table(3),
        row_table(0),
    ],
    "views of arrays": lambda i: [
        np.arange(24).reshape(2, 3, 4).transpose(2, 0, 1),
        np.arange(10)[::-2],
        np.asfortranarray(np.ones((3, 4))),
        np.broadcast_to(np.float32(i), (4, 4)),
    ],
    "objects": lambda i: [
        None,
        ...,
        {i, 2},
        frozenset({i}),
        range(i),
        slice(i),
        1j * i,
        decimal.Decimal(i),
        Particle(2),
    ],
    "containers": lambda i: [Counter("aab"), defaultdict(list, a=[i]), deque([i]), UserList([i]), bytearray(b"ab")],
    "namespace": lambda i: types.SimpleNamespace(number=i, name="x"),
    "data class": lambda i: Track(torch.arange(4.0), f"track {i}", np.ones(3, np.float16)),
    "packed sequence": lambda i: pack_sequence([torch.arange(3.0), torch.arange(5.0)], enforce_sorted=False),
    "sparse": lambda i: torch.eye(3).mul(i + 1).to_sparse(),
    "sparse, not coalesced": lambda i: torch.sparse_coo_tensor([[0, 0, 2]], [1.0, 2.0, 3.0], (4,)),
    "sparse rows": lambda i: torch.eye(3).to_sparse_csr(),
    "nested": lambda i: nested_tensor(torch.strided),
    "nested, jagged": lambda i: nested_tensor(torch.jagged),
    "leaf that learns": lambda i: torch.ones(3, requires_grad=True),
    "parameter": lambda i: torch.nn.Parameter(torch.arange(3.0)),
    "big integers": lambda i: [2**80 + i, -(2**200)],
}


class Made:
    """A data set that makes its events by a function of this file."""

    def __init__(self, make, n=5):
        self.make, self.n = make, n

    def __len__(self):
        return self.n

    def __getitem__(self, index):
        return self.make(index)


def reference(*args, **options):
    """Batches of torch's own loader in this process."""
    return list(torch.utils.data.DataLoader(*args, **options))


@pytest.mark.parametrize("kind", COLLATED)
def test_collated_batches_are_those_of_the_main_process(Loader, kind):
    dataset = Made(COLLATED[kind])
    assert_same(list(Loader(dataset, 2, num_workers=1)), reference(dataset, 2))


@pytest.mark.parametrize("kind", COLLATED)
def test_converted_events_are_those_of_the_main_process(Loader, kind):
    dataset = Made(COLLATED[kind])
    assert_same(list(Loader(dataset, None, num_workers=1)), reference(dataset, None))


@pytest.mark.parametrize("kind", COLLATED | PLAIN)
def test_events_in_a_list_are_left_as_they_are(Loader, kind):
    dataset = Made((COLLATED | PLAIN)[kind])
    batches = list(Loader(dataset, 2, collate_fn=only_list, num_workers=1))
    assert_same(batches, reference(dataset, 2, collate_fn=only_list))


@pytest.mark.parametrize(
    ("make", "error", "text"),
    [
        (lambda i: torch.ones(i), RuntimeError, "stack expects each tensor to be equal size"),
        (lambda i: [0] * i, RuntimeError, "each element in list of batch should be of equal size"),
        (lambda i: object(), TypeError, "default_collate: batch must contain tensors, numpy arrays, numbers"),
        (lambda i: np.array(["a"]), TypeError, "found <U1"),
        (lambda i: np.array([None]), TypeError, "found object"),
        (lambda i: None, TypeError, "found <class 'NoneType'>"),
        (lambda i: {"a": 1} if i else {"b": 1}, KeyError, "'b'"),
        (lambda i: {1} if i else {2}, TypeError, "found <class 'set'>"),
    ],
)
@pytest.mark.parametrize("num_workers", [0, 1])
def test_what_can_not_be_collated_is_an_error_that_says_why(Loader, make, error, text, num_workers):
    raised = error_of(lambda: list(Loader(Made(make), 2, num_workers=num_workers)))
    assert type(raised) is error
    assert text in str(raised)


# ---- memory


@pytest.mark.parametrize("num_workers", [0, 1])
def test_batches_are_the_consumers_to_write_to(Loader, num_workers):
    kept = []
    for images, numbers in Loader(Images(12), 3, num_workers=num_workers):
        images += 100
        numbers.zero_()
        kept.append((images, numbers))
    for number, (images, numbers) in enumerate(kept):
        assert images[:, 0, 0].tolist() == [100.0 + 3 * number + row for row in range(3)]
        assert numbers.tolist() == [0, 0, 0]


def test_arrays_are_the_consumers_to_write_to(Loader):
    kept = []
    for (array,) in Loader(Made(lambda i: np.full(1000, i)), collate_fn=only_list, num_workers=1):
        array += 1
        kept.append(array)
    assert [np.unique(array).tolist() for array in kept] == [[1], [2], [3], [4], [5]]


def test_one_thing_in_two_places_stays_one_thing(Loader):
    def make(i):
        whole = torch.arange(10.0)
        return {"whole": whole, "again": whole, "part": whole[2:4], "names": (names := ["a"]), "same": names}

    for event in Loader(Made(make), None, collate_fn=dict, num_workers=1):
        assert event["whole"] is event["again"]
        assert event["names"] is event["same"]
        event["whole"].add_(1)
        assert event["part"].tolist() == [3.0, 4.0]


def test_a_small_view_of_large_memory_arrives(Loader):
    large = torch.arange(1_000_000)
    parts = list(Loader(Made(lambda i: large[i * 1000 : i * 1000 + 2]), None, num_workers=1))
    assert [part.tolist() for part in parts] == [[1000 * i, 1000 * i + 1] for i in range(5)]


def test_an_event_that_the_data_set_keeps_is_not_changed_by_the_consumer(Loader):
    dataset = [torch.zeros(4)] * 6
    for batch in Loader(dataset, None, num_workers=1):
        assert batch.tolist() == [0, 0, 0, 0]
