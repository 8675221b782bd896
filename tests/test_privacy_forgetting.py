import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime

import jax
import numpy as np
import polars as pl
import pytest
from flax import nnx

import interestkit as ik
from interestkit.privacy.forgetting import PartedModel, _Settings, part_of, train_parts
from interestkit.privacy.tracing import find_traces
from interestkit.training import train_epoch

SINCE, UNTIL = datetime(2024, 1, 1, tzinfo=UTC), datetime(2024, 5, 1, tzinfo=UTC)
KEY = b"a secret of sixteen"
SETTINGS = {
    "key": KEY,
    "since": SINCE,
    "until": UNTIL,
    "num_parts": 2,
    "progress": False,
    "config": ik.TrainingConfig(epochs=1, examples_per_epoch=32, batch_size=16, num_targets=4),
    "item_dim": 4,
    "hidden": (8,),
    "history_length": 8,
    "repeat_length": 8,
    "can_repeat": False,  # compiles sooner
}
USER = "user-00007"


@pytest.fixture(scope="module")
def log():
    log = ik.simulate(num_users=40, num_items=30, num_bots=0, faults=0, events_per_user=12)
    names = pl.format("user-{}", pl.col("user").str.extract(r"(\d+)"))
    return log.events.with_columns(user=names), log.items


@pytest.fixture(scope="module")
def forgotten(log, tmp_path_factory):
    folder = tmp_path_factory.mktemp("parted")
    programs = train_epoch._cache_size()
    model = train_parts(*log, folder, **SETTINGS)
    assert len(find_traces(folder, USER)) > 0  # it is there to be found
    untouched = 1 - part_of(USER, KEY, 2)
    before = weights(model.models[untouched])
    less = model.forget(USER, key=KEY)
    return folder, less, before, untouched, train_epoch._cache_size() - programs


def weights(model):
    return [np.asarray(leaf) for leaf in jax.tree.leaves(nnx.state(model.model, nnx.Param))]


def same(one, other):
    return all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


def test_a_forgotten_user_leaves_the_weights_of_a_run_that_never_saw_them(log, forgotten, tmp_path):
    model = forgotten[1]
    events, items = log
    never = train_parts(events.filter(pl.col("user") != USER), items, tmp_path, **SETTINGS)
    for ours, theirs in zip(model.models, never.models, strict=True):
        assert same(weights(ours), weights(theirs))
        assert ours.features.items.equals(theirs.features.items)
        assert np.array_equal(ours.features.popularity, theirs.features.popularity)


def test_a_forgotten_user_is_nowhere_in_the_folder(forgotten):
    folder = forgotten[0]
    assert find_traces(folder, USER).is_empty()
    assert len(find_traces(folder, "user-00008")) > 0


def test_a_part_that_is_gone_is_named(forgotten, tmp_path):
    folder = forgotten[0]
    shutil.copytree(folder / "settings", tmp_path / "settings")
    with pytest.raises(FileNotFoundError, match=r"part-00\d: there is no such folder"):
        replace(forgotten[1], folder=tmp_path).forget("user-00008", key=KEY)


def test_forgetting_leaves_other_parts_as_they_were(forgotten):
    _, model, before, untouched, _ = forgotten
    assert same(weights(model.models[untouched]), before)


def test_all_parts_and_forgetting_share_one_compiled_program(forgotten):
    assert forgotten[4] == 1


def test_a_parted_model_is_read_back_as_it_was(log, forgotten):
    folder, model = forgotten[:2]
    read = PartedModel.load(folder)
    histories = model.features.histories(log[0])
    for ours, theirs in zip(model.rank(histories, k=5), read.rank(histories, k=5), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_probabilities_are_means_over_parts(log, forgotten):
    model = forgotten[1]
    histories = model.features.histories(log[0]).rows(0, 3)
    codes, scores = model.rank(histories, k=3)
    parts = [np.exp(part.score(histories, codes)) for part in model.models]
    np.testing.assert_allclose(np.exp(scores), (parts[0] + parts[1]) / 2, rtol=1e-5)
    np.testing.assert_allclose(model.interests(histories).sum(axis=1), 1.0, rtol=1e-5)


def test_nobody_gets_no_items(log, forgotten):
    nobody = forgotten[1].features.histories(log[0]).rows(0, 0)
    assert [part.shape for part in forgotten[1].rank(nobody, k=3)] == [(0, 3), (0, 3)]


def test_who_is_not_there_cannot_be_forgotten(forgotten):
    model = forgotten[1]
    with pytest.raises(ValueError, match=r"user must be in part \d, which the key names"):
        model.forget("user-99999", key=KEY)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"key": b""}, "key must have 1 to 64 bytes, got 0"),
        ({"key": "a secret"}, "key must have 1 to 64 bytes, got str"),
        ({"num_parts": 0}, "num_parts must be at least 1, got 0"),
        ({"since": SINCE.replace(tzinfo=None)}, "since must have a time zone"),
        ({"until": SINCE.replace(month=2)}, "events must be from 2024-01-01"),
    ],
)
def test_wrong_settings_are_named(log, tmp_path, changed, message):
    with pytest.raises(ValueError, match=message):
        train_parts(*log, tmp_path, **SETTINGS | changed)


def test_events_of_nobody_are_refused(log, tmp_path):
    events = log[0].with_columns(user=pl.when(pl.int_range(pl.len()) > 2).then("user"))
    with pytest.raises(ValueError, match="user, item and time, got 3 without user"):
        train_parts(events, log[1], tmp_path, **SETTINGS)


def test_parts_of_another_model_are_not_left_beside_new_ones(log, forgotten):
    folder = forgotten[0]
    with pytest.raises(ValueError, match=r"must be new or empty, got a folder with \['part-000'"):
        train_parts(*log, folder, **SETTINGS | {"num_parts": 1})
    with pytest.raises(ValueError, match="must be a folder, got a file"):
        train_parts(*log, folder / "settings" / "manifest.json", **SETTINGS)


def test_one_who_was_forgotten_before_stays_so(log, forgotten, tmp_path):
    folder = shutil.copytree(forgotten[0], tmp_path / "copy")
    old = PartedModel.load(folder)
    users = log[0].filter(pl.col("user") != USER)["user"].unique().sort()
    one, other = (next(u for u in users if part_of(u, KEY, 2) == part) for part in (0, 1))
    first = weights(old.forget(one, key=KEY).models[0])
    assert not same(weights(old.models[0]), first)
    assert same(weights(old.forget(other, key=KEY).models[0]), first)


def test_two_who_forget_at_once_bring_nobody_back(log, tmp_path, monkeypatch):
    names = log[0]["user"].unique().sort()
    one, other = [name for name in names if part_of(name, KEY, 2) == 0][:2]
    model = train_parts(*log, tmp_path / "m", **SETTINGS)
    train, begun, go_on = _Settings.train, threading.Event(), threading.Event()

    def slowly(*given):
        if not begun.is_set():
            begun.set()
            go_on.wait(1)  # time for the other one, if nothing holds it back
        return train(*given)

    monkeypatch.setattr(_Settings, "train", slowly)
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(model.forget, one, key=KEY)
        assert begun.wait(60)
        second = pool.submit(model.forget, other, key=KEY)
        for done in (first, second):
            done.result()
    assert find_traces(tmp_path / "m", one).is_empty()
    assert find_traces(tmp_path / "m", other).is_empty()


def test_parts_follow_the_key():
    users = [f"u{n}" for n in range(2000)]
    one, other = ([part_of(user, key, 4) for user in users] for key in (b"a", b"b"))
    assert np.abs(np.bincount(one, minlength=4) - 500).max() < 100  # five standard deviations
    assert 0.2 < np.mean(np.array(one) == np.array(other)) < 0.3  # a quarter, by chance
