"""The model: limits of its shape, its sampled softmax, and probabilities that are ones."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from interestkit.examples import device_catalogue, device_log, draw_candidates
from interestkit.losses import total_loss
from interestkit.model import (
    HIDDEN,
    MLP,
    PARTS,
    Catalogue,
    InterestModel,
    Log,
    ModelConfig,
    Moment,
    hide,
    item_log_probabilities,
)

HYBRID = jnp.array(PARTS["hybrid"])
NUM_ITEMS, DAY = 6, 86_400
SHAPE = ModelConfig(
    num_items=NUM_ITEMS,
    num_interests=2,
    content_dim=0,
    scales_days=(1.0, 10.0),
    item_dim=4,
    hidden=(5,),
    history_length=4,
    repeat_length=4,
)


@pytest.fixture(scope="module")
def world():
    """Six items, of which the last is a search; users 0, 1, 2 with 3, 5 and 0 events."""
    item = jnp.array([0, 1, 0, 0, 1, 2, 3, 4], jnp.int32)
    seconds = jnp.array([0, 1, 2, 0, 1, 2, 3, 3], jnp.int32) * DAY
    # counts on the scales of 1 and 10 days: item 0 of user 0 comes twice, two days apart
    counts = np.ones((8, 2), np.float32)
    counts[2] += np.exp([-2, -0.2])
    following = jnp.full(8, 2**31 - 1, jnp.int32).at[0].set(2)
    log = Log(item, seconds, jnp.ones(8), following, jnp.array(counts))
    rng = np.random.default_rng(0)
    catalogue = Catalogue(
        content=jnp.zeros((NUM_ITEMS, 1)),
        interest_codes=jnp.array([[0], [1], [0], [1], [2], [2]], jnp.int32),
        interest_shares=jnp.array([[1.0], [1], [1], [1], [0], [0]]),
        is_candidate=jnp.arange(NUM_ITEMS) < 5,
        popularity=jnp.array(rng.uniform(0, 2, (3, 2, NUM_ITEMS)), jnp.float32),
        snapshot_seconds=jnp.array([0, 2, 4], jnp.int32) * DAY,
    )
    moment = Moment(jnp.array([0, 3, 8]), jnp.array([3, 8, 8]), jnp.array([3, 4, 4]) * DAY)
    return log, catalogue, moment


@pytest.fixture(scope="module")
def said(world):
    """The prediction of a model with random weights, and its scores of all items."""
    model = InterestModel(SHAPE, rngs=nnx.Rngs(1))
    said = model(*world, parts=HYBRID)
    return model, said, model.score_new(said, world[1], None, parts=HYBRID)


def test_repeats_are_the_last_events_with_an_item_among_the_newest(said):
    _, said, _ = said
    # newest first; the older event with item 0 of user 0 is not repeated; user 1 has item 0 only
    # before the newest four
    assert said.repeat_items[0].tolist() == [0, 1, NUM_ITEMS, NUM_ITEMS]
    assert said.repeat_items[1].tolist() == [4, 3, 2, 1]
    assert said.repeat_items[2].tolist() == [NUM_ITEMS] * 4
    np.testing.assert_allclose(jnp.exp(said.repeat[1]).sum(), 1, rtol=1e-6)


def test_popularity_is_that_of_the_last_snapshot_not_after_the_moment(world, said):
    assert said[1].snapshot.tolist() == [1, 2, 2]
    log, catalogue, _ = world
    early = Moment(jnp.zeros(1, int), jnp.zeros(1, int), jnp.array([-5 * DAY]))
    assert said[0](log, catalogue, early, parts=HYBRID).snapshot.tolist() == [0]


def test_events_after_the_moment_change_nothing(world, said):
    log, catalogue, moment = world
    model, plain, _ = said
    cut = Moment(moment.start, jnp.array([2, 6, 8]), jnp.array([2, 3, 4]) * DAY)
    # what comes at positions 2, 6 and 7 is changed, and with it the links that point there
    later = jnp.array([2, 6, 7])
    changed = Log(
        log.item.at[later].set(5),
        log.seconds,
        log.weight.at[later].set(9.0),
        log.following.at[0].set(2**31 - 1),
        log.counts.at[later].set(7.0),
    )
    left = model(log, catalogue, cut, parts=HYBRID)
    right = model(changed, catalogue, cut, parts=HYBRID)
    jax.tree.map(np.testing.assert_array_equal, left, right)
    assert left.repeat_items[0].tolist() == [1, 0, NUM_ITEMS, NUM_ITEMS]
    assert (left.user != plain.user).any()


def test_item_probabilities_sum_to_one_over_the_candidates(world, said):
    _, said, new = said
    probabilities = jnp.exp(item_log_probabilities(new, said, world[1]))
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-5)
    np.testing.assert_array_equal(probabilities[:, 5], 0)


def test_item_probabilities_are_the_mixture_of_new_and_repeated_items(world, said):
    _, said, new = said
    actual = item_log_probabilities(new, said, world[1])
    gate = 1 / (1 + np.exp(-np.asarray(said.repeat_logit, dtype=float)[0]))
    scores = np.exp(np.asarray(new, dtype=float)[0])
    scores /= scores[[2, 3, 4]].sum()  # user 0 has had items 0 and 1; item 5 is a search
    repeat = np.exp(np.asarray(said.repeat, dtype=float)[0, :2])
    expected = [*(gate * repeat), *((1 - gate) * scores[2:5]), 0]
    np.testing.assert_allclose(np.exp(actual[0]), expected, rtol=1e-5)


def test_a_user_who_has_had_every_item_gets_a_repeat(world, said):
    log, catalogue, moment = world
    model, _, _ = said
    few = catalogue._replace(is_candidate=jnp.arange(NUM_ITEMS) < 2)
    prediction = model(log, few, moment, parts=HYBRID)
    new = model.score_new(prediction, few, None, parts=HYBRID)
    probabilities = jnp.exp(item_log_probabilities(new, prediction, few))
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-5)


def test_without_candidates_no_item_has_a_probability(world, said):
    log, catalogue, moment = world
    none = catalogue._replace(is_candidate=jnp.zeros(NUM_ITEMS, bool))
    prediction = said[0](log, none, moment, parts=HYBRID)
    new = said[0].score_new(prediction, none, None, parts=HYBRID)
    assert (item_log_probabilities(new, prediction, none) == -jnp.inf).all()
    assert np.isfinite(prediction.interests).all()


def test_scores_of_targets_are_those_of_all_items(world, said):
    model, prediction, new = said
    codes = jnp.array([[0, 5], [3, 3], [4, 1]])
    targets = model.score_targets(prediction, world[1], codes, parts=HYBRID)
    np.testing.assert_allclose(targets, jnp.take_along_axis(new, codes, axis=1), rtol=1e-5)
    some = model.score_new(prediction, world[1], jnp.array([4, 0]), parts=HYBRID)
    np.testing.assert_allclose(some, new[:, jnp.array([4, 0])], rtol=1e-5)


def test_content_alone_says_nothing_where_there_is_none(world, said):
    parts = jnp.array(PARTS["content"])
    prediction = said[0](*world, parts=parts)
    np.testing.assert_array_equal(said[0].score_new(prediction, world[1], None, parts=parts), 0)


def test_interests_are_probabilities_near_the_own_shares(world, said):
    probabilities = jnp.exp(said[1].interests)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-6)
    assert probabilities[0, 0] > probabilities[1, 0] > 0.3  # two of three, one of three


def test_hide_sets_the_named_scores_and_passes_over_codes_past_the_last():
    hidden = hide(jnp.zeros((2, 3)), jnp.array([[0, 3], [2, 2]]))
    np.testing.assert_array_equal(hidden, np.array([[1, 0, 0], [0, 0, 1]]) * HIDDEN)


def test_mlp_drops_units_only_with_random_keys():
    mlp = MLP(3, (50,), 2, dropout=0.5, rngs=nnx.Rngs(0))
    x = jnp.ones((4, 3))
    np.testing.assert_array_equal(mlp(x), mlp(x))
    assert (mlp(x, rngs=nnx.Rngs(dropout=1)) != mlp(x)).any()
    assert MLP(3, (50, 7), rngs=nnx.Rngs(0))(x).shape == (4, 7)


@pytest.mark.parametrize("name", ["num_items", "num_interests", "item_dim", "repeat_length"])
def test_config_rejects_sizes_below_one(name):
    with pytest.raises(ValueError, match=f"{name} must be at least 1, got 0"):
        replace(SHAPE, **{name: 0})


@pytest.mark.parametrize("name", ["dropout", "event_dropout"])
@pytest.mark.parametrize("value", [-0.1, 1.0])
def test_config_rejects_impossible_dropout(name, value):
    with pytest.raises(ValueError, match=rf"{name} must be in \[0, 1\), got {value}"):
        replace(SHAPE, **{name: value})


@pytest.mark.parametrize("hidden", [(), (4, 0)])
def test_config_rejects_a_tower_without_units(hidden):
    with pytest.raises(ValueError, match="hidden must name at least one width >= 1, got"):
        replace(SHAPE, hidden=hidden)


@pytest.fixture(scope="module")
def new_item_loss(study):
    """Loss of new items of 64 moments, without dropout, as a function of the candidates."""
    features, model = study.features, study.result.model
    log = device_log(study.histories, features.scales_days)
    catalogue = device_catalogue(features)
    histories = study.histories
    users = np.flatnonzero(histories.lengths > 6)[:64]
    end = histories.offsets[users] + 3
    moment = Moment(*map(jnp.asarray, (histories.offsets[users], end, histories.seconds[end])))
    stop = jnp.asarray(histories.offsets[users + 1])
    shape = replace(model.config, dropout=0.0, event_dropout=0.0)
    params = nnx.split(model)[1]

    @jax.jit
    def loss(candidates, moment, stop):
        config = replace(study.config, num_targets=4)
        losses = total_loss(
            *(params, shape, config, log, catalogue, (moment, stop)),
            *(candidates, HYBRID, jax.random.key(0)),
        )[1]
        return losses[0]

    return catalogue, loss, (moment, stop)


def slow_new_item_loss(study, moment, stop):
    """The same from the scores of all items, a target at a time."""
    model, features = study.result.model, study.features
    log = device_log(study.histories, features.scales_days)
    catalogue = device_catalogue(features)
    said = model(log, catalogue, moment, parts=HYBRID)
    scores = np.asarray(model.score_new(said, catalogue, None, parts=HYBRID), dtype=float)
    losses = []
    for row in range(len(scores)):
        had = set(np.asarray(said.repeat_items[row]).tolist())
        free = [i for i in np.flatnonzero(features.is_candidate) if i not in had]
        total = np.log(np.exp(scores[row, free]).sum())
        next_ones = study.histories.item[int(moment.end[row]) : int(stop[row])][:4]
        real = [code for code in next_ones if features.is_candidate[code]]
        new = [total - scores[row, code] for code in real if code not in had]
        losses.append(sum(new) / max(len(real), 1))
    return np.mean(losses)


def test_softmax_over_all_items_equals_the_slow_one(study, new_item_loss):
    catalogue, loss, batch = new_item_loss
    num_items = study.features.num_items
    config = replace(study.config, num_sampled=num_items)
    codes, log_drawn = draw_candidates(config, catalogue, jax.random.key(0))
    np.testing.assert_array_equal(codes, np.arange(num_items))
    np.testing.assert_array_equal(log_drawn, 0)
    actual = loss((codes, log_drawn), *batch)
    np.testing.assert_allclose(actual, slow_new_item_loss(study, *batch), rtol=1e-4)


def test_sampled_candidates_are_distinct_and_no_searches(study, new_item_loss):
    catalogue = new_item_loss[0]
    codes, log_drawn = draw_candidates(
        replace(study.config, num_sampled=20), catalogue, jax.random.key(3)
    )
    assert len(set(codes.tolist())) == 20
    assert study.features.is_candidate[np.asarray(codes)].all()
    assert ((log_drawn <= 0) & jnp.isfinite(log_drawn)).all()


def test_sampled_normaliser_is_unbiased(study, new_item_loss):
    """The estimate of sum(exp(score)) over items has the right mean, within 4 standard errors."""
    catalogue = new_item_loss[0]
    config = replace(study.config, num_sampled=20)
    num_items = study.features.num_items
    scores = jnp.asarray(np.random.default_rng(0).normal(0, 1.5, num_items), jnp.float32)

    @jax.jit
    @jax.vmap
    def estimate(key):
        codes, log_drawn = draw_candidates(config, catalogue, key)
        return jnp.exp(scores[codes] - log_drawn).sum()

    draws = np.asarray(estimate(jax.random.split(jax.random.key(5), 4000)), dtype=float)
    truth = np.exp(np.asarray(scores, dtype=float))[study.features.is_candidate].sum()
    error = draws.std(ddof=1) / np.sqrt(len(draws))
    assert abs(draws.mean() - truth) < 4 * error
    assert error < 0.02 * truth  # so that a wrong correction shows


def test_sampled_softmax_is_close_to_the_full_one_on_average(study, new_item_loss):
    """Its mean over draws lies within 4 standard errors, plus the bias of a logarithm.

    The logarithm of an unbiased estimate Z' of Z is too small by about var(Z' / Z) / 2. The
    spread of a batch's loss is below that of one moment's, so the bias is bounded from the
    spread seen over moments: 0.1 nats here, against 0.6 when the correction is left out.
    """
    catalogue, loss, batch = new_item_loss
    full = float(loss((jnp.arange(study.features.num_items), jnp.zeros(84)), *batch))
    config = replace(study.config, num_sampled=30)
    draws = np.array(
        [
            float(loss(draw_candidates(config, catalogue, key), *batch))
            for key in jax.random.split(jax.random.key(7), 60)
        ]
    )
    error = draws.std(ddof=1) / np.sqrt(len(draws))
    assert -0.1 - 4 * error < draws.mean() - full < 4 * error
