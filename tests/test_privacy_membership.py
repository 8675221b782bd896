"""The membership attack finds who was there where it shows, and guesses where it does not."""

from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import polars as pl
import pytest
from scipy import stats

import interestkit as ik
from interestkit.privacy.accounting import epsilon_of, make_card
from interestkit.privacy.learning import Setting
from interestkit.privacy.membership import (
    _halves,
    attack,
    attack_plain,
    attack_private,
    bound_in_one_run,
)
from interestkit.privacy.training import PRIVATE, PrivateFit, fit_private, private_features
from interestkit.training import model_config

RANDOM = np.random.default_rng(0)
IS_IN = RANDOM.random((32, 100)) < 0.5
TINY = {"item_dim": 4, "hidden": (8,), "history_length": 8, "repeat_length": 8, "can_repeat": False}


@pytest.fixture(scope="module")
def made():
    log = ik.simulate(num_users=40, num_items=30, num_bots=0, faults=0, events_per_user=10)
    period = {"since": datetime(2024, 1, 1, tzinfo=UTC), "until": datetime(2024, 5, 1, tzinfo=UTC)}
    features, counts = private_features(log.events, log.items, **period, seed=0)
    return features, features.histories(log.events), counts


@pytest.fixture(scope="module")
def crowd():
    """As many users as a bound needs, each with two random items: they add one gradient, always."""
    log = ik.simulate(num_users=200, num_items=60, num_bots=0, faults=0, events_per_user=10)
    events = log.events.sort("time").unique(["user", "time"], maintain_order=True)
    events = events.group_by("user", maintain_order=True).head(2)
    names = log.items.filter(~pl.col("item").str.starts_with("search:"))["item"].to_numpy()
    items = np.random.default_rng(0).choice(names, len(events))
    events = events.with_columns(item=pl.Series(items))
    period = {"since": datetime(2024, 1, 1, tzinfo=UTC), "until": datetime(2024, 5, 1, tzinfo=UTC)}
    features, _ = private_features(events, log.items, **period, seed=0)
    return features, features.histories(events)


def test_losses_that_say_nothing_give_a_guess():
    found = attack(RANDOM.normal(size=IS_IN.shape), IS_IN)
    assert abs(found.auc - 0.5) < 5 * np.sqrt(1 / (12 * 1600))  # of the area: 1/12 (1/n + 1/m)
    assert found.found_at(0.01) < 0.05


def test_the_attack_reaches_what_two_normal_laws_allow():
    losses = RANDOM.normal(size=(256, 400))
    is_in = RANDOM.random(losses.shape) < 0.5
    found = attack(losses - 1.0 * is_in, is_in)
    np.testing.assert_allclose(found.auc, stats.norm.cdf(1 / np.sqrt(2)), atol=0.01)
    np.testing.assert_allclose(
        found.found_at(0.01), stats.norm.cdf(1 - stats.norm.isf(0.01)), atol=0.015
    )


def test_the_table_and_the_curve_say_the_same():
    found = attack(RANDOM.normal(size=IS_IN.shape) - 2.0 * IS_IN, IS_IN)
    assert found.table()["measure"].to_list()[0] == "AUC"
    curve = found.roc(points=50)
    assert curve["found"].is_sorted()
    assert curve["found"][-1] == 1.0


def test_users_must_be_in_and_out_of_some_models():
    with pytest.raises(ValueError, match="in three models and out of three"):
        attack(np.zeros((8, 3)), np.ones((8, 3), bool))


@pytest.mark.parametrize("users", [3, 7, 8])
def test_each_user_is_in_and_out_of_three_of_eight_models(users):
    for seed in range(20):
        halves = _halves(users, 8, seed)
        assert set(halves.sum(axis=1)) == {users // 2}
        assert not (halves[::2] & halves[1::2]).any()
        if users > 3:  # of three one is left out twice
            assert np.minimum(halves.sum(axis=0), (~halves).sum(axis=0)).min() >= 3


def test_the_area_is_the_share_of_pairs_in_the_right_order():
    random = np.random.default_rng(3)
    is_in = _halves(6, 8, 0)
    found = attack(random.normal(size=is_in.shape).round(1) - 0.5 * is_in, is_in)
    pairs = np.subtract.outer(found.scores[is_in], found.scores[~is_in])
    assert found.auc == pytest.approx(((pairs > 0) + 0.5 * (pairs == 0)).mean())
    equal = attack(np.ones(is_in.shape), is_in)
    assert equal.auc == 0.5


def test_a_loss_that_is_no_number_is_named():
    losses = np.zeros((8, 6))
    losses[2, 1] = np.nan
    with pytest.raises(ValueError, match=r"losses must be finite, got nan at \[2, 1\]"):
        attack(losses, _halves(6, 8, 0))


@pytest.mark.slow
def test_plain_models_that_learn_by_heart_are_found_out(made):
    config = ik.TrainingConfig(
        epochs=20, examples_per_epoch=320, batch_size=32, num_targets=4, learning_rate=0.02
    )
    found = attack_plain(
        *made[:2], config=config, num_models=8, **TINY | {"dropout": 0.0, "item_dim": 16}
    )
    assert found.auc > 0.6
    users = found.is_in.shape[1]
    assert set(found.is_in.sum(axis=1)) == {users // 2}


@pytest.mark.slow
def test_models_with_much_noise_are_not(made):
    config = replace(PRIVATE, epochs=2, examples_per_epoch=32, batch_size=16, num_targets=4)
    settings = {"config": config, "moments_per_user": 1, "seed": 0, "progress": False} | TINY
    fit = fit_private(*made[:2], epsilon=1.0, released=[made[2]], **settings)
    found = attack_private(fit, made[1], num_models=24)  # with 8 chance alone reaches .6
    assert 0.4 < found.auc < 0.6
    with pytest.raises(ValueError, match="num_models must be an even number of at least 8, got 7"):
        attack_private(fit, made[1], num_models=7)


@pytest.mark.slow
def test_one_run_shows_who_was_there_without_noise_and_not_with_it(crowd):
    features, histories = crowd
    config = replace(PRIVATE, epochs=2, examples_per_epoch=240, batch_size=24, num_targets=4)
    card = make_card(num_users=186, users_per_step=24, steps=20, clip_norm=0.5, epsilon=1.0)
    wide = TINY | {"item_dim": 16, "hidden": (32,), "dropout": 0.0, "event_dropout": 0.0}
    shape = model_config(features, histories, **wide)
    setting = Setting(shape, replace(config, learning_rate=1.0), 1, card.room)
    rest = {"model": None, "features": features, "steps": 20, "seconds": 0.0, "device": ""}
    fit = PrivateFit(card=card, setting=setting, config=config, **rest)  # nothing is compiled twice
    allowed = epsilon_of(replace(card, delta=1e-5, overflow_delta=0.0))
    assert bound_in_one_run(fit, histories) <= allowed
    broken = replace(fit, card=replace(card, noise_multiplier=0.0))
    assert bound_in_one_run(broken, histories) > allowed  # it would be found out


def test_a_bound_from_one_run_needs_canaries_and_chances():
    for wrong, message in (
        ({"num_canaries": 15}, "num_canaries must be at least 16, got 15"),
        ({"delta": 0.0}, r"delta must be in \(0, 1\), got 0\.0"),
        ({"confidence": 1.0}, r"confidence must be in \(0, 1\), got 1\.0"),
    ):
        with pytest.raises(ValueError, match=message):
            bound_in_one_run(None, None, **wrong)
