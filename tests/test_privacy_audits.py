"""The audit of private training finds mistakes, and lets honest runs pass."""

import numpy as np
import pytest
from privacy_audit import MISTAKES, audited, card_of

from interestkit.privacy.accounting import make_card
from interestkit.privacy.audits import audit_private, lower_bound


@pytest.fixture(scope="module")
def card():
    return card_of()


def test_at_least_twenty_mistakes_are_known():
    assert len(MISTAKES) >= 20  # all of them: python benchmarks/privacy_audit.py


@pytest.mark.parametrize(
    ("name", "finds"),
    [
        ("no noise", "variance of noise, nobody there"),
        ("clipped by event", "largest change by a user"),
        ("batches of one size, accounted as Poisson", "spread of users in a step"),
        ("rate of the accountant too low", "epsilon from the rest of the card"),
        ("more steps than on the card", "steps taken"),
        ("delta too large", "delta"),
    ],
)
def test_mistakes_are_found_for_what_they_are(card, name, finds):
    assert finds in audited(name, card).alarms


def test_honest_runs_pass(card):
    for seed in range(3):
        audit = audit_private(card, seed=seed)
        assert audit.alarms == []
        assert audit.epsilon_at_least < card.epsilon
    assert repr(audit).endswith("alarms: none)")


def test_where_everybody_takes_part_or_nothing_is_promised_only_what_is_wrong_is_found():
    sizes = {"num_users": 50, "steps": 10, "clip_norm": 1.0}
    audit = audit_private(make_card(**sizes, users_per_step=50, epsilon=3.0))
    assert audit.alarms == []
    free = make_card(**sizes, users_per_step=20, epsilon=float("inf"))
    assert "delta for steps without room" not in audit_private(free).alarms


def test_the_lower_bound_is_that_of_the_paper_for_perfect_guesses():
    # of 100 guesses at 100 canaries in and 100 out all are right: (1 + e^-epsilon)^-100 = 0.05 at
    # the bound for one threshold; the search over thresholds costs a little of it
    bound = lower_bound(np.ones(100), np.zeros(100), delta=1e-12)
    one_threshold = -np.log(0.05 ** (-1 / 100) - 1)
    assert one_threshold - 0.8 < bound <= one_threshold


def test_scores_by_chance_bound_nothing():
    random = np.random.default_rng(0)
    assert lower_bound(random.normal(size=200), random.normal(size=200), delta=1e-5) < 0.3
