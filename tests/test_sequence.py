"""The Transformer: what it may know, its layers by hand, its loss, and a rule that needs order."""

import math
from dataclasses import replace
from datetime import timedelta
from functools import partial
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import polars as pl
import pytest
from flax import nnx
from protocols import START
from protocols import _as_events as as_events

import interestkit as ik
from interestkit.devices import LAYERS, place
from interestkit.examples import TrainingConfig, catalogue_arrays, log_arrays
from interestkit.layers import grown
from interestkit.losses import total_loss
from interestkit.model import PARTS, InterestModel, ModelConfig, abstract_params, graphdef, nearest
from interestkit.packing import pack, unpack
from interestkit.prediction import Predictor
from interestkit.records import Moment
from interestkit.schema import ITEM, ITEM_COLUMNS, TIME, USER
from interestkit.sequence import SequenceEncoder, Window, draw_layers, layer_shapes
from interestkit.storage import Stored, load_folder
from interestkit.training import parted
from interestkit.trying import OneUser

HYBRID = jnp.array(PARTS["hybrid"])
WIDTH, HEADS, LENGTH = 8, 2, 5
SHAPE = ModelConfig(
    num_items=9,
    num_interests=2,
    content_dim=0,
    scales_days=(1.0, 10.0),
    item_dim=4,
    hidden=(5,),
    history_length=LENGTH,
    repeat_length=8,
    encoder="transformer",
    num_layers=2,
    num_heads=HEADS,
    layer_dim=WIDTH,
)


def window_of(seed, numbers=(LENGTH, 3, 0)):
    """Random events of three users, the newest first."""
    rng = np.random.default_rng(seed)
    real = np.arange(LENGTH)[None, :] < np.array(numbers)[:, None]
    days = np.cumsum(rng.uniform(0.1, 5, real.shape), axis=1)
    after = np.pad(days[:, :-1], ((0, 0), (1, 0)))
    vectors = rng.normal(size=(*real.shape, SHAPE.item_dim))
    weight = rng.uniform(0.5, 2, real.shape)
    arrays = (vectors, real, real, weight, days, after)
    return Window(*(jnp.asarray(a, bool if a.dtype == bool else jnp.float32) for a in arrays))


@pytest.fixture(scope="module")
def encoder():
    """An encoder with random weights, fading and gaps."""
    made = SequenceEncoder(SHAPE)
    draw_layers(made, jax.random.key(0))
    rng = np.random.default_rng(1)
    made.gap[...] = jnp.asarray(rng.normal(size=WIDTH), jnp.float32)
    made.fading[...] = jnp.asarray(rng.normal(size=(2, HEADS)), jnp.float32)
    made.norms[...] = jnp.asarray(rng.uniform(0.5, 2, (2, 2, WIDTH)), jnp.float32)
    made.end_norm[...] = jnp.asarray(rng.uniform(0.5, 2, WIDTH), jnp.float32)
    return made


@partial(jax.jit, static_argnums=0)
def encode(graph, state, window, bits=None):
    return nnx.merge(graph, state)(window, bits)


@pytest.fixture(scope="module")
def states(encoder):
    return encode(*nnx.split(encoder), window_of(0))


def slow_states(encoder, window, row):
    """The states of one user, in float64, an event and a head at a time."""
    w = {name: np.asarray(getattr(encoder, name)[...], float) for name in layer_shapes(SHAPE)}
    norms, fading = (np.asarray(getattr(encoder, n)[...], float) for n in ("norms", "fading"))
    number = int(window.is_real[row].sum())
    days, after = (np.asarray(part[row], float) for part in (window.days, window.days_of_next))
    kernel = np.asarray(encoder.begin.kernel[...], float)

    def norm(x, scale=1.0):
        return x / np.sqrt((x * x).mean() + 1e-6) * scale

    def sigmoid(x):
        return 1 / (1 + np.exp(-x))

    def turned(x, place):
        half = len(x) // 2
        angle = place * 10_000.0 ** -(np.arange(half) / half)
        number = (x[:half] + 1j * x[half:]) * np.exp(1j * angle)
        return np.concatenate([number.real, number.imag])

    x = [norm(np.asarray(window.vectors[row, n], float) @ kernel) for n in range(number)]
    gap = np.asarray(encoder.gap[...], float)
    x = [one + np.log1p(days[n] - after[n]) * gap for n, one in enumerate(x)]
    for layer in range(SHAPE.num_layers):
        own = {name: all_of[layer] for name, all_of in w.items()}
        read = [norm(one, norms[layer, 0]) for one in x]
        parts = [(r @ own["attend_in"]).reshape(HEADS, 3, WIDTH // HEADS) for r in read]
        for n in range(number):
            mixed = []
            for head in range(HEADS):
                query = turned(parts[n][head, 0], n)
                scores = [
                    query @ turned(parts[m][head, 1], m) / math.sqrt(WIDTH // HEADS)
                    - math.exp(fading[layer, head]) * np.log1p(days[m] - after[n])
                    for m in range(n, number)  # itself and what came before
                ]
                share = np.exp(scores) / np.exp(scores).sum()
                mixed.append(share @ [parts[m][head, 2] for m in range(n, number)])
            added = np.concatenate(mixed) @ own["attend_out"]
            x[n] = x[n] + added * sigmoid(read[n] @ own["attend_gate"])
        for n in range(number):
            read = norm(x[n], norms[layer, 1])
            both = (read @ own["feed_in"]).reshape(-1, 2)
            inner = both[:, 0] * sigmoid(both[:, 0]) * both[:, 1]
            x[n] = x[n] + (inner @ own["feed_out"]) * sigmoid(read @ own["feed_gate"])
    return [norm(one, np.asarray(encoder.end_norm[...], float)) for one in x]


def test_states_are_those_of_a_slow_transformer_and_0_on_padding(encoder, states):
    window = window_of(0)
    for row, number in enumerate((LENGTH, 3, 0)):
        if number:
            slow = slow_states(encoder, window, row)
            np.testing.assert_allclose(states[row, :number], slow, rtol=2e-4, atol=2e-5)
        np.testing.assert_array_equal(states[row, number:], 0)


def test_a_state_knows_nothing_of_later_events_but_when_the_next_one_is(encoder, states):
    window, other = window_of(0), window_of(7)
    # the two newest events are others; the third still sees when the second happens
    changed = [a.at[0, :2].set(b[0, :2]) for a, b in zip(window, other, strict=True)]
    changed = Window(*changed)._replace(days=window.days, days_of_next=window.days_of_next)
    found = encode(*nnx.split(encoder), changed)
    np.testing.assert_allclose(found[0, 2:], states[0, 2:], rtol=1e-6)
    assert (found[0, :2] != states[0, :2]).all()


def test_an_event_that_is_hidden_is_as_if_it_were_not_there(encoder, states):
    window = window_of(0)
    hidden = window._replace(is_seen=window.is_seen.at[0, 3].set(False))
    other = hidden._replace(vectors=hidden.vectors.at[0, 3].set(9.0))
    one, two = (encode(*nnx.split(encoder), w) for w in (hidden, other))
    np.testing.assert_array_equal(one, two)
    assert (one[0, :4] != states[0, :4]).all()


@pytest.mark.parametrize("seen", [(1, 1, 0, 0, 0), (1, 0, 1, 0, 0), (0, 0, 0, 0, 0)])
def test_a_state_before_which_all_is_hidden_knows_nothing_of_later_events(encoder, seen):
    window = window_of(0)
    is_seen = window.is_seen.at[0].set(jnp.array(seen, bool))
    one = window._replace(is_seen=is_seen)
    two = one._replace(vectors=one.vectors.at[0, :3].set(9.0))
    one, two = (encode(*nnx.split(encoder), w) for w in (one, two))
    np.testing.assert_array_equal(one[0, 3:], two[0, 3:])


def test_dropout_comes_from_the_given_bits_alone(encoder, states):
    graph, state = nnx.split(encoder)
    bits = jax.random.bits(jax.random.key(0), (2, 3, SHAPE.num_layer_bits))
    one, same, other = (encode(graph, state, window_of(0), b) for b in (bits[0], bits[0], bits[1]))
    np.testing.assert_array_equal(one, same)
    for pair in ((one, other), (one, states)):
        assert (pair[0] != pair[1])[0].any(axis=1).all()


@partial(jax.jit, static_argnums=0)
def slope(graph, state, window):
    """The gradient of a number made of all states."""

    def number(state):
        states = nnx.merge(graph, state)(window)
        return (states * jnp.arange(states.size).reshape(states.shape)).sum() / 1000

    return jax.grad(number)(state)


@pytest.mark.parametrize(
    ("settings", "near"),
    [({"remat": True}, 1e-5), ({"dtype": "bfloat16"}, 0.05)],
)
def test_gradients_are_the_same_with_less_memory_or_shorter_numbers(encoder, settings, near):
    twin = SequenceEncoder(replace(SHAPE, **settings))
    nnx.update(twin, nnx.state(encoder))
    one, two = (jax.tree.leaves(slope(*nnx.split(e), window_of(0))) for e in (encoder, twin))
    for left, right in zip(one, two, strict=True):
        assert left.dtype == right.dtype == jnp.float32
        size = max(abs(left).max(), 1e-3)
        np.testing.assert_allclose(right / size, left / size, atol=near)


def test_grown_bits_are_even_and_unlike_from_seed_to_seed():
    bits = np.asarray(grown(jnp.arange(64, dtype=jnp.uint32), (50, 40)))
    assert len(np.unique(bits)) > 0.999 * bits.size
    ones = np.unpackbits(bits.view(np.uint8)).reshape(bits.size, 32).mean(axis=0)
    assert abs(ones - 0.5).max() < 5 * 0.5 / np.sqrt(bits.size)  # each of 32 bits, 5 errors
    rows = bits.reshape(64, -1) / 2**32 - 0.5
    near = np.corrcoef(rows)[np.triu_indices(64, 1)]
    assert abs(near).max() < 6 / np.sqrt(2000)


@pytest.fixture(scope="module")
def world(study):
    """A model of the study's shape with a Transformer, random weights, and 16 of its users."""
    shape = replace(
        study.result.model.config,
        **{"encoder": "transformer", "layer_dim": WIDTH, "num_heads": HEADS},
        **{"can_repeat": False, "dropout": 0.0, "event_dropout": 0.0, "layer_dropout": 0.0},
        window_length=7,
    )
    make = jax.jit(lambda key: nnx.split(InterestModel(shape, rngs=nnx.Rngs(key)))[1])
    params = make(jax.random.key(0))
    params["sequence"]["end"]["kernel"][...] = jax.random.normal(jax.random.key(1), (WIDTH, 8))
    params["popularity_weight"]["bias"][...] = jnp.array([0.3, -0.2, 0.5, 0.1])[
        : len(shape.scales_days) + 1
    ]
    histories, features = study.histories, study.features
    log = place(log_arrays(histories, features.scales_days, can_repeat=False))
    users = np.flatnonzero(histories.lengths > 12)[:16]
    end = histories.offsets[users] + 10
    moment = Moment(*map(jnp.asarray, (histories.offsets[users], end, histories.seconds[end])))
    return shape, params, log, place(catalogue_arrays(features)), moment


def test_loss_of_steps_is_the_mean_over_events_that_are_new_and_later(study, world):
    shape, params, log, catalogue, moment = world

    @jax.jit
    def run(params):
        model = nnx.merge(graphdef(shape), params)
        said = model(log, catalogue, moment, parts=HYBRID, steps=True)
        rows = said.steps.user.reshape(-1, shape.item_dim)
        config = TrainingConfig(num_targets=1)
        stop = moment.end + 1

        def loss(weight):
            some = (params, shape, replace(config, sequence_weight=weight), log, catalogue)
            return total_loss(*some, (moment, stop), None, HYBRID)[0]

        vectors = model.vectors(catalogue, HYBRID)
        known, trend = model.popularity_signals(catalogue.popularity)
        weight = model.popularity_weight.bias[...]
        prior = known @ weight[:-1] + trend * weight[-1] + model.item_bias[...][:, None]
        return loss(2.0) - loss(0.0), rows @ vectors.T, prior, said.user

    twice, scores, prior, _ = (np.asarray(part, float) for part in run(params))
    length = shape.num_window
    scores = scores.reshape(len(moment.end), length, -1)
    seconds, items = np.asarray(log.seconds), np.asarray(log.item)
    starts, losses = np.asarray(catalogue.snapshot_seconds), []
    for row, (first, end) in enumerate(
        zip(moment.start.tolist(), moment.end.tolist(), strict=True)
    ):
        for at in range(max(first, end - length) + 1, end):
            before = items[max(first, end - length) : at]
            if items[at] in before or seconds[at] == seconds[at - 1]:
                continue
            if not study.features.is_candidate[items[at]]:  # a search
                continue
            snapshot = max(np.searchsorted(starts, seconds[at], side="right") - 1, 0)
            all_of = scores[row, end - at] + prior[:, snapshot]  # said at the event before
            free = np.setdiff1d(np.flatnonzero(study.features.is_candidate), before)
            losses.append(np.log(np.exp(all_of[free]).sum()) - all_of[items[at]])
    assert len(losses) > 40
    assert twice / 2 == pytest.approx(np.mean(losses), rel=1e-4)


def test_steps_end_in_the_users_vector_but_for_what_the_tower_adds(world):
    """Where the window holds all of a history; sums of longer ones have more to say."""
    shape, params, log, catalogue, moment = world
    shape = replace(shape, window_length=shape.history_length)

    @jax.jit
    def run(params):
        model = nnx.merge(graphdef(shape), params)
        model.user_vector.kernel[...] = jnp.zeros_like(model.user_vector.kernel[...])
        said = model(log, catalogue, moment, parts=HYBRID, steps=True)
        return said.user, said.steps.user[:, 0]

    whole, step = run(params)
    np.testing.assert_allclose(step, whole, rtol=1e-4, atol=1e-5)


def test_an_items_score_is_that_of_the_nearest_of_several_vectors(study, world):
    shape, _, log, catalogue, moment = world
    shape = replace(shape, encoder="mlp", num_user_vectors=3)
    model = InterestModel(shape, rngs=nnx.Rngs(0))
    codes = jnp.tile(jnp.array([[3, 7]]), (len(moment.end), 1))

    @jax.jit
    def run(state):
        model = nnx.merge(graphdef(shape), state)
        said = model(log, catalogue, moment, parts=HYBRID)
        each = [
            model.score_new(said._replace(user=said.user[:, n]), catalogue, None, parts=HYBRID)
            for n in range(3)
        ]
        new = model.score_new(said, catalogue, None, parts=HYBRID)
        return said.user, each, new, model.score_targets(said, catalogue, codes, parts=HYBRID)

    user, each, new, targets = run(nnx.split(model)[1])
    assert user.shape == (16, 3, shape.item_dim)
    np.testing.assert_allclose(new, np.max(each, axis=0), rtol=1e-5)
    np.testing.assert_allclose(targets, new[:, jnp.array([3, 7])], rtol=1e-5)
    assert len(set(np.argmax(each, axis=0).ravel().tolist())) == 3  # each is the best for some
    predictor = Predictor(features=study.features, model=model)
    some = study.test.histories.rows(0, 5)
    ranked, scores = predictor.rank(some, k=4)
    np.testing.assert_allclose(predictor.score(some, ranked), scores, rtol=1e-5)
    answer = OneUser(predictor).ask(some.rows(2, 3), k=4)
    np.testing.assert_array_equal(answer.codes, ranked[2])
    np.testing.assert_allclose(answer.scores, scores[2], rtol=1e-5)


def test_one_vector_is_a_plain_product():
    user, items = jnp.array([[1.0, 2.0]]), jnp.array([[3.0, 1.0], [0.0, 1.0]])
    assert nearest(user, items).tolist() == [[5.0, 2.0]]
    assert nearest(user[:, None], items).tolist() == [[5.0, 2.0]]


def test_the_default_is_an_mlp_without_a_number_more(study):
    config = study.result.model.config
    assert (config.encoder, config.num_layer_bits, config.num_user_vectors) == ("mlp", 0, 1)
    assert config.num_sums == len(config.scales_days)
    assert not any("sequence" in str(path) or "leaning" in str(path) for path in _paths(config))


def _paths(config):
    return [path for path, _ in jax.tree_util.tree_flatten_with_path(abstract_params(config))[0]]


def test_a_model_saved_before_there_were_encoders_loads(study, tmp_path):
    stored = load_folder(study.predictor.save(tmp_path / "model"), kind="model")
    new = {"encoder", "num_layers", "num_heads", "layer_dim", "layer_dropout", "dtype", "remat"}
    new |= {"num_user_vectors", "window_length"}
    old = {k: v for k, v in stored.meta["model"].items() if k not in new}
    assert len(old) == len(stored.meta["model"]) - len(new)
    meta = dict(stored.meta) | {"model": old}
    loaded = Predictor._unpack(Stored(tables=stored.tables, arrays=stored.arrays, meta=meta))
    assert loaded.model.config == study.result.model.config


def test_weights_of_layers_are_packed_by_themselves_and_come_back(world):
    shape, params, *_ = world
    packed = pack(params)
    names = {name.rpartition(".")[2] for name in packed.tables}
    assert names == {"item_vectors", "item_bias", "repeat_item_bias", *layer_shapes(shape)}
    assert set(layer_shapes(shape)) == set(LAYERS)
    back = unpack(shape, packed)
    assert jax.tree.all(jax.tree.map(jnp.array_equal, back, params))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"encoder": "rnn"}, "encoder must be one of mlp, transformer, got 'rnn'"),
        ({"dtype": "float16"}, "dtype must be one of float32, bfloat16, got 'float16'"),
        ({"layer_dim": 6}, r"layer_dim must be a multiple of 4 \(twice num_heads\), got 6"),
        ({"num_layers": 0}, "num_layers must be at least 1, got 0"),
        ({"num_user_vectors": 0}, "num_user_vectors must be at least 1, got 0"),
        ({"layer_dropout": 1.0}, r"layer_dropout must be in \[0, 1\), got 1.0"),
    ],
)
def test_config_says_what_is_wrong(settings, message):
    with pytest.raises(ValueError, match=message):
        replace(SHAPE, **settings)


def test_a_mesh_that_cannot_divide_the_layers_is_named():
    mesh = SimpleNamespace(shape={"data": 1, "model": 4})
    with pytest.raises(ValueError, match=r"model axis of the mesh must be .* 2048 and 2, got 4"):
        parted(TrainingConfig(), mesh, SHAPE)
    assert parted(TrainingConfig(), mesh, replace(SHAPE, encoder="mlp"))


STEPS, BLOCK = 8, 5  # events of a user; items that each of them may have


@pytest.fixture(scope="module")
def ordered():
    """Users who go round blocks of five items, and have the number of the event three back."""
    rng, rows = np.random.default_rng(0), []
    for user in range(400):
        own = rng.integers(0, BLOCK, 3).tolist()
        while len(own) < STEPS:
            own.append(own[-3])
        blocks = [(n + user) % STEPS for n in range(STEPS)]
        names = [f"i{block * BLOCK + i:02}" for block, i in zip(blocks, own, strict=True)]
        rows += [(f"u{user}", name, START + timedelta(n)) for n, name in enumerate(names)]
    events = as_events(pl.DataFrame(rows, schema=[USER, ITEM, TIME], orient="row"))
    items = pl.DataFrame(schema=ITEM_COLUMNS)
    split = ik.leave_last_out(ik.EventLog(events=events, items=items, name="rule"))
    features = ik.fit_features(split.train, items, min_item_events=1, num_snapshots=0)
    return features, features.histories(split.train), ik.held_out(features, split, "validation")


def fit_ordered(ordered, **settings):
    features, histories, validation = ordered
    config = TrainingConfig(epochs=4, examples_per_epoch=3200, batch_size=64, num_targets=1)
    config = replace(config, learning_rate=0.01, weight_decay=0.01, patience=9, num_sampled=32)
    shape = {"item_dim": 16, "hidden": (16,), "dropout": 0.0, "history_length": 8}
    shape |= {"encoder": "transformer", "layer_dim": 16, "layer_dropout": 0.0}
    return ik.fit(
        features,
        histories,
        validation=validation,
        config=config,
        progress=False,
        **shape,
        **settings,
    )


@pytest.fixture(scope="module")
def fitted(ordered):
    return fit_ordered(ordered)


def test_a_rule_of_the_event_three_back_is_learned(fitted):
    """Of the five items of a block, in any order, the right one has an NDCG of 0.59."""
    assert fitted.curve["ndcg@10_new"][-1] > 0.9


def test_training_goes_on_bit_for_bit_from_a_checkpoint(ordered, fitted, tmp_path):
    fit_ordered(ordered, checkpoint=tmp_path, stop_after=2)
    again = fit_ordered(ordered, checkpoint=tmp_path)
    np.testing.assert_array_equal(again.curve["loss_new"], fitted.curve["loss_new"])
    for one, two in zip(
        *(jax.tree.leaves(nnx.state(r.model)) for r in (fitted, again)), strict=True
    ):
        np.testing.assert_array_equal(one, two)


def test_a_model_answers_alike_after_it_was_saved_and_for_one_user(ordered, fitted, tmp_path):
    features, _, validation = ordered
    predictor = Predictor(features=features, model=fitted.model)
    some = validation.histories.rows(0, 9)
    codes, scores = predictor.rank(some, k=5)
    loaded = Predictor.load(predictor.save(tmp_path / "model"))
    np.testing.assert_array_equal(loaded.rank(some, k=5)[1], scores)
    np.testing.assert_allclose(predictor.score(some, codes), scores, rtol=1e-5)
    answer = OneUser(predictor).ask(some.rows(4, 5), k=5)
    np.testing.assert_array_equal(answer.codes, codes[4])
    np.testing.assert_allclose(answer.scores, scores[4], rtol=1e-4, atol=1e-5)


def test_reasons_of_a_transformer_are_exact_and_add_up(ordered, fitted):
    features, _, validation = ordered
    predictor = Predictor(features=features, model=fitted.model)
    some = validation.histories.rows(0, 3)
    found = ik.explain(predictor, some, target="item")
    assert found.checks["is_complete"]  # gradients add up
    one = some.rows(0, 1)
    codes = predictor.rank(one, k=features.num_items)[0]
    codes = codes[:, : (codes >= 0).sum()]

    def of_best(history):
        return predictor.score(history, codes)[0, 0] - jax.nn.logsumexp(
            predictor.score(history, codes)
        )

    for nth, value in found.of("u0").select("place", "without").iter_rows():
        kept = np.arange(len(one.item)) != len(one.item) - nth
        # the item left out is not among those asked about: it stays hidden
        assert value == pytest.approx(float(of_best(one) - of_best(one.only(kept))), abs=1e-4)
    assert found.of("u0")["without"].abs().max() > 0.5
