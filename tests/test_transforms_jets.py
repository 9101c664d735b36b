"""Steps for jets and particles, compared with the plain form of :mod:`hepfeed.reference.jets`."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from step_batches import batch_of, draws_of, jagged, padded, part_of

from hepfeed.errors import KeyMissingError, ProcessError, SpecError
from hepfeed.kinematics import boosted, four_vectors, transverse, wrapped
from hepfeed.pipeline import Pipeline
from hepfeed.reference import jets as reference
from hepfeed.tensors import Jagged
from hepfeed.transforms import Boost, JetCentre, JetFlip, JetRotate

CENTRE, ROTATE, FLIP = JetCentre(particles="jet"), JetRotate(particles="jet"), JetFlip(particles="jet")
TO_REST = Boost(particles="jet", form="pt_eta_phi_m", to_rest=True)
STEPS = [
    CENTRE,
    JetCentre(particles="jet", about="axis"),
    JetCentre(particles="jet", about="hardest"),
    ROTATE,
    JetRotate(particles="jet", to="eta", about="origin"),
    JetRotate(particles="jet", mode="random"),
    FLIP,
    JetFlip(particles="jet", mode="random", axes=("phi",)),
    TO_REST,
    Boost(particles="jet", form="pt_eta_phi_m", beta=(-0.5, 0.5)),
    Boost(particles="jet", form="pt_eta_phi_m", beta=0.3, axis="any"),
]


def jets(lengths=(4, 0, 7, 2, 30), dtype=np.float64):
    """Jets of particles (pt, eta, phi, mass) around axes anywhere, across phi = pi too."""
    rng = np.random.default_rng(2)
    made = []
    for n in lengths:
        eta, phi = rng.uniform(-2, 2), rng.uniform(2.5, 3.8)
        pt = rng.exponential(10, n) + 0.5
        made.append(
            np.column_stack([pt, rng.normal(eta, 0.3, n), wrapped(rng.normal(phi, 0.3, n)), rng.uniform(0, 2, n)])
        )
    return jagged(*made, dtype=dtype, item=(4,))


def constituents(rows):
    return [(float(pt), float(eta), float(phi)) for pt, eta, phi, *_ in rows]


def vectors(rows):
    """Return (E, px, py, pz) of rows (pt, eta, phi, m)."""
    return [tuple(map(float, row)) for row in four_vectors(*np.asarray(rows, float).T)]


def pairs_of_massless(rows):
    """Return m^2 / 2 of all pairs of constituents taken as massless."""
    _, eta, phi, _ = np.asarray(rows, float).T
    pt = np.asarray(rows, float)[:, 0]
    return np.outer(pt, pt) * (np.cosh(eta[:, None] - eta) - np.cos(phi[:, None] - phi))


@pytest.mark.parametrize("step", STEPS, ids=lambda step: type(step).__name__)
class TestEveryStep:
    def test_an_event_gets_the_same_in_any_batch(self, step):
        batch = batch_of(jet=jets())
        whole = step(batch, draws_of(batch))["jet"]
        for events in ([3, 0], [1], [4, 2, 1]):
            part = part_of(batch, events)
            made = step(part, draws_of(part, number=7))["jet"]
            for i, e in enumerate(events):
                assert made[i].tolist() == whole[e].tolist()

    def test_jagged_padded_dense_and_columns_give_the_same(self, step):
        batch = batch_of(jet=jets((3, 1, 2)))
        expected = step(batch, draws_of(batch))["jet"].values
        mask = np.arange(4) < np.array([3, 1, 2])[:, None]
        values = np.zeros((3, 4, 4))
        values[mask] = batch["jet"].values
        both = batch_of(jet=padded(mask, values, "f8"))
        assert step(both, draws_of(both))["jet"].values[mask].tolist() == expected.tolist()
        for pad in (0, -999, np.nan):
            values[~mask] = pad
            dense = batch_of(jet=values)
            made = step(dense, draws_of(dense))["jet"]
            assert made[mask].tolist() == expected.tolist()
            assert np.array_equal(made[~mask], values[~mask], equal_nan=True)
        names = ("m", "phi", "eta", "pt")
        apart = batch_of(
            **{name: Jagged(batch["jet"].values[:, 3 - i], batch["jet"].offsets) for i, name in enumerate(names)}
        )
        columns = (3, 2, 1, 0) if isinstance(step, Boost) else (3, 2, 1)
        split = type(step)(**{**step.model_dump(exclude_defaults=True), "particles": names, "columns": columns})
        made = split(apart, draws_of(apart))
        assert np.column_stack([made[name].values for name in reversed(names)]).tolist() == expected.tolist()

    def test_what_came_stays_and_empty_batches_go_through(self, step):
        batch = batch_of(jet=jets())
        batch["jet"].values.flags.writeable = False
        step(batch, draws_of(batch))
        for lengths in ((0, 0), (0,)):
            empty = batch_of(jet=jets(lengths))
            assert step(empty, draws_of(empty))["jet"].values.shape == (0, 4)
        none = batch_of(jet=Jagged(np.zeros((0, 4)), np.zeros(1, np.int64)))
        assert step(none, draws_of(none))["jet"].events == 0

    def test_it_survives_a_specification(self, step):
        assert Pipeline(Pipeline([step]).to_spec()).steps == [step]
        assert step.random == (getattr(step, "mode", "") == "random" or getattr(step, "beta", None) is not None)

    def test_float32_stays_and_phi_is_wrapped(self, step):
        batch = batch_of(jet=jets(dtype=np.float32))
        made = step(batch, draws_of(batch))["jet"].values
        assert made.dtype == np.float32
        exact = batch_of(jet=jets())
        expected = step(exact, draws_of(exact))["jet"].values
        assert made == pytest.approx(expected, rel=1e-3, abs=1e-4)
        assert (expected[:, 2] >= -np.pi).all()
        assert (expected[:, 2] < np.pi).all()


# ---- centre


@pytest.mark.parametrize(("about", "twin"), [("centroid", reference.centroid), ("axis", reference.jet_axis)])
def test_centres_are_those_of_the_plain_form(about, twin):
    batch = batch_of(jet=jets())
    made = JetCentre(particles="jet", about=about)(batch, draws_of(batch))["jet"]
    for e in (0, 2, 3, 4):
        eta, phi = twin(constituents(batch["jet"][e]))
        assert made[e][:, 1] == pytest.approx(batch["jet"][e][:, 1] - eta, abs=1e-12)
        assert made[e][:, 2] == pytest.approx([reference.wrap(x - phi) for x in batch["jet"][e][:, 2]], abs=1e-12)
        assert made[e][:, [0, 3]].tolist() == batch["jet"][e][:, [0, 3]].tolist()


def test_a_jet_across_pi_is_centred_by_hand():
    # pt 1 at phi = pi - 0.1 and pt 3 at -pi + 0.1: the mean lies 0.05 beyond pi.
    batch = batch_of(jet=jagged([[1, 0.4, np.pi - 0.1], [3, 0.8, 0.1 - np.pi]], dtype="f8", item=(3,)))
    made = CENTRE(batch, draws_of(batch))["jet"].values
    assert made == pytest.approx(np.array([[1, -0.3, -0.15], [3, 0.1, 0.05]]), abs=1e-3)
    made = JetCentre(particles="jet", about="hardest")(batch, draws_of(batch))["jet"].values
    assert made == pytest.approx(np.array([[1, -0.4, -0.2], [3, 0, 0]]), abs=1e-12)


def test_centring_keeps_invariant_masses_of_massless_pairs():
    batch = batch_of(jet=jets((6,)))
    for about in ("centroid", "axis", "hardest"):
        made = JetCentre(particles="jet", about=about)(batch, draws_of(batch))["jet"]
        assert pairs_of_massless(made[0]) == pytest.approx(pairs_of_massless(batch["jet"][0]), rel=1e-9, abs=1e-9)


# ---- rotate


def test_the_principal_axis_gets_its_direction():
    batch = batch_of(jet=jets())
    centred = CENTRE(batch, draws_of(batch))
    for to, angle in (("phi", math.pi / 2), ("eta", 0.0)):
        made = JetRotate(particles="jet", to=to)(centred, draws_of(batch))["jet"]
        for e in (0, 2, 3, 4):
            turn = angle - reference.principal_angle(constituents(centred["jet"][e]))
            pt, eta, phi, _ = centred["jet"][e].T
            assert made[e][:, 1] == pytest.approx(np.cos(turn) * eta - np.sin(turn) * phi, abs=1e-9)
            assert made[e][:, 2] == pytest.approx(np.sin(turn) * eta + np.cos(turn) * phi, abs=1e-9)
            after = reference.principal_angle(constituents(made[e]))
            assert abs(math.sin(after - angle)) < 1e-6
            assert made[e][:, 0].tolist() == pt.tolist()


def test_a_jet_turns_about_its_centroid_or_the_origin():
    rows = [[1, 0, 1], [1, 2, 1]]
    batch = batch_of(jet=jagged(rows, dtype="f8", item=(3,)))
    made = ROTATE(batch, draws_of(batch))["jet"].values
    assert made == pytest.approx(np.array([[1, 1, 0], [1, 1, 2]]), abs=1e-12)
    # About the origin: M_ee = 4, M_pp = 2, M_ep = 2, so tan 2a = 2.
    made = JetRotate(particles="jet", to="eta", about="origin")(batch, draws_of(batch))["jet"].values
    turn = -math.atan2(4, 2) / 2
    expected = [
        [1, -math.sin(turn), math.cos(turn)],
        [1, 2 * math.cos(turn) - math.sin(turn), 2 * math.sin(turn) + math.cos(turn)],
    ]
    assert made == pytest.approx(np.array(expected), abs=1e-12)


def test_jets_without_a_principal_axis_stay():
    round_jet = [[2, 1, 0], [2, -1, 0], [2, 0, 1], [2, 0, -1]]
    batch = batch_of(jet=jagged([[5, 0.3, 0.2]], round_jet, [[0, 1, 1]], dtype="f8", item=(3,)))
    made = ROTATE(batch, draws_of(batch))["jet"].values
    assert made == pytest.approx(batch["jet"].values, abs=1e-12)


def test_random_turns_keep_distances_and_cover_the_circle():
    batch = batch_of(jet=jagged(*([[[1, -0.3, 0], [1, 0.3, 0]]] * 1000), dtype="f8", item=(3,)))
    made = JetRotate(particles="jet", mode="random")(batch, draws_of(batch))["jet"].values.reshape(1000, 2, 3)
    x, y = (made[:, 1] - made[:, 0])[:, 1:].T
    assert np.hypot(x, y) == pytest.approx(np.full(1000, 0.6))
    assert np.abs(np.sort(np.arctan2(y, x)) - 2 * np.pi * ((np.arange(1000) + 0.5) / 1000 - 0.5)).max() < 0.4


# ---- flip


def test_the_harder_half_comes_to_the_positive_side():
    rows = [[3, -1, 1], [1, 1, 0.5], [1, 0.5, -0.9]]  # sum of pt: eta -3 +2, phi +4 -1
    batch = batch_of(jet=jagged(rows, dtype="f8", item=(3,)))
    made = JetFlip(particles="jet", about="origin")(batch, draws_of(batch))["jet"].values
    assert made.tolist() == [[3, 1, 1], [1, -1, 0.5], [1, -0.5, -0.9]]
    made = JetFlip(particles="jet", about="origin", axes=("phi",))(batch, draws_of(batch))["jet"].values
    assert made.tolist() == rows


def test_a_jet_and_its_mirror_images_become_the_same():
    centred = CENTRE(batch_of(jet=jets((9,))), draws_of(batch_of(jet=jets((9,)))))
    found = []
    for eta in (1, -1):
        for phi in (1, -1):
            rows = centred["jet"][0] * [1, eta, phi, 1]
            batch = batch_of(jet=jagged(rows, dtype="f8", item=(4,)))
            for about in ("origin", "centroid"):
                found.append(JetFlip(particles="jet", about=about)(batch, draws_of(batch))["jet"].values)
    for each in found[1:]:
        assert each == pytest.approx(found[0], abs=1e-9)
    assert pairs_of_massless(found[0]) == pytest.approx(pairs_of_massless(centred["jet"][0]), abs=1e-9)


def test_random_flips_have_their_probability():
    batch = batch_of(jet=jagged(*([[[1, 0.5, 0.5]]] * 2000), dtype="f8", item=(3,)))
    step = JetFlip(particles="jet", mode="random", probability=0.2, about="origin")
    made = step(batch, draws_of(batch))["jet"].values
    assert (made[:, 1] < 0).mean() == pytest.approx(0.2, abs=0.03)
    assert (made[:, 2] < 0).mean() == pytest.approx(0.2, abs=0.03)
    assert ((made[:, 1] < 0) & (made[:, 2] < 0)).mean() == pytest.approx(0.04, abs=0.02)


# ---- boost


def test_a_particle_at_rest_gets_the_velocity():
    batch = batch_of(p=jagged([[2, 0, 0, 0]], dtype="f8", item=(4,)))
    made = Boost(particles="p", beta=0.6, axis="x")(batch, draws_of(batch))["p"].values
    assert made == pytest.approx(np.array([[2.5, 1.5, 0, 0]]))  # gamma = 1.25
    made = Boost(particles="p", beta=-0.6)(batch, draws_of(batch))["p"].values
    assert made == pytest.approx(np.array([[2.5, 0, 0, -1.5]]))


beta = st.floats(-0.55, 0.55)
component = st.floats(-50, 50)


@given(st.tuples(beta, beta, beta), st.tuples(component, component, component), st.floats(0, 50))
def test_boosts_are_those_of_the_plain_form_and_keep_masses(beta, momentum, mass):
    particle = (math.hypot(mass, *momentum), *momentum)
    made = boosted(np.array([particle]), np.array([beta]))[0]
    assert made == pytest.approx(reference.boost(particle, beta), rel=1e-9, abs=1e-9)
    squared = made[0] ** 2 - made[1:] @ made[1:]
    assert squared == pytest.approx(mass**2, rel=1e-9, abs=1e-9 * particle[0] ** 2 + 1e-12)
    back = boosted(made[None], -np.array([beta]))[0]
    assert back == pytest.approx(particle, rel=1e-9, abs=1e-9)


def test_both_forms_of_momenta_are_boosted_alike():
    batch = batch_of(jet=jets())
    same = batch_of(jet=Jagged(four_vectors(*batch["jet"].values.T), batch["jet"].offsets))
    for options in (
        {"beta": 0.7},
        {"beta": (-0.9, 0.9), "axis": "any"},
        {"to_rest": True},
        {"beta": -0.2, "axis": "y"},
    ):
        given = Boost(particles="jet", form="pt_eta_phi_m", **options)(batch, draws_of(batch))["jet"]
        made = Boost(particles="jet", **options)(same, draws_of(same))["jet"]
        assert four_vectors(*given.values.T) == pytest.approx(made.values, rel=1e-9, abs=1e-9)
        assert given.values[:, 3].tolist() == batch["jet"].values[:, 3].tolist()
        for e in (0, 2, 4):
            before = reference.invariant_mass(vectors(batch["jet"][e]))
            assert reference.invariant_mass(vectors(given[e])) == pytest.approx(before, rel=1e-9)


def test_a_boost_along_the_beam_shifts_rapidity_only():
    batch = batch_of(jet=jets((5,)))
    made = Boost(particles="jet", form="pt_eta_phi_m", beta=0.5)(batch, draws_of(batch))["jet"].values
    assert made[:, [0, 2, 3]] == pytest.approx(batch["jet"].values[:, [0, 2, 3]], abs=1e-12)

    def rapidity(rows):
        energy, _, _, pz = four_vectors(*rows.T).T
        return np.arctanh(pz / energy)

    assert rapidity(made) - rapidity(batch["jet"].values) == pytest.approx(np.full(5, math.atanh(0.5)))


def test_in_the_rest_frame_momenta_add_up_to_nothing():
    batch = batch_of(jet=jets())
    made = TO_REST(batch, draws_of(batch))["jet"]
    for e in (0, 2, 3, 4):
        total = np.sum(vectors(made[e]), axis=0)
        mass = reference.invariant_mass(vectors(batch["jet"][e]))
        assert total == pytest.approx([mass, 0, 0, 0], rel=1e-9, abs=1e-9 * mass)


def test_random_velocities_are_within_their_limits_and_of_every_direction():
    batch = batch_of(p=jagged(*([[[1, 0, 0, 0]]] * 2000), dtype="f8", item=(4,)))
    made = Boost(particles="p", beta=(0.2, 0.4), axis="any")(batch, draws_of(batch))["p"].values
    velocity = made[:, 1:] / made[:, :1]
    size = np.linalg.norm(velocity, axis=1)
    assert np.abs(np.sort(size) - (0.2 + 0.2 * (np.arange(2000) + 0.5) / 2000)).max() < 0.01
    for axis in range(3):
        cosine = np.sort(velocity[:, axis] / size)
        assert np.abs(cosine - (2 * (np.arange(2000) + 0.5) / 2000 - 1)).max() < 0.1


def test_without_a_rest_frame_or_a_pseudorapidity_the_event_is_named():
    batch = batch_of(p=jagged([[2, 0, 0, 1]], [[1, 0, 0, 1]], dtype="f8", item=(4,)))
    with pytest.raises(ProcessError, match=r"rest frame, .*1.0 is not above.* event 11 of file number 3") as caught:
        Boost(particles="p", to_rest=True)(batch, draws_of(batch))
    assert (caught.value.key, caught.value.event, caught.value.file_number) == ("p", 11, 3)
    still = batch_of(p=jagged([[1, 0, 0, 1]], [[0, 0.5, 0.5, 2]], dtype="f8", item=(4,)))
    with pytest.raises(ProcessError, match=r"no finite pseudorapidity after the boost.* event 11"):
        Boost(particles="p", form="pt_eta_phi_m", beta=0.5)(still, draws_of(still))
    nothing = batch_of(p=jagged([[0, 0.5, 0.25, 0]], dtype="f8", item=(4,)))
    made = Boost(particles="p", form="pt_eta_phi_m", beta=0.5)(nothing, draws_of(nothing))["p"].values
    assert made.tolist() == [[0, 0.5, 0.25, 0]]


# ---- kinematics and options


@given(st.floats(-1e3, 1e3))
def test_angles_are_wrapped_to_one_turn(phi):
    made = float(wrapped(phi))
    assert -math.pi <= made < math.pi
    assert math.sin(made - phi) == pytest.approx(0, abs=1e-9)
    assert math.cos(made - phi) == pytest.approx(1)


def test_the_ends_of_the_turn_are_one():
    assert wrapped(np.array([math.pi, -math.pi, 3 * math.pi, 0.0])).tolist() == [-math.pi, -math.pi, -math.pi, 0]


def test_transverse_momenta_and_four_vectors_are_inverse():
    rows = jets((50,)).values
    pt, eta, phi = transverse(four_vectors(*rows.T))
    assert np.column_stack([pt, eta, phi]) == pytest.approx(rows[:, :3], rel=1e-9, abs=1e-12)
    # A hand-worked one: pt 3, eta 0, phi pi / 2, m 4.
    assert four_vectors([3], [0], [math.pi / 2], [4]) == pytest.approx(np.array([[5, 0, 3, 0]]), abs=1e-12)


@pytest.mark.parametrize(
    ("step", "options", "words"),
    [
        (JetCentre, {"columns": (0, 1, 1)}, "columns must be different numbers, 0 or more, of pt, eta and phi"),
        (JetCentre, {"particles": ("pt", "eta")}, "are not among the 2 keys"),
        (JetCentre, {"about": "maximum"}, "option 'about'"),
        (JetRotate, {"columns": (-1, 0, 1)}, "columns must be different numbers"),
        (JetFlip, {"axes": ()}, "axes must be 'eta', 'phi' or both"),
        (JetFlip, {"probability": 0.5}, "for mode='random' only"),
        (JetFlip, {"probability": 2, "mode": "random"}, "from 0 to 1"),
        (Boost, {}, "give either beta or to_rest=True"),
        (Boost, {"beta": 0.5, "to_rest": True}, "give either beta or to_rest=True"),
        (Boost, {"beta": 1}, "beta must be between -1 and 1"),
        (Boost, {"beta": (0.5, 0.2)}, "beta must be between -1 and 1"),
        (Boost, {"to_rest": True, "axis": "x"}, "has no meaning with to_rest=True"),
    ],
)  # fmt: skip
def test_wrong_options_are_told_when_the_step_is_made(step, options, words):
    with pytest.raises(SpecError, match=words):
        step(**{"particles": "jet", **options})


def test_wrong_particles_are_told_with_their_event():
    batch = batch_of(jet=jagged([[1, 0, 0]], [[1, 0, 0], [-2, 0, 0]], item=(3,)), image=np.zeros(2))
    with pytest.raises(ProcessError, match=r"'jet' must have pt >= 0.*\(-2.0, 0.0, 0.0\).* event 11 of file number 3"):
        CENTRE(batch, draws_of(batch))
    with pytest.raises(ProcessError, match=r"columns \(0, 1, 3\) are not within the 3 numbers"):
        JetFlip(particles="jet", columns=(0, 1, 3))(batch, draws_of(batch))
    dense = batch_of(jet=np.zeros((2, 4, 3)))
    with pytest.raises(ProcessError, match=r"columns \(3, 1, 2\) are not within the 3 numbers"):
        JetFlip(particles="jet", columns=(3, 1, 2))(dense, draws_of(dense))
    with pytest.raises(ProcessError, match="not within the 3 numbers"):
        Boost(particles="jet", columns=(3, 1, 2, 0), beta=0.1)(dense, draws_of(dense))
    with pytest.raises(ProcessError, match="key 'image' must hold vectors"):
        JetCentre(particles="image")(batch, draws_of(batch))
    with pytest.raises(KeyMissingError, match="no key 'jets' at this step: did you mean 'jet'"):
        JetCentre(particles="jets")(batch, draws_of(batch))
    nan = batch_of(jet=jagged([[1, np.nan, 0]], item=(3,)))
    with pytest.raises(ProcessError, match="finite eta and phi"):
        ROTATE(nan, draws_of(nan))
