"""Training that cannot go on says where, whose rows it was, and keeps what was learnt before."""

import pickle
from dataclasses import replace
from itertools import pairwise
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import killed
import numpy as np
import pytest
from flax import nnx

import interestkit as ik
from interestkit.examples import draw, draw_moments, find_examples, log_arrays
from interestkit.failing import TrainingDiverged, advice_on_memory
from interestkit.feeding import Source, feed, users_at
from interestkit.storage import load_folder

RATE = 0.003


@pytest.fixture(scope="module")
def world():
    """Histories, their last user, and how to fit on them."""
    split, features, config = killed.world()
    config = replace(config, epochs=9, examples_per_epoch=36, batch_size=12, learning_rate=RATE)
    sound = features.histories(split.train)
    number = len(sound) - 1  # nobody comes after, whose window of events begins with theirs

    def fit(histories, *, learning_rate=RATE, **options):
        own = replace(config, learning_rate=learning_rate)
        return ik.fit(features, histories, config=own, progress=False, **options, **killed.SHAPE)

    return SimpleNamespace(
        **{"split": split, "features": features, "config": config, "sound": sound},
        **{"begin": sound.offsets[number], "user": str(sound.users[number]), "fit": fit},
    )


def weights(result):
    return [np.asarray(leaf) for leaf in jax.tree.leaves(nnx.split(result.model)[1])]


def drawn_by(world, key):
    """Place of the first event of the user of each row of an epoch, by its random key."""
    examples = find_examples(world.sound)
    log = log_arrays(world.sound, world.features.scales_days)
    draws = draw(world.config, jax.random.wrap_key_data(key), num_events=0, num_items=0)
    return np.asarray(
        draw_moments(world.config, *jax.tree.map(jnp.asarray, (examples, log)), draws)[0].start
    )


def test_a_user_whose_loss_is_no_number_is_named_and_earlier_epochs_are_kept(
    world, tmp_path, monkeypatch
):
    begin = world.begin

    def poisoned(*arguments, **options):
        log = log_arrays(*arguments, **options)
        return log._replace(
            weight=np.where(np.arange(len(log.weight)) == begin, np.nan, log.weight)
        )

    monkeypatch.setattr("interestkit.feeding.log_arrays", poisoned)
    for seed in range(9):
        with pytest.raises(TrainingDiverged) as caught:
            world.fit(world.sound, seed=seed, checkpoint=tmp_path / f"{seed}")
        if caught.value.epoch > 1:
            break
    error, folder = caught.value, tmp_path / f"{seed}"
    before = error.epoch - 1
    saved = load_folder(folder / f"epoch-{before:05d}", kind="training state")
    starts = drawn_by(world, saved.arrays["['state'].key"])  # the epoch's, drawn apart from it
    step = int((starts == begin).any(axis=1).argmax())
    assert error.step == step + 1
    assert error.rows == np.flatnonzero(starts[step] == begin).tolist()
    assert error.users == [world.user]
    at = np.searchsorted(world.sound.offsets, starts[step], side="right") - 1
    assert error.batch == [str(world.sound.users[row]) for row in at]
    what = f"diverged in epoch {error.epoch}, step {error.step} of 3: .* rows {error.rows[0]}"
    with pytest.raises(FloatingPointError, match=rf"{what}.* of the 12 .*, users '{world.user}'"):
        world.fit(world.sound, seed=seed, checkpoint=folder)  # it goes on to the same place
    copy = pickle.loads(pickle.dumps(error))  # noqa: S301 (as between processes)
    assert (str(copy), copy.users, copy.step) == (str(error), error.users, error.step)
    kept = world.fit(world.sound, seed=seed, stop_after=before)
    assert error.result.best_epoch == before
    assert error.result.curve.drop("seconds").equals(kept.curve.drop("seconds"))
    for one, other in zip(weights(error.result), weights(kept), strict=True):
        np.testing.assert_array_equal(one, other)
        assert np.isfinite(one).all()


def test_weights_that_are_no_numbers_are_refused_before_training(world):
    weight = world.sound.weight.copy()
    weight[world.begin] = np.nan
    what = rf"got nan for user '{world.user}', and for 1 of [\d,]+ events"
    with pytest.raises(ValueError, match=what):
        world.fit(replace(world.sound, weight=weight))


@pytest.mark.filterwarnings("ignore:overflow encountered in cast")  # as the program is compiled
def test_weights_that_grow_too_large_are_told_from_bad_rows(world):
    with pytest.raises(
        FloatingPointError, match=r"step 1 of 3: .* each row are finite, the update"
    ) as caught:
        world.fit(world.sound, learning_rate=1e39)  # infinite in float32
    assert (caught.value.epoch, caught.value.step, caught.value.rows) == (1, 1, [])
    assert caught.value.result is None
    with pytest.raises(FloatingPointError, match=r"each of the 12 rows of its batch; lower learn"):
        world.fit(world.sound, learning_rate=1e30)


def test_users_of_shards_are_found_in_the_shards_that_are_there(world, tmp_path):
    shards = ik.write_shards(world.split.train, tmp_path / "shards", num_shards=5)
    config = replace(world.config, shards_at_once=2)
    fed = feed(source := Source(world.features, shards, config), seed=1)
    for _ in range(3):
        epoch = next(fed)
        starts = np.asarray(epoch.examples.start).reshape(2, -1)
        for slot, number in enumerate(epoch.shards):
            own = world.features.histories(shards.events(number))
            real = int(epoch.examples.num_users[slot])
            later = [slice(a + 1, b) for a, b in pairwise(own.offsets)]
            expected = [
                user
                for user, events in zip(own.users, later, strict=True)
                if own.starts_moment[events].any()
            ]
            assert users_at(source, epoch, starts[slot, :real]) == expected
    assert len(set(epoch.shards)) == 2


@pytest.mark.parametrize("in_shards", [False, True])
def test_memory_that_is_not_enough_says_what_takes_it(world, in_shards):
    shape = world.fit(world.sound, stop_after=1).model.config
    log = "write_shards" if not in_shards else "shards_at_once=2"
    message = (
        rf"batch_size=12, num_sampled=2048, history_length=8, repeat_length=16; item_dim=8.*{log}"
    )
    for allocate in (lambda: np.zeros(2**56), lambda: jnp.zeros(2**50, jnp.int8)):
        with (
            pytest.raises(MemoryError, match=message) as caught,
            advice_on_memory(world.config, shape, in_shards=in_shards),
        ):
            allocate()
        assert caught.value.__cause__ is not None
    with (
        pytest.raises(ValueError, match="mine"),
        advice_on_memory(world.config, shape, in_shards=in_shards),
    ):
        raise ValueError("mine")
    other = jax.errors.JaxRuntimeError("INTERNAL: something else")
    with (
        pytest.raises(jax.errors.JaxRuntimeError),
        advice_on_memory(world.config, shape, in_shards=in_shards),
    ):
        raise other


def test_fit_without_memory_says_so(world, monkeypatch):
    def fails(*_):
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 1 bytes.")

    monkeypatch.setattr("interestkit.training.train_epoch", fails)
    with pytest.raises(MemoryError, match=r"more memory than there is; .* batch_size=12"):
        world.fit(world.sound)
