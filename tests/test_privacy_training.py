"""Private training: what it sees of users is what its card says, and it runs as a whole."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from zoneinfo import ZoneInfo

import jax
import jax.numpy as jnp
import numpy as np
import polars as pl
import pytest
from flax import nnx

import interestkit as ik
from interestkit.examples import find_examples
from interestkit.privacy import learning
from interestkit.privacy.stepping import Parts, clipped_sum, mean_of, select_users
from interestkit.privacy.training import (
    PRIVATE,
    _not_covered,
    fit_private,
    private_features,
    public_features,
    secret_key,
)

SINCE, UNTIL = datetime(2024, 1, 1, tzinfo=UTC), datetime(2024, 5, 1, tzinfo=UTC)
PERIOD = {"since": SINCE, "until": UNTIL}
CONFIG = replace(PRIVATE, epochs=2, examples_per_epoch=40, batch_size=20, num_targets=4)
SETTINGS = {
    "config": CONFIG,
    "moments_per_user": 2,
    "progress": False,
    "item_dim": 4,
    "hidden": (8,),
    "history_length": 8,
    "repeat_length": 8,
    "can_repeat": False,  # compiles sooner
}


@pytest.fixture(scope="module")
def log():
    return ik.simulate(num_users=60, num_items=30, num_bots=0, faults=0, events_per_user=12)


@pytest.fixture(scope="module")
def made(log):
    features, counts = private_features(log.events, log.items, **PERIOD, seed=0)
    histories = features.histories(log.events)
    return features, histories, counts


@pytest.fixture(scope="module")
def fit(made):
    features, histories, counts = made
    return fit_private(features, histories, released=[counts], epsilon=8.0, seed=0, **SETTINGS)


def test_before_the_first_step_new_items_rank_by_noisy_counts(log, made, fit):
    features, histories, _ = made
    world = learning.make_world(features, histories, fit.setting.shape, CONFIG.num_sampled)
    begun = learning.begin(fit.setting, jax.random.key(0))
    model = ik.Predictor(
        features=features, model=learning.finished(fit.setting, begun.params, world)
    )
    moment = pl.DataFrame({"user": ["new"], "time": [UNTIL]})
    codes, _ = model.rank(features.histories(log.events.clear(), moments=moment), k=6)
    counts = np.where(features.is_candidate, features.popularity[0, 0], -1.0)
    np.testing.assert_array_equal(counts[codes[0]], np.sort(counts)[::-1][:6])


def weights(model):
    return [np.asarray(leaf) for leaf in jax.tree.leaves(nnx.state(model, nnx.Param))]


def test_a_private_model_ranks_and_says_interests(made, fit):
    features, histories, _ = made
    model = ik.Predictor(features=features, model=fit.model)
    codes, _ = model.rank(histories, k=3)
    assert codes.shape == (len(histories), 3)
    np.testing.assert_allclose(model.interests(histories).sum(axis=1), 1.0, rtol=1e-5)


def test_the_card_has_the_steps_that_were_taken_and_what_was_released(made, fit):
    assert fit.steps == fit.card.steps == 4
    assert fit.card.released == (made[2],)
    assert fit.card.num_users == len(find_examples(made[1]).start)
    assert "those who know the seed, 0" in fit.card.not_covered[0]
    assert fit.card.epsilon <= 8.0


def test_the_same_seed_gives_the_same_weights_and_another_one_others(made, fit):
    again, other = (
        fit_private(*made[:2], released=[made[2]], epsilon=8.0, seed=seed, **SETTINGS)
        for seed in (0, 1)
    )
    pairs = list(zip(weights(fit.model), weights(again.model), strict=True))
    assert all(np.array_equal(one, two) for one, two in pairs)
    pairs = zip(weights(fit.model), weights(other.model), strict=True)
    assert not all(np.array_equal(one, two) for one, two in pairs)


def test_tables_of_items_stay_as_they_began(fit):
    assert not np.any(np.asarray(fit.model.item_vectors[...]))
    assert not np.any(np.asarray(fit.model.item_bias[...]))
    assert np.any(np.asarray(fit.model.tower.layers[0].kernel[...]))


def test_a_user_who_is_left_out_changes_nothing(made, fit):
    """Who is not included leaves no trace, whatever their events are."""
    features, histories, _ = made
    setting, plan = fit.setting, fit.card.plan
    included = np.arange(fit.card.num_users) != 3
    worlds = []
    for shift in (0, 1):
        examples = find_examples(histories)  # of those who have something to learn from
        start, stop = examples.start[3], examples.stop[3]
        item = histories.item.copy()
        item[start:stop] = (item[start:stop] + shift) % features.num_items
        own = replace(histories, item=item)
        worlds.append(learning.make_world(features, own, setting.shape, CONFIG.num_sampled))
    states = [
        learning.epoch(
            Parts(),
            setting,
            plan,
            1e-3,
            learning.begin(setting, jax.random.key(0)),
            world,
            included,
        )
        for world in worlds
    ]
    for one, other in zip(*(jax.tree.leaves(state.params) for state in states), strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_users_gradient_is_clipped_as_a_whole():
    def loss(params, user, bits, _):
        return (params["a"] * jnp.where(user == 0, 3.0, 0.03) + 0 * bits[0]).sum()

    users, bits = jnp.array([0, 1, 1]), jnp.zeros((3, 1), jnp.uint32)
    empty = jnp.array([False, False, True])
    total = clipped_sum(loss, 0.5)({"a": jnp.zeros(4)}, users, bits, None, empty)
    # user 0 has a gradient of length 6, clipped to 0.5; user 1 one of 0.06, as it is; once
    np.testing.assert_allclose(total["a"], np.full(4, 0.25 + 0.03), rtol=1e-6)


def test_users_are_drawn_by_themselves():
    keys = jax.random.split(jax.random.key(0), 2000)
    included = np.arange(50) != 7
    users, empty = jax.vmap(lambda key: select_users(key, included, 50, 0.2))(keys)
    counts = np.bincount(np.asarray(users)[~np.asarray(empty)], minlength=50)
    assert counts[7] == 0
    expected = 2000 * 0.2
    assert np.abs(counts[included] - expected).max() < 5 * np.sqrt(expected * 0.8)
    sizes = (~np.asarray(empty)).sum(axis=1)
    np.testing.assert_allclose(sizes.var(), 49 * 0.2 * 0.8, rtol=0.15)


def test_the_mean_is_over_the_expected_number_of_users():
    np.testing.assert_allclose(mean_of({"a": np.array([8.0])}, 4.0)["a"], [2.0])


def test_keys_from_the_operating_system_differ():
    one, other = (np.asarray(jax.random.key_data(secret_key(None))) for _ in range(2))
    assert (one != other).any()


def test_public_features_know_no_user(log):
    features = public_features(log.items, **PERIOD)
    assert features.items["events"].sum() == 0
    assert not features.popularity.any()
    assert features.items["item"].is_sorted()
    assert features.scales_days == pytest.approx(np.array([1 / 50, 1 / 12, 1]) * 121)


def test_counts_have_the_noise_that_is_promised():
    items = pl.DataFrame(
        {"item": [f"{n:04d}" for n in range(2000)], "title": "a", "interests": "x"}
    )
    items = items.with_columns(pl.concat_list("interests"))
    one = pl.DataFrame({"user": "u", "item": items["item"][:100], "kind": "view"})
    events = one.with_columns(pl.lit(SINCE).cast(pl.Datetime("us", "UTC")).alias("time"))
    made = {"noise_multiplier": 5.0, "items_per_user": 4, "seed": 0}
    features, release = private_features(events, items, **PERIOD, **made)
    counts = np.expm1(features.popularity[0, 0])
    assert release.noise_multiplier == 5.0
    half = counts[100:][counts[100:] > 0]  # negative ones are cut off
    np.testing.assert_allclose((half**2).mean(), (5.0 * 2) ** 2, rtol=0.15)
    silent, _ = private_features(events, items, **PERIOD, **made | {"noise_multiplier": 1e-6})
    counts = np.expm1(silent.popularity[0, 0])
    np.testing.assert_allclose(counts[:100], 0.2, rtol=1e-3)  # of length sqrt(4) in all
    np.testing.assert_allclose(np.linalg.norm(counts), 2.0, rtol=1e-3)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"config": replace(CONFIG, draw="moments")}, "draw must be 'users' in private training"),
        ({"config": replace(CONFIG, weight_decay=0.1)}, "weight_decay must be 0.0 in private"),
        ({"moments_per_user": 0}, "moments_per_user must be at least 1, got 0"),
        ({"config": replace(CONFIG, batch_size=100)}, r"batch_size\) must be in 1\.\."),
    ],
)
def test_wrong_settings_are_named(made, changed, message):
    with pytest.raises(ValueError, match=message):
        fit_private(*made[:2], seed=0, **SETTINGS | changed)


def test_features_that_were_not_released_are_named_on_the_card(made):
    fit = fit_private(*made[:2], epsilon=float("inf"), seed=None, **SETTINGS)
    assert fit.card.not_covered[0].startswith("the features: catalogue, counts")
    assert not any("seed" in text for text in fit.card.not_covered)
    assert any("the table of items" in text for text in fit.card.not_covered)
    assert fit.card.noise_multiplier == 0


def test_counts_with_a_seed_or_of_other_features_are_named_on_the_card(log, made):
    features, _, counts = made
    said = _not_covered(features, [counts], None)
    assert said[0] == "those who know the seed, 0: they can take the noise away"
    plain = ik.fit_features(log.events, log.items, min_item_events=1)
    assert _not_covered(plain, [counts], None)[0].startswith("the features: ")
    assert _not_covered(features, [replace(counts, seed=None)], None)[0].startswith(
        "what the model"
    )
    exact = features.items.with_columns(pl.col("events") + 1)  # the same catalogue, other counts
    for other in ({"items": exact}, {"popularity": features.popularity + 1}):
        said = _not_covered(replace(features, **other), [counts], None)
        assert said[0].startswith("the features: ")


def test_kinds_may_have_weights_in_any_order(log):
    weights = {"view": 0.0, "purchase": 1.0}
    turned = dict(reversed(weights.items()))
    one, other = (public_features(log.items, **PERIOD, kind_weights=w) for w in (weights, turned))
    assert one.kind_weights == weights
    assert np.array_equal(one.popularity, other.popularity)
    with pytest.raises(ValueError, match="kind_weights must be above 0 for a kind"):
        public_features(log.items, **PERIOD, kind_weights={"view": 0.0})


def test_searches_are_in_no_public_table(log):
    typed = log.items.head(1).with_columns(item=pl.lit("search:lump in the breast"))
    items = pl.concat([log.items, typed])
    features, _ = private_features(log.events, items, **PERIOD, seed=0)
    for found in (features, public_features(items, **PERIOD)):
        wanted = log.items.filter(~pl.col("item").str.starts_with("search:"))["item"]
        assert sorted(found.items["item"]) == sorted(wanted)


@pytest.mark.parametrize("zone", [ZoneInfo("Europe/Berlin"), timezone(timedelta(hours=-3))])
def test_a_period_is_the_same_in_each_time_zone(log, made, zone):
    period = {name: time.astimezone(zone) for name, time in PERIOD.items()}
    features, _ = private_features(log.events, log.items, **period, seed=0)
    assert features.items.equals(made[0].items)
    assert features.origin == made[0].origin


def test_a_period_without_events_has_noise_alone(log):
    period = {"since": SINCE - timedelta(days=9), "until": SINCE - timedelta(days=2)}
    made = {"noise_multiplier": 5.0, "items_per_user": 4, "seed": 0}
    features, _ = private_features(log.events, log.items, **period, **made)
    noise = 10.0 * np.asarray(jax.random.normal(jax.random.key(0), features.num_items))
    np.testing.assert_allclose(np.expm1(features.popularity[0, 0]), np.maximum(noise, 0), rtol=1e-4)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"since": SINCE.replace(tzinfo=None)}, "since must have a time zone"),
        ({"noise_multiplier": float("inf")}, "noise_multiplier must be above 0, got inf"),
        ({"items": None}, "items must hold at least one item, got none"),
        ({"events": None}, "must have user, item and time, got .* without user"),
    ],
)
def test_features_that_cannot_be_made_are_refused(log, changed, message):
    given = {"events": log.events, "items": log.items, **PERIOD} | changed
    if given["items"] is None:
        given["items"] = log.items.head(0)
    if given["events"] is None:
        given["events"] = log.events.with_columns(user=pl.lit(None, pl.String))
    with pytest.raises(ValueError, match=message):
        private_features(**given)
