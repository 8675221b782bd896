"""Rankers that explore, and what a log says of lists that nobody was shown."""

from dataclasses import dataclass, replace

import numpy as np
import pytest
import small_world

from interestkit.baselines import Popular
from interestkit.exploration.bandits import Ensemble, RandomPlaces, bootstrap, off_policy_value
from interestkit.exploration.world import Audience, World
from interestkit.neighbours import EASE

FEATURES = small_world.FEATURES
KNOWN = small_world.histories_of(*[[(n % 4, 1)] for n in range(300)])


@dataclass
class Fixed:
    """The same scores for everybody."""

    scores: tuple

    def rank(self, histories, *, k, exclude_seen):
        del exclude_seen
        order = np.argsort(-np.array(self.scores), kind="stable")[:k]
        codes = np.where(np.isfinite(np.array(self.scores)[order]), order, -1)
        rows = np.ones((len(histories), 1), int)
        return codes * rows, np.array(self.scores)[order] * rows

    def interests(self, histories):
        return np.full((len(histories), 2), self.scores[0])


ENDS = -np.inf
MEMBERS = (Fixed((3.0, 1.0, 0.0, 0.0, ENDS)), Fixed((0.0, 1.0, 0.5, 1.8, ENDS)))


def test_thompson_draws_one_member_for_each_user():
    drawn = Ensemble(members=MEMBERS, features=FEATURES)
    codes, scores = drawn.rank(KNOWN, k=2)
    lists = {tuple(row) for row in codes}
    assert lists == {(0, 1), (3, 1)}
    share = (codes[:, 0] == 0).mean()
    assert abs(share - 0.5) < 4 * np.sqrt(0.25 / 300)
    np.testing.assert_array_equal(scores[:, 0], np.where(codes[:, 0] == 0, 3.0, np.float32(1.8)))


def test_a_draw_depends_on_seed_user_and_moment_alone():
    drawn = Ensemble(members=MEMBERS, features=FEATURES)
    codes, _ = drawn.rank(KNOWN, k=2)
    some, _ = drawn.rank(KNOWN.rows(100, 120), k=2)
    np.testing.assert_array_equal(codes[100:120], some)
    later = replace(KNOWN, moment=KNOWN.moment + 1)
    assert not np.array_equal(drawn.rank(later, k=2)[0], codes)
    assert not np.array_equal(replace(drawn, seed=1).rank(KNOWN, k=2)[0], codes)


def test_moments_before_the_first_event_of_training_have_draws_too():
    early = replace(KNOWN, moment=-1 - KNOWN.moment)
    assert early.moment.max() < 0
    for ranker in (
        Ensemble(members=MEMBERS, features=FEATURES),
        RandomPlaces(ranker=MEMBERS[0], features=FEATURES),
    ):
        codes = [ranker.rank(each, k=2)[0] for each in (early, early, KNOWN)]
        np.testing.assert_array_equal(codes[0], codes[1])
        assert not np.array_equal(codes[0], codes[2])


def test_mean_and_upper_bound_are_those_by_hand():
    plain = Ensemble(members=MEMBERS, features=FEATURES, choose="mean")
    codes, scores = plain.rank(KNOWN, k=5)
    assert codes[0].tolist() == [0, 1, 3, 2, -1]  # means 1.5, 1, 0.25, 0.9
    np.testing.assert_allclose(scores[0, :4], [1.5, 1.0, 0.9, 0.25])
    upper = Ensemble(members=MEMBERS, features=FEATURES, choose="upper", width=1.0)
    codes, scores = upper.rank(KNOWN, k=5)
    assert codes[-1].tolist() == [0, 3, 1, 2, -1]  # deviations 1.5, 0, 0.25, 0.9
    np.testing.assert_allclose(scores[-1, :4], [3.0, 1.8, 1.0, 0.5])
    np.testing.assert_allclose(plain.interests(KNOWN), 1.5)


def test_bootstrap_fits_on_users_drawn_with_replacement():
    logs = bootstrap(lambda _, log: log, FEATURES, KNOWN, members=3, seed=4)
    names = [log.users.tolist() for log in logs]
    assert all(len(own) == 300 for own in names)
    assert 170 < len(set(names[0])) < 210  # 1 - 1 / e of 300 is 190
    assert names[0] != names[1]
    with pytest.raises(ValueError, match="members must be at least 1"):
        bootstrap(lambda _, log: log, FEATURES, KNOWN, members=0)


def test_random_places_come_as_often_as_their_propensity_says():
    features = small_world.FEATURES
    ranker = RandomPlaces(ranker=Fixed((3.0, 2.0, 1.0, 0.0, ENDS)), features=features, share=0.3)
    codes, _, chance = ranker.draw(KNOWN, k=2, exclude_seen=False)
    assert (codes < 4).all()  # item 4 is a search
    for item in (0, 2, 3):
        rows = codes[:, 0] == item
        (propensity,) = set(chance[rows, 0])
        assert propensity == pytest.approx(0.7 if item == 0 else 0.15)
        assert abs(rows.mean() - propensity) < 4 * np.sqrt(propensity / 300)
    assert all(len(set(row)) == 2 for row in codes.tolist())
    np.testing.assert_array_equal(ranker.rank(KNOWN, k=2, exclude_seen=False)[0], codes)


def test_random_places_hold_nothing_seen_and_nothing_without_a_share():
    codes, _, chance = RandomPlaces(
        ranker=Popular(features=FEATURES, log=KNOWN), features=FEATURES, share=1.0
    ).draw(KNOWN, k=1)
    assert not (codes[:, 0] == KNOWN.item).any()
    np.testing.assert_allclose(chance, 1 / 2)  # of 4 candidates one is seen, one is listed
    same, _, sure = RandomPlaces(ranker=MEMBERS[0], features=FEATURES, share=0.0).draw(KNOWN, k=2)
    assert (same == [0, 1]).all()
    assert (sure == 1).all()


def replayed(seed):
    """True value of the most popular item for everybody; naive and fair estimates from a log."""
    world = World(num_users=400, num_items=24, num_interests=4, drift=0.0)
    audience = Audience(world, seed=seed)
    start, settings = audience.at(audience.end), {"k": 1, "exclude_seen": False}
    ease = EASE(features=audience.features, log=start, regularisation=50.0)
    written = RandomPlaces(ranker=ease, features=audience.features, share=0.4)
    wanted = Popular(features=audience.features, log=start).rank(start, **settings)[0]
    truth, rows = audience.utility(wanted).mean(), []
    for number in range(1, 16):
        known = replace(start, moment=start.moment + number)
        shown, _, chance = written.draw(known, **settings)
        reward = (audience.choose(shown, moment=audience.end) >= 0).mean(axis=1)
        rows.append((reward, chance[:, 0], (shown == wanted)[:, 0]))
    rewards, chances, agrees = (np.concatenate(part) for part in zip(*rows, strict=True))
    fair = off_policy_value(rewards, chances, agrees)
    return truth, off_policy_value(rewards, np.ones_like(chances), agrees), fair, agrees.sum()


def test_a_fair_estimate_finds_the_true_value_where_naive_replay_does_not():
    found = [replayed(seed) for seed in range(4)]
    errors = np.array([fair.value - truth for truth, _, fair, _ in found])
    deviation = np.sqrt(sum(((fair.high - fair.value) / 1.96) ** 2 for *_, fair, _ in found)) / 4
    assert abs(errors.mean()) < 3.5 * deviation
    for truth, naive, fair, rows in found:
        assert naive.low > truth + 0.1  # it counts those who got the item for a reason
        assert fair.effective_rows < rows
        assert naive.effective_rows == rows


def test_estimate_is_that_by_hand_and_says_when_a_log_cannot_tell():
    rewards, chances = np.array([1.0, 0.0, 1.0]), np.array([0.5, 0.25, 0.1])
    found = off_policy_value(rewards, chances, np.array([True, True, False]))
    error = np.sqrt(2**2 * (2 / 3) ** 2 + 4**2 * (1 / 3) ** 2) / 6
    expected = (1 / 3, 1 / 3 - 1.96 * error, 1 / 3 + 1.96 * error, 36 / 20)
    np.testing.assert_allclose(found, expected)
    assert np.isnan(off_policy_value(rewards, chances, np.zeros(3, bool)).value)
    for wrong in (np.nan, 0.0, 1.5):
        with pytest.raises(ValueError, match=r"propensities must be in \(0, 1\]"):
            off_policy_value(rewards, np.array([0.5, wrong, 0.5]), np.ones(3, bool))
    with pytest.raises(ValueError, match="must be one per row, got 3 rewards, 1 propensities, 3"):
        off_policy_value(rewards, np.ones(1), np.ones(3, bool))


def test_settings_out_of_range_are_refused():
    with pytest.raises(ValueError, match="members must be at least one"):
        Ensemble(members=(), features=FEATURES)
    with pytest.raises(ValueError, match="choose must be one of"):
        Ensemble(members=MEMBERS, features=FEATURES, choose="lower")
    with pytest.raises(ValueError, match=r"share must be in \[0, 1\], got 2"):
        RandomPlaces(ranker=MEMBERS[0], features=FEATURES, share=2)
    for make in (RandomPlaces, Ensemble):
        given = {"ranker": MEMBERS[0]} if make is RandomPlaces else {"members": MEMBERS}
        with pytest.raises(ValueError, match="seed must be at least 0, got -1"):
            make(features=FEATURES, seed=-1, **given)


def test_one_row_that_agrees_has_no_interval():
    found = off_policy_value(np.array([1.0, 0.0]), np.full(2, 0.5), np.array([True, False]))
    assert found.value == 1.0
    assert np.isnan([found.low, found.high]).all()
