"""Steps that mix and add events."""

import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from step_batches import batch_of, draws_of, jagged, padded, part_of, sparse

from hepfeed.errors import KeyMissingError, ProcessError, SpecError
from hepfeed.pipeline import Pipeline
from hepfeed.tensors import Graph, Sparse
from hepfeed.transforms import Jitter, MixUp, Overlay
from hepfeed.transforms.mix_up import symmetric_beta
from hepfeed.transforms.overlay import poisson


def images(events=6, shape=(3, 4), dtype=np.float32):
    """Sparse images of whole numbers, most pixels 0, as dense and sparse arrays; the last event is empty."""
    rng = np.random.default_rng(3)
    dense = (rng.integers(0, 9, (events, *shape)) * (rng.random((events, *shape)) < 0.4)).astype(dtype)
    dense[-1:] = 0
    return dense, sparsified(dense)


def sparsified(dense):
    sites = np.argwhere(dense)
    return sparse(sites, dense[tuple(sites.T)], dense.shape[1:], len(dense), dense.dtype)


def densified(made):
    dense = np.zeros((made.batch_size, *made.spatial_shape), made.features.dtype)
    dense[tuple(made.indices.T)] = made.features[:, 0]
    return dense


def in_order(made):
    """Whether sites are sorted by (event, coordinates), each once."""
    rows = [tuple(row) for row in made.indices.tolist()]
    return rows == sorted(set(rows))


# ---- mix-up


def test_images_and_targets_are_mixed_with_the_same_shares():
    dense, sites = images()
    batch = batch_of(unit=np.eye(6), image=dense, sites=sites, weight=np.arange(6, dtype=np.float32))
    step = MixUp(keys=("unit", "image", "sites"), alpha=1, classes=3)
    made = step(batch, draws_of(batch))
    mixed = made["unit"]
    assert mixed.sum(axis=1) == pytest.approx(np.ones(6))
    assert ((mixed > 0).sum(axis=1) <= 2).all()
    assert made["image"] == pytest.approx(np.einsum("ij,jxy->ixy", mixed, dense), rel=1e-6, abs=1e-6)
    assert densified(made["sites"]) == pytest.approx(made["image"], rel=1e-6, abs=1e-6)
    assert in_order(made["sites"])
    assert made["onehot"] == pytest.approx(mixed @ np.eye(3)[batch["label"]], rel=1e-6, abs=1e-6)
    assert made["onehot"].dtype == made["image"].dtype == made["sites"].features.dtype == np.float32
    for key in ("label", "event", "weight"):
        assert made[key].tolist() == batch[key].tolist()
    assert MixUp(keys="weight", classes=2)(batch, draws_of(batch))["weight"].dtype == np.float32


def test_targets_that_the_batch_has_are_mixed():
    batch = batch_of(unit=np.eye(4), target=np.eye(4, dtype=np.float64))
    made = MixUp(keys="unit", alpha=1, label="target")(batch, draws_of(batch))
    assert made["target"].tolist() == made["unit"].tolist()
    assert "onehot" not in made


def test_the_share_of_an_event_depends_on_the_event_alone():
    batch = batch_of(unit=np.eye(8))
    step = MixUp(keys="unit", alpha=1, classes=2)
    expected = symmetric_beta(1, draws_of(batch).uniform(2))
    for number in range(4):
        made = step(batch, draws_of(batch, number=number))["unit"]
        diagonal = np.diag(made)
        alone = diagonal == 1
        assert diagonal[~alone] == pytest.approx(expected[~alone])
    one = part_of(batch, [5])
    assert step(one, draws_of(one))["unit"].tolist() == one["unit"].tolist()  # its own partner


def test_partners_are_another_permutation_in_every_batch():
    batch = batch_of(unit=np.eye(8))
    step = MixUp(keys="unit", alpha=1, classes=2)
    found = set()
    for number in range(5):
        made = step(batch, draws_of(batch, number=number))["unit"]
        partners = np.where(np.diag(made) == 1, np.arange(8), (made - np.diag(np.diag(made))).argmax(axis=1))
        assert sorted(partners) == list(range(8))
        found.add(tuple(partners))
    assert len(found) > 3


def test_shares_have_the_beta_distribution():
    u = np.random.default_rng(4).random((50_000, 2))
    for alpha in (0.02, 0.2, 0.5, 1, 2, 10):
        share = symmetric_beta(alpha, u)
        assert share.min() >= 0
        assert share.max() <= 1
        assert share.mean() == pytest.approx(0.5, abs=0.01)
        assert share.var() == pytest.approx(1 / (4 * (2 * alpha + 1)), rel=0.02)
    middle = (np.arange(50_000) + 0.5) / 50_000
    assert np.abs(np.sort(symmetric_beta(1, u)) - middle).max() < 0.01  # uniform
    assert np.abs(np.sort(symmetric_beta(0.5, u)) - np.sin(np.pi / 2 * middle) ** 2).max() < 0.02  # the arcsine law
    assert symmetric_beta(1e-3, np.array([[0.9, 0.1], [0.9, 0.4], [0, 0.3]])).tolist() == [1, 0, 0.5]


def test_types_become_floats():
    batch = batch_of(a=np.ones((4, 2), np.float16), b=np.ones((4, 2), np.int16), c=np.ones((4, 2)))
    made = MixUp(keys=("a", "b", "c"), classes=2)(batch, draws_of(batch))
    assert [made[key].dtype for key in "abc"] == [np.float32, np.float32, np.float64]
    for key in "abc":
        assert made[key] == pytest.approx(np.ones((4, 2)))


def test_what_can_not_be_mixed_is_told():
    batch = batch_of(hits=jagged([1], [2]), image=np.zeros((2, 2)), flag=np.zeros(2, bool), onehot=np.zeros(2))
    for options, words in [
        ({"keys": "hits", "label": "x", "classes": 2}, "key 'hits', Jagged .* can't be added: mix images"),
        ({"keys": "flag", "label": "x", "classes": 2}, "key 'flag', dense .* bool, can't be added: cast it"),
        ({"keys": "image", "label": "x"}, "no targets 'x' to mix, and classes is not given"),
        ({"keys": "image", "classes": 2}, "targets 'onehot' must be"),
        ({"keys": "image", "label": "x", "classes": 1}, "'label' has class 1, .*event 11 of file number 3"),
    ]:
        with pytest.raises(ProcessError, match=words):
            MixUp(**options)(batch, draws_of(batch))
    with pytest.raises(KeyMissingError, match=r"no key 'imgae' .* did you mean 'image'"):
        MixUp(keys="imgae", label="x", classes=2)(batch, draws_of(batch))


# ---- overlay


def parts_of(step, batch, draws):
    """Return which events make up each new one, from the key "unit" of unit vectors."""
    return [np.flatnonzero(row).tolist() for row in step(batch, draws)["unit"]]


def test_every_event_gets_others_and_never_itself_or_one_twice():
    batch = batch_of(unit=np.eye(7))
    for count in (0, 1, 3, 6):
        made = Overlay(keys="unit", count=count)(batch, draws_of(batch))["unit"]
        assert (made.sum(axis=1) == count + 1).all()
        assert (np.diag(made) == 1).all()
        assert (made <= 1).all()
        assert (made.sum(axis=0) == count + 1).all()  # each is added as often as any other


def test_forms_of_the_same_events_are_added_alike():
    dense, sites = images()
    rows = jagged(*[[e] * e for e in range(6)])
    step = Overlay(keys=("unit", "image", "sites", "rows"), mean=1.5, too_few="fewer")
    batch = batch_of(unit=np.eye(6), image=dense, sites=sites, rows=rows)
    made = step(batch, draws_of(batch))
    assert made["image"].tolist() == np.einsum("ij,jxy->ixy", made["unit"], dense).tolist()
    assert densified(made["sites"]).tolist() == made["image"].tolist()
    assert in_order(made["sites"])
    for e in range(6):
        parts = np.flatnonzero(made["unit"][e])
        assert sorted(made["rows"][e]) == sorted(np.repeat(parts, parts))
        assert made["rows"][e][:e].tolist() == [e] * e  # its own rows come first
    assert made["label"].tolist() == batch["label"].tolist()


def test_graphs_come_one_after_another():
    offsets, edge_offsets = np.array([0, 2, 3]), np.array([0, 2, 3])
    graph = Graph(np.array([[1, 0, 2], [0, 1, 2]]), offsets, edge_offsets)
    batch = batch_of(graph=graph, x=jagged([1, 2], [3]))
    made = Overlay(keys=("graph", "x"), count=1)(batch, draws_of(batch))
    assert made["x"].values.tolist() == [1, 2, 3, 3, 1, 2]
    assert made["graph"].edge_index.tolist() == [[1, 0, 2, 3, 5, 4], [0, 1, 2, 3, 4, 5]]
    assert made["graph"].offsets.tolist() == [0, 3, 6] == made["graph"].edge_offsets.tolist()


def test_only_sources_are_added_and_may_leave():
    batch = batch_of(
        unit=np.eye(6),
        label=np.array([2, 0, 1, 2, 0, 2]),
        weight=np.arange(6, dtype=np.float32),
        other=jagged(*[[e] for e in range(6)]),
    )
    made = Overlay(keys="unit", count=2, sources=2)(batch, draws_of(batch))
    for e, parts in enumerate(np.flatnonzero(row).tolist() for row in made["unit"]):
        if batch["label"][e] == 2:
            assert parts == [e]
        else:
            assert len(parts) == 3
            assert set(parts) - {e} <= {0, 3, 5}
    gone = Overlay(keys="unit", count=2, sources=(2,), remove_sources=True)(batch, draws_of(batch))
    assert gone["unit"].tolist() == made["unit"][[1, 2, 4]].tolist()
    assert gone["label"].tolist() == [0, 1, 0]
    assert gone["event"].tolist() == batch["event"][[1, 2, 4]].tolist()
    assert gone["weight"].tolist() == [1, 2, 4]
    assert gone["other"].values.tolist() == [1, 2, 4]
    assert gone["other"].events == 3


def test_sources_are_dealt_out_before_one_comes_twice():
    batch = batch_of(unit=np.eye(8), label=np.array([0, 0, 0, 0, 1, 1, 1, 1]))
    made = Overlay(keys="unit", count=1, sources=1, remove_sources=True)(batch, draws_of(batch))["unit"]
    assert made[:, 4:].sum(axis=0).tolist() == [1, 1, 1, 1]
    step = Overlay(keys="unit", count=1, sources=1)
    found = {tuple(step(batch, draws_of(batch, number=n))["unit"][:4, 4:].argmax(axis=1)) for n in range(6)}
    assert len(found) > 3


def test_numbers_of_added_events_depend_on_the_event_alone():
    batch = batch_of(unit=np.eye(40))
    step = Overlay(keys="unit", mean=3)
    whole = step(batch, draws_of(batch))["unit"].sum(axis=1) - 1
    assert whole.tolist() == poisson(3, draws_of(batch).uniform(1)[:, 0]).tolist()
    other = step(batch, draws_of(batch, number=9))["unit"].sum(axis=1) - 1
    assert whole.tolist() == other.tolist()
    assert whole.mean() == pytest.approx(3, abs=1)


def test_poisson_numbers_have_their_distribution():
    u = (np.arange(100_000) + 0.5) / 100_000
    for mean in (0.1, 1, 7.5, 200):
        numbers = poisson(mean, u)
        assert numbers.mean() == pytest.approx(mean, rel=1e-3)
        assert numbers.var() == pytest.approx(mean, rel=2e-3)
    assert poisson(1, np.array([0, 0.36, 0.37, 0.735, 0.74, 1 - 2**-53])).tolist()[:5] == [0, 0, 1, 1, 2]
    assert poisson(1, np.array([1 - 2**-53]))[0] < 25
    assert poisson(0, u[:3]).tolist() == [0, 0, 0]


def test_too_few_events_are_an_error_or_fewer():
    batch = batch_of(unit=np.eye(3), label=np.array([0, 0, 1]))
    with pytest.raises(ProcessError, match=r"2 events are to be added and the batch has 1 to choose .* event 10 of"):
        Overlay(keys="unit", count=2, sources=1)(batch, draws_of(batch))
    made = Overlay(keys="unit", count=2, sources=1, too_few="fewer")(batch, draws_of(batch))["unit"]
    assert made.tolist() == [[1, 0, 1], [0, 1, 1], [0, 0, 1]]
    with pytest.raises(ProcessError, match="3 events are to be added and the batch has 2"):
        Overlay(keys="unit", count=3)(batch, draws_of(batch))
    none = Overlay(keys="unit", count=1, sources=5, too_few="fewer")(batch, draws_of(batch))["unit"]
    assert none.tolist() == np.eye(3).tolist()


def test_batches_without_events_or_of_sources_alone_go_through():
    for events, label in ((0, []), (2, [1, 1])):
        _, sites = images(events)
        batch = batch_of(
            x=np.zeros((events, 2)), label=np.array(label, np.int64), rows=jagged(*[[1]] * events), sites=sites
        )
        step = Overlay(
            keys=("x", "rows", "sites"),
            count=1,
            sources=1,
            remove_sources=True,
            label_rule="max",
            origins={"o": "sites"},
        )
        made = step(batch, draws_of(batch))
        assert made["x"].shape == (0, 2)
        assert made["rows"].events == made["sites"].events == len(made["event"]) == len(made["label"]) == 0
        assert isinstance(made["o"], Sparse)


def test_label_rules():
    batch = batch_of(unit=np.eye(5), label=np.array([0, 3, 1, 3, 2]))
    made = Overlay(keys="unit", count=1, label_rule="max")(batch, draws_of(batch))
    parts = [np.flatnonzero(row) for row in made["unit"]]
    assert made["label"].tolist() == [batch["label"][p].max() for p in parts]
    assert made["label"].dtype == np.int64
    made = Overlay(keys="unit", count=1, label_rule="any", classes=4, into="classes")(batch, draws_of(batch))
    assert made["label"].tolist() == batch["label"].tolist()
    assert made["classes"].dtype == np.float32
    assert made["classes"].tolist() == [[float(c in batch["label"][p]) for c in range(4)] for p in parts]
    with pytest.raises(ProcessError, match=r"label must be from 0 to 1, and is 3.* event 11"):
        Overlay(keys="unit", count=1, label_rule="any", classes=2)(batch, draws_of(batch))


def test_pixels_get_the_label_of_the_larger_charge():
    charge = np.array([[[5, 0, 2, 1]], [[1, 3, 2, 0]]], np.float32)
    label = np.array([[[1, 0, 1, 1]], [[2, 2, 2, 0]]], np.int16)
    batch = batch_of(q=charge, mask=label, sq=sparsified(charge))
    # Sites with label: those of the charge.
    batch["smask"] = Sparse(label[charge > 0][:, None], batch["sq"].indices, (1, 4), 2)
    step = Overlay(
        keys=("q", "sq"), count=1, masks={"mask": "q", "smask": "sq"}, origins={"origin": "q", "sorigin": "sq"}
    )
    made = step(batch, draws_of(batch))
    assert made["q"].tolist() == [[[6, 3, 4, 1]], [[6, 3, 4, 1]]]
    assert made["mask"].tolist() == [[[1, 2, 1, 1]], [[1, 2, 2, 1]]]
    assert made["mask"].dtype == np.int16
    assert made["origin"].tolist() == [[[0, 1, 0, 0]], [[1, 0, 0, 1]]]
    assert made["origin"].dtype == np.int32
    for form, key in (("mask", "smask"), ("origin", "sorigin"), ("q", "sq")):
        assert densified(made[key]).tolist() == made[form].tolist()
        assert (made[key].indices == made["sq"].indices).all()


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 6), st.integers(0, 5))
def test_dense_and_sparse_labels_agree(seed, events, count):
    rng = np.random.default_rng(seed)
    charge = (rng.integers(0, 4, (events, 3, 5)) * (rng.random((events, 3, 5)) < 0.5)).astype(np.float32)
    label = rng.integers(1, 9, charge.shape) * (charge > 0)
    batch = batch_of(q=charge, mask=label, sq=sparsified(charge))
    batch["smask"] = Sparse(label[charge > 0][:, None], batch["sq"].indices, (3, 5), events)
    step = Overlay(
        keys=("q", "sq"),
        count=count,
        too_few="fewer",
        masks={"mask": "q", "smask": "sq"},
        origins={"o": "q", "so": "sq"},
    )
    made = step(batch, draws_of(batch))
    for form, key in (("mask", "smask"), ("o", "so"), ("q", "sq")):
        assert densified(made[key]).tolist() == made[form].tolist()
        assert in_order(made[key])


def test_rows_keep_their_labels_and_know_their_origin():
    batch = batch_of(q=jagged([1, 2], [3], []), tag=jagged([7, 8], [9], [], dtype=np.int64))
    made = Overlay(keys="q", count=2, masks={"tag": "q"}, origins={"origin": "q"})(batch, draws_of(batch))
    tags = {1: 7, 2: 8, 3: 9}
    for e in range(3):
        assert made["tag"][e].tolist() == [tags[q] for q in made["q"][e].tolist()]
        own = len(batch["q"][e])
        assert made["origin"][e].tolist()[:own] == [0] * own
        assert set(made["origin"][e].tolist()[own:]) <= {1, 2}
    assert made["origin"].values.dtype == np.int32


def test_sums_keep_their_types_or_are_refused():
    batch = batch_of(
        h=np.full((2, 2), 1, np.float16),
        u=np.full((2, 2), 100, np.uint8),
        q=np.full((2, 2), 2**62),
        d=np.ones((2, 2), ">f8"),
    )
    made = Overlay(keys=("h", "u", "d"), count=1)(batch, draws_of(batch))
    assert [made[key].dtype for key in "hud"] == [np.float32, np.uint8, np.float64]
    assert (made["u"] == 200).all()
    batch["u"] += 50
    with pytest.raises(ProcessError, match=r"key 'u' has 300, which uint8 can't hold.* event 10 of file number 3"):
        Overlay(keys="u", count=1)(batch, draws_of(batch))
    with pytest.raises(ProcessError, match=r"sums of key 'q', dense \(2, 2\) int64, may leave 64 bits"):
        Overlay(keys="q", count=1)(batch, draws_of(batch))


def test_what_can_not_be_overlaid_is_told():
    charge = np.zeros((2, 4), np.float32)
    batch = batch_of(
        q=charge,
        p=padded(np.ones((2, 3)), np.zeros((2, 3))),
        mask=np.zeros((2, 5), np.int64),
        two=Sparse(np.zeros((1, 2), "f4"), np.zeros((1, 2), "i4"), (4,), 2),
    )
    for options, words in [
        ({"keys": "p"}, "key 'p', Padded .* can't be added: overlay before rows are padded"),
        ({"keys": ("q", "p"), "origins": {"o": "p"}}, "can't be added"),
        ({"keys": "q", "masks": {"mask": "q"}}, "key 'mask' must label the pixels, sites or rows of key 'q'"),
        ({"keys": "two", "origins": {"o": "two"}}, "key 'two' must have one feature"),
    ]:
        with pytest.raises(ProcessError, match=words):
            Overlay(count=1, **options)(batch, draws_of(batch))


def test_random_numbers_follow_the_events_that_are_left():
    batch = batch_of(unit=np.eye(6), label=np.array([2, 0, 1, 2, 0, 2]), x=np.zeros((6, 2)))
    remove = Overlay(keys="unit", count=1, sources=2, remove_sources=True)
    jitter = Jitter(coords="x", sigma=1)
    left = Pipeline([remove, jitter])(batch, draws_of(batch))
    alone = Pipeline([lambda batch: batch, jitter])(batch, draws_of(batch))
    assert left["x"].tolist() == alone["x"][[1, 2, 4]].tolist()


def test_an_error_takes_its_place_to_another_process(run_script):
    batch = batch_of(unit=np.eye(3))
    with pytest.raises(ProcessError) as caught:
        Overlay(keys="unit", count=3)(batch, draws_of(batch))
    script = """
        import pickle, sys
        error = pickle.loads(bytes.fromhex(sys.argv[1]))
        print(error.key, error.event, error.file_number, error)
    """
    assert run_script(script, pickle.dumps(caught.value).hex()).strip() == f"unit 10 3 {caught.value}"


def test_another_process_makes_the_same_batch_and_needs_no_torch(run_script):
    overlay = Overlay(keys="x", mean=2, too_few="fewer")
    step = Pipeline([overlay, Jitter(coords="x", sigma=1), MixUp(keys="x", classes=2)])
    batch = batch_of(x=np.arange(8.0).reshape(4, 2))
    expected = step(batch, draws_of(batch))["x"].tobytes().hex()
    script = """
        import pickle, sys
        step, batch, draws = pickle.loads(bytes.fromhex(sys.argv[1]))
        assert "torch" not in sys.modules
        print(step(batch, draws)["x"].tobytes().hex())
    """
    assert run_script(script, pickle.dumps((step, batch, draws_of(batch))).hex()).strip() == expected


@pytest.mark.parametrize("step", [MixUp(keys="x", classes=2), Overlay(keys="x", count=1, masks={"m": "x"})])
def test_steps_are_random_and_survive_a_specification(step):
    assert step.random
    assert Pipeline(Pipeline([step]).to_spec()).steps == [step]


def test_what_came_stays_as_it_was():
    dense, sites = images()
    batch = batch_of(image=dense, sites=sites, mask=dense.astype(np.int64))
    for array in (dense, sites.features, sites.indices, batch["mask"], batch["label"], batch["event"]):
        array.flags.writeable = False
    MixUp(keys=("image", "sites"), classes=2)(batch, draws_of(batch))
    Overlay(keys=("image", "sites"), count=2, masks={"mask": "image"}, label_rule="max")(batch, draws_of(batch))
    assert set(batch) == {"label", "event", "image", "sites", "mask"}


@pytest.mark.parametrize(
    ("step", "options", "words"),
    [
        (MixUp, {"keys": "label"}, "leave them out of keys"),
        (MixUp, {"keys": "x", "alpha": 0}, "alpha must be a finite number above 0"),
        (MixUp, {"keys": "x", "label": "label"}, "label can't be 'label'"),
        (MixUp, {"keys": "x", "classes": 0}, "classes must be 1 or more"),
        (Overlay, {"keys": "x"}, "give either count"),
        (Overlay, {"keys": "x", "count": 1, "mean": 1}, "give either count"),
        (Overlay, {"keys": "x", "count": -1}, "option 'count'"),
        (Overlay, {"keys": "label", "count": 1}, "'label' can't be added up"),
        (Overlay, {"keys": "x", "count": 1, "remove_sources": True}, "remove_sources needs sources"),
        (Overlay, {"keys": "x", "count": 1, "sources": ()}, "sources must be one class or more"),
        (Overlay, {"keys": "x", "count": 1, "label_rule": "any"}, "'any' needs classes"),
        (Overlay, {"keys": "x", "count": 1, "classes": 2}, "'any' needs classes"),
        (Overlay, {"keys": "x", "count": 1, "masks": {"x": "x"}}, "also among keys"),
        (Overlay, {"keys": "x", "count": 1, "masks": {"m": "x"}, "origins": {"m": "x"}}, "masks and origins both"),
        (Overlay, {"keys": "x", "count": 1, "masks": {"m": "y"}}, "must be one of keys"),
        (Overlay, {"keys": "x", "count": 1, "origins": {"event": "x"}}, "origins can't be 'event'"),
    ],
)  # fmt: skip
def test_wrong_options_are_told_when_the_step_is_made(step, options, words):
    with pytest.raises(SpecError, match=words):
        step(**options)
