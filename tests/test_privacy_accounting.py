"""What a card promises follows from its numbers, by two methods and by hand."""

import math
from dataclasses import replace

import numpy as np
import pytest
from scipy.optimize import brentq
from scipy.stats import binom, norm

from interestkit.privacy.accounting import (
    GaussianMechanism,
    epsilon_of,
    make_card,
    overflow_delta,
    with_epsilon,
)

NUMBERS = {"num_users": 2000, "users_per_step": 200, "steps": 100, "clip_norm": 0.5}


@pytest.fixture(scope="module")
def card():
    return make_card(**NUMBERS, epsilon=3.0)


def gaussian_epsilon(sigma, delta):
    """Balle and Wang (2018), theorem 8: the exact epsilon of one Gaussian release."""

    def left(epsilon):
        above, below = 1 / (2 * sigma) - epsilon * sigma, -1 / (2 * sigma) - epsilon * sigma
        return norm.cdf(above) - math.exp(epsilon) * norm.cdf(below) - delta

    return brentq(left, 0, 50)


def test_one_step_of_everybody_costs_what_one_gaussian_release_costs(card):
    one = replace(card, rate=1.0, steps=1, noise_multiplier=1.3, overflow_delta=0.0, delta=1e-5)
    np.testing.assert_allclose(epsilon_of(one), gaussian_epsilon(1.3, 1e-5), rtol=1e-3)


def test_a_release_beside_training_adds_to_what_is_given_away(card):
    alone = replace(card, rate=1.0, steps=1, noise_multiplier=2.0, overflow_delta=0.0, delta=1e-5)
    both = replace(alone, released=(GaussianMechanism(what="counts", noise_multiplier=2.0),))
    together = gaussian_epsilon(2.0 / math.sqrt(2), 1e-5)  # two looks are one at sqrt(2) the scale
    np.testing.assert_allclose(epsilon_of(both), together, rtol=1e-3)


def test_a_notebook_shows_what_the_card_promises_and_what_it_does_not(card):
    shown = replace(card, not_covered=("<b>seeds",))._repr_html_()
    assert "PrivacyCard</strong> (3, " in shown
    assert "not covered (1)" in shown
    assert "&lt;b&gt;seeds" in shown
    nothing = replace(card, noise_multiplier=0.0, epsilon=math.inf)._repr_html_()
    assert "no promise: trained without noise" in nothing


def test_the_noise_is_the_least_that_keeps_the_promise(card):
    assert 2.95 < card.epsilon <= 3.0
    weaker = replace(card, noise_multiplier=card.noise_multiplier * 0.98)
    assert epsilon_of(weaker) > 3.0
    assert card.epsilon < card.epsilon_rdp < 1.3 * card.epsilon


def test_half_of_the_users_in_each_step_gives_more_away(card):
    assert epsilon_of(replace(card, rate=0.5)) > 2 * card.epsilon


def test_room_is_enough_and_its_lack_is_paid_for(card):
    chance = 100 * binom.sf(card.room, 2001, card.rate)
    paid = (1 + math.exp(3.0)) * chance
    np.testing.assert_allclose(card.overflow_delta, paid, rtol=1e-12)
    assert card.overflow_delta <= 0.01 * card.delta
    assert overflow_delta(replace(card, room=card.room - 40), 3.0) > 0.01 * card.delta
    assert card.delta == 2000**-1.1


def test_without_noise_nothing_is_promised():
    card = make_card(**NUMBERS, epsilon=math.inf)
    assert card.epsilon == math.inf
    assert card.noise_multiplier == 0
    assert epsilon_of(with_epsilon(replace(card, noise_multiplier=1.0), 3.0)) < 20


def test_the_card_says_what_it_promises(card):
    said = repr(replace(card, not_covered=("the features",)))
    for part in ("user: all events", "Poisson", "rate 0.1 of 2,000", "by PLD", "by RDP"):
        assert part in said
    assert said.endswith("not covered: the features")


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"users_per_step": 2001}, r"batch_size\) must be in 1..2000 .*got 2001"),
        ({"steps": 0}, "steps must be above 0, got 0"),
        ({"clip_norm": math.inf}, "clip_norm must be above 0, got inf"),
        ({"epsilon": 0.0}, "epsilon must be above 0 and at most 100, or infinite, got 0.0"),
        ({"delta": 0.001}, "delta must be above 0 and below 1 / 2000 users, got 0.001"),
        (
            {"released": [GaussianMechanism(what="counts", noise_multiplier=0.5)]},
            "epsilon must be above .* counts has spent",
        ),
    ],
)
def test_wrong_numbers_are_named(changed, message):
    with pytest.raises(ValueError, match=message):
        make_card(**NUMBERS | {"epsilon": 1.0} | changed)


@pytest.mark.parametrize(("users", "in_step"), [(20, 10), (10, 5), (100, 99), (100, 100), (2, 1)])
def test_few_users_are_promised_what_was_asked_for(users, in_step):
    card = make_card(num_users=users, users_per_step=in_step, steps=10, clip_norm=1.0, epsilon=8.0)
    assert 7.8 < card.epsilon <= 8.0
    assert card.room > users, "of the users and one more none is ever left out"
    assert card.overflow_delta == 0


def test_a_promise_that_no_noise_keeps_is_refused():
    with pytest.raises(
        ValueError, match="epsilon must be above 0 and at most 100, or infinite, got 1000"
    ):
        make_card(**NUMBERS, epsilon=1000.0)
    with pytest.raises(ValueError, match=r"no noise was found that just keeps .* delta 1e-320"):
        make_card(**NUMBERS | {"steps": 10}, epsilon=3.0, delta=1e-320)
