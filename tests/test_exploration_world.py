"""Simulated users choose what their interests say, in places that they look at."""

from dataclasses import replace

import numpy as np
import pytest

from interestkit.exploration.world import Audience, World

SMALL = World(num_users=40, num_items=36, num_interests=4, drift=0.0)


@pytest.fixture
def audience():
    return Audience(SMALL, seed=1)


def lists_of(audience, k=6):
    rng = np.random.default_rng(0)
    number = audience.features.num_items
    return np.stack([rng.choice(number, k, replace=False) for _ in range(len(audience.log))])


def test_utility_is_the_chance_of_a_choice_by_hand(audience):
    items = [int(np.flatnonzero(audience.interest_of == n)[0]) for n in (0, 0, 1)]
    other = int(np.flatnonzero(audience.interest_of == 0)[1])
    shown = np.full((40, 4), -1)
    shown[0] = [items[0], items[2], -1, other]
    audience._appeal[:] = 0.8
    weights = np.full((40, 4), 0.25)
    weights[0] = [0.5, 0.3, 0.2, 0]
    first = 1 - (1 - 0.8) * (1 - 0.8 / np.sqrt(4))
    expected = 0.5 * first + 0.3 * 0.8 / np.sqrt(2)
    utility = audience.utility(shown, weights)
    assert utility[0] == pytest.approx(expected)
    assert (utility[1:] == 0).all()


def test_choices_come_as_often_as_the_utility_says(audience):
    shown = lists_of(audience)
    expected = audience.utility(shown).mean()
    rates = [(audience.choose(shown, moment=audience.end) >= 0).mean() for _ in range(200)]
    error = np.std(rates) / np.sqrt(len(rates))
    assert np.mean(rates) == pytest.approx(expected, abs=4 * error)


def test_choices_go_to_the_end_of_each_users_log(audience):
    shown, before = lists_of(audience), audience.log
    moment = audience.end + 100
    rank = audience.choose(shown, moment=moment)
    for user in range(len(before)):
        own = audience.log.rows(user, user + 1)
        old = before.rows(user, user + 1)
        np.testing.assert_array_equal(own.item[: len(old.item)], old.item)
        visits = np.flatnonzero(rank[user] >= 0)
        np.testing.assert_array_equal(own.item[len(old.item) :], shown[user, rank[user, visits]])
        np.testing.assert_array_equal(own.seconds[len(old.item) :], moment + visits)
    assert audience.log.coded_by == audience.features.fingerprint


def test_nobody_takes_what_they_have_no_interest_in_or_never_look_at(audience):
    shown = lists_of(audience)
    audience.weights = np.eye(4)[np.zeros(len(shown), int)]
    rank = audience.choose(shown, moment=audience.end)
    user, visit = np.nonzero(rank >= 0)
    assert len(user)
    assert (audience.interest_of[shown[user, rank[user, visit]]] == 0).all()
    audience.world = replace(SMALL, position_bias=60.0)
    assert audience.choose(shown, moment=audience.end).max() == 0


def test_exposure_moves_weights_to_what_was_looked_at(audience):
    audience.world = replace(SMALL, drift=0.25, position_bias=1)
    items = [int(np.flatnonzero(audience.interest_of == n)[0]) for n in (2, 3)]
    shown = np.tile([*items, -1], (len(audience.log), 1))
    shown[1] = -1
    before = audience.weights.copy()
    audience.expose(shown)
    seen = np.array([0, 0, 1, 1 / 2]) / 1.5
    np.testing.assert_allclose(audience.weights[0], 0.75 * before[0] + 0.25 * seen)
    np.testing.assert_array_equal(audience.weights[1], before[1])  # an empty list


def test_found_interests_are_those_of_the_user_in_the_log(audience):
    user, found = 3, audience.found()
    own = set(np.flatnonzero(audience.own[user]))
    log = audience.log.rows(user, user + 1)
    assert found[user] == len(own & set(audience.interest_of[log.item])) / len(own)
    planted = audience.weights >= 0.1
    np.testing.assert_array_equal(audience.own, planted)


def test_one_seed_gives_one_audience():
    first, again, other = (Audience(SMALL, seed=seed) for seed in (1, 1, 2))
    shown = lists_of(first)
    ranks = [each.choose(shown, moment=each.end) for each in (first, again)]
    np.testing.assert_array_equal(*ranks)
    assert not np.array_equal(first.weights[:30], other.weights[:30])


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"visits": 0}, "visits must be at least 1, got 0"),
        ({"position_bias": -1.0}, "position_bias must be at least 0"),
        ({"drift": 1.5}, r"drift must be in \[0, 1\], got 1.5"),
    ],
)
def test_settings_out_of_range_are_refused(setting, message):
    with pytest.raises(ValueError, match=message):
        World(**setting)


def test_nobody_goes_back_in_time():
    audience = Audience(SMALL, seed=1)
    now = audience.end
    for come in (audience.at, lambda moment: audience.choose(lists_of(audience), moment=moment)):
        with pytest.raises(ValueError, match=f"moment must be at least {now}, got {now - 1}"):
            come(now - 1)
