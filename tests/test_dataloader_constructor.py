"""The loader's face: arguments, errors and warnings are torch's own, word for word."""

import copy
import inspect
import pickle

import pytest
import torch
import torch.utils.data
from loader_datasets import Count, CountWithLength, Images, Matching, Numbers, only_list
from outcomes import outcome
from same_batches import assert_same
from torch.utils.data import BatchSampler, SequentialSampler

import hepfeed as hf

pytestmark = [
    pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning"),
    pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning"),
    pytest.mark.timeout(60),
]

Torch = torch.utils.data.DataLoader


def parameters(loader):
    return list(inspect.signature(loader.__init__).parameters.values())[1:]


# ---- arguments


def test_torchs_arguments_come_first_with_their_kinds_and_defaults():
    theirs, ours = parameters(Torch), parameters(hf.DataLoader)
    assert [(each.name, each.kind, each.default) for each in ours[: len(theirs)]] == [
        (each.name, each.kind, each.default) for each in theirs
    ]
    assert {each.kind for each in ours[len(theirs) :]} == {inspect.Parameter.KEYWORD_ONLY}


def test_it_is_a_torch_loader():
    assert issubclass(hf.DataLoader, Torch)
    assert isinstance(hf.DataLoader([1]), Torch)


def test_the_class_takes_a_type_of_batch(Loader):
    def train(batches: Loader[list[torch.Tensor]]) -> Loader[int]:
        return batches

    assert train(Loader([1])).dataset == [1]


def test_a_subclass_has_its_own_arguments(Loader):
    class Pairs(Loader):
        def __init__(self, n):
            super().__init__(Numbers(n), batch_size=2)

    assert [batch.tolist() for batch in Pairs(3)] == [[0, 1], [2]]


WRONG = [
    {"num_workers": -1},
    {"timeout": -1},
    {"prefetch_factor": 2},
    {"num_workers": 1, "prefetch_factor": -1},
    {"persistent_workers": True},
    {"batch_size": None, "drop_last": True},
    {"batch_size": 0},
    {"batch_size": -3},
    {"batch_size": 2.5},
    {"batch_size": True},
    {"drop_last": 3},
    {"multiprocessing_context": "fork"},
    {"num_workers": 1, "multiprocessing_context": "bad"},
    {"num_workers": 1, "multiprocessing_context": 3},
    {"sampler": [0], "shuffle": True},
    {"sampler": [0], "shuffle": True, "batch_sampler": [[0]]},
    {"batch_sampler": [[0]], "batch_size": 2},
    {"batch_sampler": [[0]], "shuffle": True},
    {"batch_sampler": [[0]], "sampler": [0]},
    {"batch_sampler": [[0]], "drop_last": True},
]


@pytest.mark.parametrize("options", WRONG, ids=str)
def test_wrong_arguments_raise_what_torch_raises(options):
    theirs = outcome(Torch, Numbers(4), **options)
    assert issubclass(theirs[0], ValueError | TypeError)
    assert outcome(hf.DataLoader, Numbers(4), **options) == theirs


WRONG_FOR_STREAMS = [
    {"shuffle": True},
    {"shuffle": 3},
    {"sampler": [0]},
    {"sampler": 3},
    {"batch_sampler": [[0]]},
    {"batch_sampler": 3},
    {"batch_size": None, "drop_last": True},
    {"batch_size": -1},
]


@pytest.mark.parametrize("options", WRONG_FOR_STREAMS, ids=str)
def test_wrong_arguments_of_a_stream_raise_what_torch_raises(options):
    theirs = outcome(Torch, Count(4), **options)
    assert issubclass(theirs[0], ValueError)
    assert outcome(hf.DataLoader, Count(4), **options) == theirs


def test_a_shuffled_data_set_without_a_length_raises_what_torch_raises():
    unsized = (number for number in range(3))
    assert outcome(hf.DataLoader, unsized, shuffle=True) == outcome(Torch, unsized, shuffle=True)


@pytest.mark.parametrize("dataset", [[], [3]], ids=["none", "one"])
@pytest.mark.parametrize("shuffle", [False, True])
def test_small_data_sets_are_no_special_case(dataset, shuffle):
    def run(loader):
        assert len(list(loader(dataset, shuffle=shuffle))) == len(dataset)

    assert outcome(run, hf.DataLoader) == outcome(run, Torch)


# ---- warnings


def test_too_many_workers_are_warned_of_as_by_torch():
    theirs = outcome(Torch, Numbers(4), num_workers=500)
    assert "will create 500 worker processes in total" in theirs[2][0][1]
    assert outcome(hf.DataLoader, Numbers(4), num_workers=500) == theirs


@pytest.mark.skipif(torch.accelerator.is_available(), reason="the warning is for machines without an accelerator")
@pytest.mark.parametrize("num_workers", [0, 1])
@pytest.mark.parametrize("device", ["", "cuda"])
def test_memory_that_can_not_be_pinned_is_warned_of_as_by_torch(num_workers, device):
    def run(loader):
        batches = list(loader(Images(2), num_workers=num_workers, pin_memory=True, pin_memory_device=device))
        assert not batches[0][0].is_pinned()

    theirs = outcome(run, Torch)
    assert "no accelerator is found" in theirs[2][-1][1]
    assert outcome(run, hf.DataLoader) == theirs


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="pins memory for a CUDA device")
@pytest.mark.parametrize("num_workers", [0, 2])
def test_batches_are_pinned(Loader, num_workers):
    options = {"batch_size": 2, "num_workers": num_workers, "pin_memory": True}
    for images, numbers in Loader(Images(6), **options):
        assert images.is_pinned()
        assert numbers.is_pinned()
    for batch in Loader(Images(6), collate_fn=Matching, **options):
        assert type(batch) is Matching
        assert batch.images.is_pinned()
        assert batch.numbers.is_pinned()


def test_a_pinning_method_is_not_called_without_need(Loader):
    (batch,) = Loader(Images(2), 2, collate_fn=Matching, num_workers=1)
    assert type(batch) is Matching
    assert batch.numbers.tolist() == [0, 1]
    assert not batch.images.is_pinned()


# ---- attributes


@pytest.mark.parametrize(
    "name", ["batch_size", "batch_sampler", "sampler", "drop_last", "dataset", "persistent_workers"]
)
def test_attributes_that_others_were_made_from_are_frozen(name):
    theirs = outcome(setattr, Torch(Numbers(4)), name, None)
    assert theirs[0] is ValueError
    assert outcome(setattr, hf.DataLoader(Numbers(4)), name, None) == theirs


@pytest.mark.parametrize("num_workers", [0, 1])
def test_other_attributes_may_be_set_before_the_next_epoch(Loader, num_workers):
    loader = Loader(Numbers(3), 2, num_workers=num_workers)
    loader.collate_fn = only_list
    assert list(loader) == [[0, 1], [2]]
    loader.num_workers, loader.prefetch_factor = (0, None) if num_workers else (1, 2)
    assert list(loader) == [[0, 1], [2]]


def test_the_start_method_may_be_named_or_given(Loader):
    context = torch.multiprocessing.get_context("fork")
    assert Loader(Numbers(1), num_workers=1, multiprocessing_context="fork").multiprocessing_context is context
    loader = Loader(Numbers(1), num_workers=1, multiprocessing_context=context)
    assert loader.multiprocessing_context is context
    loader.multiprocessing_context = None
    assert loader.multiprocessing_context is None
    with pytest.raises(TypeError, match="should be a valid context"):
        loader.multiprocessing_context = 3


def test_attributes_hold_what_was_given_or_torchs_default(Loader):
    loader = Loader(Numbers(5), 2, num_workers=1, drop_last=True, timeout=3)
    assert (loader.batch_size, loader.num_workers, loader.drop_last, loader.timeout) == (2, 1, True, 3)
    assert (loader.prefetch_factor, loader.persistent_workers, loader.in_order) == (2, False, True)
    assert type(loader.sampler) is SequentialSampler
    assert type(loader.batch_sampler) is BatchSampler
    assert loader.collate_fn is torch.utils.data.default_collate
    assert Loader(Numbers(5), None).collate_fn is torch.utils.data.default_convert
    assert Loader(Numbers(5), None).batch_sampler is None
    assert Loader(Numbers(5), batch_sampler=[[0]]).batch_size is None


def public(loader):
    return {name: value for name, value in vars(loader).items() if not name.startswith("_")}


def test_public_attributes_are_arguments(Loader):
    assert public(Loader(Numbers(5))).keys() <= {each.name for each in parameters(Loader)}


def test_a_loader_is_rebuilt_with_another_batch_sampler(Loader):
    arguments = public(Loader(Numbers(5), 2, shuffle=True, drop_last=True, num_workers=1))
    for name in ("batch_size", "sampler", "drop_last"):
        del arguments[name]
    arguments["batch_sampler"] = [[4, 3], [0]]
    assert [batch.tolist() for batch in Loader(**arguments)] == [[4, 3], [0]]


def test_a_loader_is_rebuilt_with_another_sampler(Loader):
    arguments = public(Loader(Numbers(5), 2, drop_last=True, num_workers=1))
    arguments.update(sampler=[4, 3, 0], batch_sampler=None)
    assert [batch.tolist() for batch in Loader(**arguments)] == [[4, 3]]


# ---- length and copies


@pytest.mark.parametrize(
    ("options", "length"),
    [
        ({"batch_size": 1}, 10),
        ({"batch_size": 3}, 4),
        ({"batch_size": 3, "drop_last": True}, 3),
        ({"batch_size": 11, "drop_last": True}, 0),
        ({"batch_size": None}, 10),
        ({"batch_size": 4, "num_workers": 2}, 3),
    ],
    ids=str,
)
@pytest.mark.parametrize("dataset", [Numbers(10), CountWithLength(10)], ids=["map", "stream"])
def test_the_length_is_the_number_of_batches(Loader, dataset, options, length):
    assert len(Loader(dataset, **options)) == length


def test_the_length_is_the_samplers(Loader):
    assert len(Loader(Numbers(10), 2, sampler=[1, 2, 3])) == 2
    assert len(Loader(Numbers(10), batch_sampler=[[1], [2, 3], [4]])) == 3


def test_a_data_set_that_grows_is_followed(Loader):
    dataset = [torch.ones(2)] * 4
    loaders = [Loader(dataset), Loader(dataset, shuffle=True)]
    dataset.append(torch.zeros(2))
    assert [len(loader) for loader in loaders] == [5, 5]
    assert [len(list(loader)) for loader in loaders] == [5, 5]


def test_a_stream_without_a_length_has_none(Loader):
    with pytest.raises(TypeError, match=r"object of type 'Count' has no len\(\)"):
        len(Loader(Count(3)))


@pytest.mark.parametrize("clone", [lambda loader: pickle.loads(pickle.dumps(loader)), copy.copy, copy.deepcopy])
@pytest.mark.parametrize("num_workers", [0, 1])
def test_a_loader_can_be_copied(Loader, clone, num_workers):
    loader = Loader(Images(5), 2, num_workers=num_workers, drop_last=True)
    before = list(loader)
    assert_same(list(clone(loader)), before)


def test_an_iterator_can_not_be_pickled(Loader):
    for num_workers in (0, 1):
        iterator = iter(Loader(Numbers(4), num_workers=num_workers))
        with pytest.raises(NotImplementedError, match="cannot be pickled"):
            pickle.dumps(iterator)
