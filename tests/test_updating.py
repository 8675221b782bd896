"""An update learns what is new, keeps what is old, and leaves the model before it as it was."""

from dataclasses import replace
from datetime import timedelta

import jax
import numpy as np
import polars as pl
import pytest
from flax import nnx

from interestkit import updating
from interestkit.colditems import with_new_items
from interestkit.enlarging import _room, grown_weights
from interestkit.examples import TrainingConfig, item_content
from interestkit.features import fit_features
from interestkit.growing import grow_features
from interestkit.linear import add_linear_part
from interestkit.losses import LOSSES
from interestkit.modalities import Modality
from interestkit.packing import by_name
from interestkit.prediction import Predictor
from interestkit.simulation import simulate
from interestkit.training import fit, train_epoch
from interestkit.updating import _between, _moments, _steps, update

LOG = simulate(num_users=60, num_items=40, num_interests=4, num_bots=0, faults=0, seed=3)
OLD, NEW = LOG.events[:2000], LOG.events[2000:]
QUICK = TrainingConfig(epochs=1, examples_per_epoch=64, batch_size=32, num_targets=4)
SHAPE = {"item_dim": 4, "hidden": (8,), "history_length": 8, "repeat_length": 8}


@pytest.fixture(scope="module")
def before():
    features = fit_features(OLD, LOG.items)
    known = features.histories(OLD)
    result = fit(features, known, config=QUICK, progress=False, **SHAPE)
    return Predictor(features=features, model=result.model)


def arrays(predictor):
    state = nnx.split(predictor.model)[1]
    return {name: np.array(leaf) for name, leaf in by_name(state).items()}


def updated(predictor, **options):
    given = {"past": OLD, "config": QUICK, "progress": False} | options
    return update(predictor, NEW, LOG.items, **given)


OPERA = pl.DataFrame(
    {"item": ["tosca"], "title": ["Tosca"], "interests": [["opera"]]}, schema=LOG.items.schema
)


def update_with_opera(predictor, **more):
    """A new item with a new interest, had by somebody without a history: nothing is trained."""
    items = pl.concat([LOG.items, OPERA])
    strangers = NEW[:5].with_columns(item=pl.lit("tosca"), user=pl.lit("who is new"))
    strangers = strangers.unique("time")[:1]
    return update(predictor, strangers, items, progress=False, min_item_events=1, **more)


def test_same_seed_same_weights_and_the_model_before_is_untouched(before):
    kept = arrays(before)
    first, second, other = (updated(before, seed=seed) for seed in (0, 0, 1))
    same, different = (arrays(each.predictor) for each in (second, other))
    for name, array in arrays(first.predictor).items():
        np.testing.assert_array_equal(array, same[name])
        np.testing.assert_array_equal(arrays(before)[name], kept[name])
    assert any((array != different[name]).any() for name, array in same.items())
    assert before.features.fitted_until == OLD["time"].max()


def test_result_says_what_is_new_and_ranks_it(before):
    found = updated(before)
    features = found.predictor.features
    assert found.new_items == tuple(features.items["item"][before.features.num_items :])
    assert len(found.curve) == 1
    assert found.curve["loss_new"].is_finite().all()
    codes, _ = found.predictor.rank(features.histories(LOG.events), k=features.num_items)
    assert set(np.flatnonzero(features.is_candidate)) <= set(codes.ravel())


def test_room_behind_the_items_changes_no_prediction(before):
    """A learning rate of almost nothing leaves the grown weights: padding came and went."""
    found = updated(before, config=replace(QUICK, learning_rate=1e-30, weight_decay=0.0))
    features = grow_features(before.features, NEW, LOG.items, past=OLD)
    expected = replace(before.model.config, num_items=features.num_items)
    assert found.predictor.model.config == expected
    own = arrays(found.predictor)
    for name, array in arrays(before).items():
        rows = tuple(slice(size) for size in array.shape)
        np.testing.assert_allclose(own[name][rows], array, rtol=0, atol=1e-20)


def test_room_for_more_interests_changes_no_loss(monkeypatch):
    features = fit_features(OLD, LOG.items)
    shape = SHAPE | {"dropout": 0.0, "event_dropout": 0.0}
    model = fit(features, features.histories(OLD), config=QUICK, progress=False, **shape).model
    before = Predictor(features=features, model=model)
    with_room = updated(before)
    monkeypatch.setattr(updating, "with_room", lambda shape, _: shape)
    without = updated(before)
    assert features.num_interests % 8
    for name in LOSSES:
        assert with_room.curve[name].to_list() == pytest.approx(without.curve[name].to_list(), 1e-5)


def test_moments_are_all_new_ones_and_the_share_of_old_ones_that_was_asked_for(before):
    known = before.features.histories(LOG.events)
    last = int(before.features.seconds(OLD["time"])[-1])
    for replay in (0.0, 0.25, 0.5):
        kept, (new, old) = _moments(known, last, replay, seed=0)
        later = known.seconds > last
        begins = known.starts_moment.copy()
        begins[known.begins] = False
        assert new == (begins & later).sum() == (kept & later).sum()
        assert old == round(new * replay / (1 - replay)) == (kept & ~later).sum()
        assert not (kept & ~begins).any()


def test_new_interest_gets_a_row_and_column_and_the_old_ones_stay(before):
    found = update_with_opera(before)
    assert (found.new_items, found.new_interests) == (("tosca",), ("opera",))
    features = found.predictor.features
    known, old = features.histories(OLD), before.features.histories(OLD)
    shares = found.predictor.interests(known)
    np.testing.assert_allclose(shares.sum(axis=1), 1, rtol=1e-5)
    kept = shares[:, :-1] / shares[:, :-1].sum(axis=1, keepdims=True)
    np.testing.assert_allclose(kept, before.interests(old), rtol=0.05, atol=0.02)
    own, weights = arrays(found.predictor), arrays(before)
    name = "interest_correction.kernel.value"
    np.testing.assert_allclose(own[name][:, -1], weights[name].mean(axis=1), rtol=1e-5)
    name = "content.kernel.value"  # labels stand behind the content vector
    first = before.features.content.shape[1]
    np.testing.assert_allclose(own[name][-1], weights[name][first:].mean(axis=0), rtol=1e-5)


def test_a_new_interest_stands_before_the_modalities_whose_weights_stay():
    vectors = np.random.default_rng(0).normal(size=(len(LOG.items), 3)).astype(np.float32)
    picture = Modality(name="picture", items=LOG.items["item"], vectors=vectors, encoder="drawn")
    features = fit_features(OLD, LOG.items, modalities=[picture])
    model = fit(features, features.histories(OLD), config=QUICK, progress=False, **SHAPE).model
    before = Predictor(features=features, model=model)
    tosca = replace(picture, items=pl.Series(["tosca"]), vectors=np.array([[3, 2, 1]], np.float32))
    found = update_with_opera(before, modalities=[tosca])
    (grown,), (old,) = found.predictor.features.modalities, features.modalities
    vector = np.array([3, 2, 1]) / np.sqrt(14) - old.centre
    np.testing.assert_allclose(grown.vectors[-1], vector / np.linalg.norm(vector), rtol=1e-5)
    (missing,) = update_with_opera(before).predictor.features.modalities
    assert not missing.vectors[-1].any()
    own, start = (arrays(each)["content.kernel.value"] for each in (found.predictor, before))
    np.testing.assert_array_equal(own[-3:], start[-3:])
    labels = start[features.content.shape[1] : -3]
    np.testing.assert_allclose(own[-4], labels.mean(axis=0), rtol=1e-5)
    blocks = features.content.shape[1] + features.num_interests + 1, 3
    assert found.predictor.model.config.content_blocks == blocks
    known = found.predictor.features.histories(OLD)
    assert np.isfinite(found.predictor.interests(known)).all()


def test_weights_of_new_items_are_those_of_a_ridge_regression_on_the_known_ones(before):
    features = grow_features(before.features, NEW, LOG.items, past=OLD, min_item_events=1)
    new = before.features.num_items
    assert features.num_items > new
    grown = grown_weights(before, features)["item_vectors"]
    events = np.log1p(features.items["events"].to_numpy())
    given = np.column_stack([item_content(features), events, np.ones(len(events))])
    rows = np.concatenate([given[:new], np.sqrt(10) * np.eye(given.shape[1])])
    own = np.concatenate([grown[:new], np.zeros((given.shape[1], grown.shape[1]))])
    expected = given[new:] @ np.linalg.lstsq(rows, own)[0]
    np.testing.assert_allclose(grown[new:], expected, rtol=1e-4, atol=1e-6)


def test_weights_go_as_far_as_the_root_of_the_share_of_new_events(before):
    old = before.features
    features = grow_features(old, NEW, LOG.items, past=OLD, min_item_events=1)
    of_all, of_items, of_interests = _steps(old, features)
    item = features.items.row(0, named=True)
    fresh = (NEW["item"] == item["item"]).sum()
    assert of_items[0] == pytest.approx((fresh / item["events"]) ** 0.5)
    assert (of_items[old.num_items :] == 1).all()
    total, known = features.items["events"].sum(), old.items["events"].sum()
    assert of_all == pytest.approx(((total - known) / total) ** 0.5)
    start = grown_weights(before, features)
    end = jax.tree.map(lambda array: array + 1, start)
    found = _between(start, end, (of_all, of_items, of_interests))
    moved = {name: array - start[name] for name, array in found.items()}
    np.testing.assert_allclose(moved.pop("item_bias"), of_items, rtol=1e-4, atol=1e-6)
    for name in set(moved) - {"item_vectors", "repeat_item_bias"}:
        np.testing.assert_allclose(moved[name], of_all, rtol=1e-4, atol=1e-6)


def test_items_that_nobody_has_touched_yet_keep_their_weights(before):
    wide = with_new_items(before, OPERA)
    found = updated(wide).predictor
    place = before.features.num_items
    assert found.features.items["events"][place] == 0
    kept, start = (np.asarray(each.model.item_bias[...])[place] for each in (found, wide))
    assert kept == start
    codes, scores = found.rank(found.features.histories(LOG.events), k=5)
    assert (codes >= 0).all()
    assert np.isfinite(scores).all()


def test_linear_part_grows_by_zeros(before):
    wide = add_linear_part(before, before.features.histories(OLD), weight=1.0)
    found = updated(wide).predictor
    size = before.features.num_items
    np.testing.assert_array_equal(found.linear[:size, :size], wide.linear)
    assert not found.linear[size:].any()


def test_users_without_a_past_leave_the_weights_as_they_are(before):
    alone = NEW[:1].with_columns(user=NEW["user"][:1] + " who is new")
    found = update(before, alone, LOG.items, past=OLD, config=QUICK, progress=False)
    assert (found.num_moments, found.num_replayed, len(found.curve)) == (0, 0, 0)
    own = arrays(found.predictor)
    for name, array in arrays(before).items():
        np.testing.assert_array_equal(own[name], array)


def test_next_update_compiles_no_epoch(before):
    half = len(NEW) // 2
    first = update(before, NEW[:half], LOG.items, past=OLD, config=QUICK, progress=False)
    programs = train_epoch._cache_size()
    past = LOG.events[: 2000 + half]
    late = NEW[half:].filter(NEW["time"][half:] > first.predictor.features.fitted_until)
    past = past.filter(past["time"] <= first.predictor.features.fitted_until)
    late = late.with_columns(item=pl.concat([pl.Series(["tosca"] * 5), late["item"][5:]]))
    items = pl.concat([LOG.items, OPERA])
    second = update(first.predictor, late, items, past=past, config=QUICK, progress=False)
    assert second.num_moments > 0
    assert second.new_interests == ("opera",)
    assert train_epoch._cache_size() == programs


def test_room_is_a_quarter_at_most_of_a_power_of_two():
    assert [_room(n, 64) for n in (1, 64, 65, 1000, 1025)] == [64, 64, 128, 1024, 1536]
    assert [_room(n, 8) for n in (3, 8, 289)] == [8, 8, 384]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"replay": 1.0}, r"replay must be in \[0, 1\)"),
        ({"config": TrainingConfig(task="hidden")}, "task must be 'next'"),
        ({"until": OLD["time"].max() - timedelta(days=1)}, "until must be after"),
    ],
)
def test_wrong_settings_are_named(before, options, message):
    with pytest.raises(ValueError, match=message):
        updated(before, **options)


def test_divergence_is_an_error(before):
    with pytest.raises(FloatingPointError, match="epoch 1 of the update"):
        updated(before, config=replace(QUICK, learning_rate=1e30))
    assert all(np.isfinite(array).all() for array in arrays(before).values())
