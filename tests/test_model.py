"""The model: limits of its shape, its sampled softmax, and probabilities that are ones."""

from dataclasses import replace
from functools import partial
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from interestkit import model as module
from interestkit.devices import place
from interestkit.examples import (
    candidate_widths,
    catalogue_arrays,
    draw,
    draw_candidates,
    log_arrays,
    sampler,
)
from interestkit.layers import MLP, draw_weights
from interestkit.losses import total_loss
from interestkit.mixing import hide, mix_repeats
from interestkit.model import (
    HIDDEN,
    PARTS,
    Catalogue,
    InterestModel,
    Log,
    ModelConfig,
    Moment,
    graphdef,
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


@partial(jax.jit, static_argnums=0)
def predict(graph, state, log, catalogue, moment, parts=HYBRID):
    """The prediction, and the scores of all items as the next new one."""
    model = nnx.merge(graph, state)
    said = model(log, catalogue, moment, parts=parts)
    return said, model.score_new(said, catalogue, None, parts=parts)


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
        popularity=jnp.array(rng.uniform(0, 2, (NUM_ITEMS, 3, 2)), jnp.float32),
        snapshot_seconds=jnp.array([0, 2, 4], jnp.int32) * DAY,
    )
    moment = Moment(jnp.array([0, 3, 8]), jnp.array([3, 8, 8]), jnp.array([3, 4, 4]) * DAY)
    return log, catalogue, moment


@pytest.fixture(scope="module")
def model():
    """The two halves of a model with random weights."""
    make = jax.jit(lambda key: nnx.split(InterestModel(SHAPE, rngs=nnx.Rngs(key)))[1])
    return graphdef(SHAPE), make(jax.random.key(1))


@pytest.fixture(scope="module")
def said(model, world):
    return predict(*model, *world)


def test_repeats_are_the_last_events_with_an_item_among_the_newest(said):
    said, _ = said
    # newest first; the older event with item 0 of user 0 is not repeated; user 1 has item 0 only
    # before the newest four
    assert said.repeat_items[0].tolist() == [0, 1, NUM_ITEMS, NUM_ITEMS]
    assert said.repeat_items[1].tolist() == [4, 3, 2, 1]
    assert said.repeat_items[2].tolist() == [NUM_ITEMS] * 4
    np.testing.assert_allclose(jnp.exp(said.repeat[1]).sum(), 1, rtol=1e-6)


def test_popularity_is_that_of_the_last_snapshot_not_after_the_moment(model, world, said):
    assert said[0].snapshot.tolist() == [1, 2, 2]
    log, catalogue, moment = world
    early = moment._replace(seconds=jnp.array([-5, 0, 1]) * DAY)
    assert predict(*model, log, catalogue, early)[0].snapshot.tolist() == [0, 0, 0]


def test_events_after_the_moment_change_nothing(model, world, said):
    log, catalogue, moment = world
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
    left, right = (predict(*model, some, catalogue, cut) for some in (log, changed))
    jax.tree.map(np.testing.assert_array_equal, left, right)
    assert left[0].repeat_items[0].tolist() == [1, 0, NUM_ITEMS, NUM_ITEMS]
    assert (left[0].user != said[0].user).any()


def log_probabilities(new, said, catalogue):
    scores, total = mix_repeats(jnp.where(catalogue.is_candidate[None, :], new, HIDDEN), said)
    return scores - total[:, None]


def test_item_probabilities_sum_to_one_over_the_candidates(world, said):
    said, new = said
    probabilities = jnp.exp(log_probabilities(new, said, world[1]))
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-5)
    np.testing.assert_array_equal(probabilities[:, 5], 0)


def test_item_probabilities_are_the_mixture_of_new_and_repeated_items(world, said):
    said, new = said
    actual = log_probabilities(new, said, world[1])
    gate = 1 / (1 + np.exp(-np.asarray(said.repeat_logit, dtype=float)[0]))
    scores = np.exp(np.asarray(new, dtype=float)[0])
    scores /= scores[[2, 3, 4]].sum()  # user 0 has had items 0 and 1; item 5 is a search
    repeat = np.exp(np.asarray(said.repeat, dtype=float)[0, :2])
    expected = [*(gate * repeat), *((1 - gate) * scores[2:5]), 0]
    np.testing.assert_allclose(np.exp(actual[0]), expected, rtol=1e-5)


def test_a_user_who_has_had_every_item_gets_a_repeat(model, world):
    log, catalogue, moment = world
    few = catalogue._replace(is_candidate=jnp.arange(NUM_ITEMS) < 2)
    said, new = predict(*model, log, few, moment)
    probabilities = jnp.exp(log_probabilities(new, said, few))
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-5)


def test_without_candidates_no_item_has_a_probability(model, world):
    log, catalogue, moment = world
    none = catalogue._replace(is_candidate=jnp.zeros(NUM_ITEMS, bool))
    said, new = predict(*model, log, none, moment)
    assert (log_probabilities(new, said, none) == -jnp.inf).all()
    assert np.isfinite(said.interests).all()


def test_scores_of_targets_are_those_of_all_items(model, world, said):
    said, new = said
    codes = jnp.array([[0, 5], [3, 3], [4, 1]])

    @jax.jit
    def some_scores(state):
        whole = nnx.merge(model[0], state)
        some = whole.score_new(said, world[1], jnp.array([4, 0]), parts=HYBRID)
        return some, whole.score_targets(said, world[1], codes, parts=HYBRID)

    some, targets = some_scores(model[1])
    np.testing.assert_allclose(some, new[:, jnp.array([4, 0])], rtol=1e-5)
    np.testing.assert_allclose(targets, jnp.take_along_axis(new, codes, axis=1), rtol=1e-5)


def test_content_alone_says_nothing_where_there_is_none(model, world):
    parts = jnp.array(PARTS["content"])
    np.testing.assert_array_equal(predict(*model, *world, parts)[1], 0)


@pytest.mark.parametrize("power", [1.0, 0.5])
def test_without_a_tower_the_user_vector_is_the_weighted_sum_of_pooled_vectors(model, world, power):
    whole = nnx.merge(graphdef(replace(SHAPE, pool_power=power)), nnx.clone(model[1]))
    whole.user_vector.kernel[...] = jnp.zeros_like(whole.user_vector.kernel[...])
    whole.pooled_weight[...] = jnp.array([0.3, -0.2, 0.7])  # of the scales, and of the last item
    said, _ = predict(*nnx.split(whole), *world)
    vectors = np.asarray(whole.item_vectors[...], dtype=float)

    def pooled(codes, ages, days):
        weights = np.exp(-np.array(ages) / days)
        return weights @ vectors[codes] / (weights.sum() + 1e-3) ** power

    # newest first; of the five events of user 1 the newest four count
    histories = [([0, 1, 0], [1, 2, 3]), ([4, 3, 2, 1], [1, 1, 2, 3])]
    for row, (codes, ages) in enumerate(histories):
        expected = 0.3 * pooled(codes, ages, 1) - 0.2 * pooled(codes, ages, 10)
        expected += 0.7 * vectors[codes[0]]
        np.testing.assert_allclose(said.user[row], expected, rtol=1e-5, atol=1e-8)
    np.testing.assert_array_equal(said.user[2], 0)


def test_the_tower_adds_to_the_pooled_vectors(model, world, said):
    whole = nnx.clone(nnx.merge(*model))
    assert whole.pooled_weight[...].tolist() == [0.5, 0.5, 0.5]
    whole.pooled_weight[...] = jnp.zeros(3)
    tower = predict(*nnx.split(whole), *world)[0].user
    whole = nnx.clone(nnx.merge(*model))
    whole.user_vector.kernel[...] = jnp.zeros_like(whole.user_vector.kernel[...])
    pooled = predict(*nnx.split(whole), *world)[0].user
    assert (tower != 0).all()
    np.testing.assert_allclose(said[0].user, tower + pooled, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(
    ("num_items", "long", "how"),
    [
        pytest.param(40, 8, "sums before the projection", id="large-catalogue"),
        pytest.param(6, 0, "gathered", id="short-histories"),
        pytest.param(6, 100, "scattered", id="long-histories"),
    ],
)
def test_vectors_are_pooled_alike_in_each_way(world, monkeypatch, num_items, long, how):
    rng = np.random.default_rng(0)
    monkeypatch.setattr(module, "_LONG", long)
    shape = replace(SHAPE, num_items=num_items, content_dim=3)
    own = InterestModel(shape, rngs=nnx.Rngs(0))
    content = jnp.array(rng.normal(size=(num_items, 3)), jnp.float32)
    catalogue = world[1]._replace(content=content)
    share = rng.uniform(0, 1, (3, 5, 2))
    share[1, 2:] = 0  # padding
    items = rng.integers(0, num_items, (3, 5))
    items[0] = [2, 2, 5, 2, 0]  # an item three times
    vectors = np.asarray(own.item_vectors[...] + 0.5 * content @ own.content.kernel[...])
    expected = [
        [sum(share[b, n, s] * vectors[items[b, n]] for n in range(5)) for s in range(2)]
        for b in range(3)
    ]
    arrays = (jnp.array(share, jnp.float32), jnp.array(items), catalogue, jnp.array([1.0, 0.5]))
    jaxpr = str(jax.make_jaxpr(own._pooled)(*arrays))
    assert ("scatter" in jaxpr) == (how == "scattered")
    assert (f"f32[{num_items},4] = dot_general" in jaxpr) == (how != "sums before the projection")
    np.testing.assert_allclose(own._pooled(*arrays), expected, rtol=1e-5, atol=1e-6)


def test_content_is_the_mean_of_the_projections_of_blocks_that_are_there(world):
    rng = np.random.default_rng(0)
    shape = replace(SHAPE, num_items=4, content_dim=5, content_blocks=(2, 1, 2))
    own = InterestModel(shape, rngs=nnx.Rngs(0))
    content = rng.normal(size=(4, 5)).astype(np.float32)
    content[1, 2], content[2, :3], content[3] = 0, 0, 0  # one, two and all blocks are missing
    catalogue = world[1]._replace(content=jnp.array(content))
    kernel = np.asarray(own.content.kernel[...])
    blocks = [content[:, part] @ kernel[part] for part in (slice(2), slice(2, 3), slice(3, 5))]
    there = np.array([[1, 1, 1], [1, 0, 1], [0, 0, 1], [0, 0, 0]])
    for counts in ([1, 1, 1], [1, 0, 1], [1, 1, 0]):
        kept = there * counts
        weight = 3 * kept / np.maximum(kept.sum(axis=1, keepdims=True), 1)
        expected = sum(weight[:, n, None] * block for n, block in enumerate(blocks))
        parts = jnp.array([0.0, 1.0, *counts])
        np.testing.assert_allclose(own.vectors(catalogue, parts), expected, rtol=1e-4, atol=1e-6)
        some = own.vectors(catalogue, parts, jnp.array([[2], [1]]))
        np.testing.assert_allclose(some[:, 0], expected[[2, 1]], rtol=1e-4, atol=1e-6)
        share = jnp.array(rng.uniform(size=(1, 2, 1)), jnp.float32)
        pooled = own._pooled(share, jnp.array([[2, 1]]), catalogue, parts)
        summed = sum(share[0, n, 0] * expected[item] for n, item in enumerate([2, 1]))
        np.testing.assert_allclose(pooled[0, 0], summed, rtol=1e-4, atol=1e-6)
    whole = own.vectors(catalogue, jnp.array([0.0, 1.0]))
    np.testing.assert_array_equal(whole, own.vectors(catalogue, jnp.array([0.0, 1, 1, 1, 1])))


def test_a_model_without_repeats_is_one_whose_repeats_cannot_be(model, world):
    """The rest of it says the same where nobody has an item twice, and nothing is a repeat."""
    graph, params = model
    log, catalogue, moment = world
    once = log._replace(item=log.item.at[2].set(5), counts=jnp.ones((8, 2)))
    once = once._replace(following=jnp.full(8, 2**31 - 1, jnp.int32))
    with_repeats, new = predict(graph, params, once, catalogue, moment)
    shape = replace(SHAPE, can_repeat=False)
    less = once._replace(following=None, counts=None)
    said, scores = predict(graphdef(shape), params, less, catalogue, moment)
    for name in ("user", "popularity_weight", "interests", "repeat_items", "snapshot"):
        np.testing.assert_allclose(getattr(said, name), getattr(with_repeats, name), rtol=1e-5)
    np.testing.assert_allclose(scores, new, rtol=1e-5)
    probabilities = np.exp(log_probabilities(scores, said, catalogue))
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-6)
    for row, had in enumerate(np.asarray(said.repeat_items)):
        assert probabilities[row, had[had < NUM_ITEMS]].tolist() == [0] * (had < NUM_ITEMS).sum()


def test_interests_are_probabilities_near_the_own_shares(said):
    probabilities = jnp.exp(said[0].interests)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-6)
    assert probabilities[0, 0] > probabilities[1, 0] > 0.3  # two of three, one of three


def test_hide_sets_the_named_scores_and_passes_over_codes_past_the_last():
    hidden = hide(jnp.zeros((2, 3)), jnp.array([[0, 3], [2, 2]]))
    np.testing.assert_array_equal(hidden, np.array([[1, 0, 0], [0, 0, 1]]) * HIDDEN)


def test_mlp_drops_units_only_by_random_bits():
    mlp = MLP(3, (50,), 2, dropout=0.5)
    draw_weights(mlp.all_layers, jax.random.key(0))
    x, bits = jnp.ones((4, 3)), [jax.random.bits(jax.random.key(1), (4, 50))]
    hidden = nnx.relu(mlp.layers[0](x))
    kept = np.where(np.asarray(bits[0]) >= 2**31, 2 * np.asarray(hidden), 0)
    np.testing.assert_allclose(mlp(x, bits), mlp.last(jnp.asarray(kept)), rtol=1e-5)
    np.testing.assert_allclose(mlp(x), mlp.last(hidden), rtol=1e-6)
    assert MLP(3, (50, 7))(x).shape == (4, 7)


def test_weights_have_variance_one_by_inputs_and_no_two_are_alike():
    params = nnx.split(InterestModel(replace(SHAPE, hidden=(300, 200)), rngs=nnx.Rngs(0)))[1]
    first, second = (params["tower"]["layers"][n]["kernel"][...] for n in (0, 1))
    np.testing.assert_allclose(first.var() * len(first), 1, rtol=0.05)  # of 6,000 numbers
    np.testing.assert_allclose(second.var() * len(second), 1, rtol=0.03)
    first, second = (np.ravel(weights)[:6_000] for weights in (first, second))
    assert abs(np.corrcoef(first, second)[0, 1]) < 5 / np.sqrt(6_000)


@pytest.mark.parametrize("name", ["num_items", "num_interests", "item_dim", "repeat_length"])
def test_config_rejects_sizes_below_one(name):
    with pytest.raises(ValueError, match=f"{name} must be at least 1, got 0"):
        replace(SHAPE, **{name: 0})


@pytest.mark.parametrize("name", ["dropout", "event_dropout"])
@pytest.mark.parametrize("value", [-0.1, 1.0])
def test_config_rejects_impossible_dropout(name, value):
    with pytest.raises(ValueError, match=rf"{name} must be in \[0, 1\), got {value}"):
        replace(SHAPE, **{name: value})


@pytest.mark.parametrize("value", [-0.1, 1.1])
def test_config_rejects_impossible_pooling(value):
    with pytest.raises(ValueError, match=rf"pool_power must be in \[0, 1\], got {value}"):
        replace(SHAPE, pool_power=value)


@pytest.mark.parametrize(
    ("hidden", "message"),
    [
        ((), "hidden must name at least one width, got none"),
        ((4, 0), "hidden must be at least 1, got 0"),
        ((4, 1.5), r"hidden must be a whole number \(int\), got 1\.5"),
    ],
)
def test_config_rejects_a_tower_without_units(hidden, message):
    with pytest.raises(ValueError, match=message):
        replace(SHAPE, hidden=hidden)


@pytest.fixture(scope="module")
def batch(study):
    """The fourth moment of 64 users of the study, and the four losses there.

    The losses come without dropout, for the next `num_targets` events of some of the users.
    """
    features, histories, model = study.features, study.histories, study.result.model
    log, catalogue = (
        place(log_arrays(histories, features.scales_days)),
        place(catalogue_arrays(features)),
    )
    users = np.flatnonzero(histories.lengths > 6)[:64]
    end = histories.offsets[users] + 3
    moment = Moment(*map(jnp.asarray, (histories.offsets[users], end, histories.seconds[end])))
    stop = jnp.asarray(histories.offsets[users + 1])
    shape, params = replace(model.config, dropout=0.0, event_dropout=0.0), nnx.split(model)[1]

    def loss(candidates, num_targets, rows):
        config = replace(study.config, num_targets=num_targets)
        examples = jax.tree.map(lambda array: array[rows], (moment, stop))
        some = (params, shape, config, log, catalogue, examples, candidates)
        return total_loss(*some, HYBRID)[1]

    said, scores = predict(graphdef(shape), params, log, catalogue, moment)
    had = [set(row.tolist()) for row in np.asarray(said.repeat_items)]
    said = jax.tree.map(lambda array: np.asarray(array, dtype=float), said)
    scores = np.asarray(scores, dtype=float)
    return SimpleNamespace(
        catalogue=catalogue, end=end, had=had, loss=loss, said=said, scores=scores
    )


def slow_losses(study, batch, num_targets):
    """Mean losses of new items, repeats, gate and interests, a target at a time."""
    features, said, losses = study.features, batch.said, []
    stops = np.searchsorted(study.histories.offsets, batch.end, side="right")
    for row, had in enumerate(batch.had):
        free = [code for code in np.flatnonzero(features.is_candidate) if code not in had]
        total = np.log(np.exp(batch.scores[row, free]).sum())
        targets = study.histories.item[batch.end[row] : study.histories.offsets[stops[row]]]
        real = [code for code in targets[:num_targets] if features.is_candidate[code]]
        places = said.repeat_items[row].tolist()
        new = [total - batch.scores[row, code] for code in real if code not in had]
        repeat = [-said.repeat[row, places.index(code)] for code in real if code in had]
        signs = [1 if code in had else -1 for code in real]
        gate = [np.log1p(np.exp(-sign * said.repeat_logit[row])) for sign in signs]
        shares = features.item_interests[real].sum(axis=0)
        interest = -(shares @ said.interests[row]) / max(shares.sum(), 1)
        per_event = [sum(part) / max(len(real), 1) for part in (new, repeat, gate)]
        losses.append([*per_event, interest])
    return np.mean(losses, axis=0)


def candidates_of(study, num_sampled):
    """A function from a seed to the candidates of the first step of an epoch."""
    config = replace(study.config, num_sampled=num_sampled)
    width = candidate_widths(study.features, num_sampled)
    size = 0 if width is None else len(width)

    def candidates(seed):
        draws = draw(config, jax.random.key(seed), num_events=0, num_items=size)
        return draw_candidates(config, sampler(width, draws), draws.first[0])

    return candidates


def test_losses_with_all_items_as_candidates_equal_slow_ones(study, batch):
    num_items = study.features.num_items
    assert candidates_of(study, num_items)(0) is None
    actual = jax.jit(lambda: batch.loss(None, 4, jnp.arange(64)))()
    np.testing.assert_allclose(actual, slow_losses(study, batch, 4), rtol=1e-4)


def test_sampled_candidates_are_distinct_and_no_searches(study):
    codes, log_drawn = candidates_of(study, 20)(3)
    assert len(set(codes.tolist())) == 20
    assert study.features.is_candidate[np.asarray(codes)].all()
    assert ((log_drawn <= 0) & jnp.isfinite(log_drawn)).all()


def test_sampled_normaliser_is_unbiased(study, batch):
    """The ratio of the sampled to the full normaliser has mean 1, within 4 standard errors.

    For one moment and one target the loss is ln(normaliser) - score, so the ratio is the
    exponential of sampled loss minus full loss.
    """
    is_new = [
        code not in had and study.features.is_candidate[code]
        for code, had in zip(study.histories.item[batch.end], batch.had, strict=True)
    ]
    row = np.flatnonzero(is_new)[:1]
    candidates = candidates_of(study, 30)

    @jax.jit
    def losses(seeds):
        def sampled(seed):
            return batch.loss(candidates(seed), 1, row)[0]

        return jax.lax.map(sampled, seeds, batch_size=100), batch.loss(None, 1, row)[0]

    sampled, full = losses(jnp.arange(2000))
    ratio = np.exp(np.asarray(sampled, dtype=float) - float(full))
    error = ratio.std(ddof=1) / np.sqrt(len(ratio))
    assert abs(ratio.mean() - 1) < 4 * error
    assert 0 < error < 0.03  # so that a wrong correction shows


def test_the_newest_before_a_moment_are_named_newest_first(world):
    log, _, moment = world

    def items(moment, length):
        at, is_real = moment.newest(length)
        return jnp.where(is_real, log.item[at], -1).tolist()

    assert items(moment, 4) == [[0, 1, 0, -1], [4, 3, 2, 1], [-1] * 4]
    early = moment._replace(end=jnp.array([2, 4, 8]))
    assert items(early, 3) == [[1, 0, -1], [0, -1, -1], [-1] * 3]
