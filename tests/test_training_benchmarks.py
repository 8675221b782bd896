"""The made-up log that the benchmarks of training learn from, and what they hold out of it."""

import numpy as np
import private_training
import pytest
import scaling_study
import sequence
from against_als import held_out_last
from simulated import features_of, histories_of, simulated
from timing import seconds_to


def test_seconds_to_a_level_are_those_of_the_first_point_at_it():
    curve = [(1.0, 0.1), (2.0, 0.3), (3.0, 0.2), (4.0, 0.4)]
    assert seconds_to(0.3, curve) == 2.0
    assert np.isnan(seconds_to(0.5, curve))


def test_simulated_log_holds_each_pair_once_and_goes_forward_in_time():
    events = simulated(200, 300)
    user = np.repeat(np.arange(200), np.diff(events.offsets))
    assert len(set(zip(user.tolist(), events.item.tolist(), strict=True))) == len(user)
    same = user[1:] == user[:-1]
    assert (np.diff(events.seconds)[same] >= 0).all()
    assert (np.diff(np.bincount(events.item, minlength=300)) <= 0).all()


def test_last_event_is_held_out_of_what_both_sides_learn_from():
    features, events = features_of(simulated(40, 60))
    assert features.num_items == 60
    log = histories_of(events, without_last=5)
    truth = held_out_last(events, features, log, 5)
    for user in range(40):
        first, end = events.offsets[user], events.offsets[user + 1]
        known = log.item[log.offsets[user] : log.offsets[user + 1]]
        np.testing.assert_array_equal(known, events.item[first : end - (user < 5)])
    last = truth.relevant.sort("user_code")["code"].to_list()
    assert last == [int(events.item[events.offsets[user + 1] - 1]) for user in range(5)]
    assert truth.histories.item.tolist() == log.item[: log.offsets[5]].tolist()


def test_the_process_of_the_scaling_study_has_each_item_once_and_the_stated_probabilities():
    """Of many users at one pair of classes the last item comes as often as it is said to."""
    made = scaling_study.world(4_000, seed=1)
    assert all(len(set(row)) == scaling_study.LENGTH for row in made.item.tolist())
    assert (made.item[:9] == scaling_study.world(4_000, seed=1).item[:9]).all()
    # a right probability p has E[1 / p] = number of items that were free
    inverse = 1 / made.probability
    free = scaling_study.ITEMS - scaling_study.LENGTH + 1
    assert abs(inverse.mean() - free) < 4 * inverse.std() / np.sqrt(len(inverse))


def test_a_power_law_is_found_with_an_interval_that_holds_it():
    rng, sizes = np.random.default_rng(0), 2.0 ** np.arange(12)
    noisy = 5 * sizes**-0.3 * np.exp(rng.normal(0, 0.05, len(sizes)))
    found = scaling_study.law(sizes, noisy)
    low, high = found.interval
    assert low < 0.3 < high
    assert high - low < 0.1
    assert found.factor == pytest.approx(5, rel=0.1)


def test_the_front_of_compute_is_the_best_that_was_reached_with_as_much():
    own = {
        "users": scaling_study.LARGEST,
        "floor": 1.0,
        "floor_of_draws": 1.0,
        "events": 9,
        "loss": 2.0,
        "seed": 0,
    }
    rows = [
        own | {"width": 4, "parameters": 10, "flop": [1, 2, 3], "curve": [5.0, 4.0, 3.9]},
        own | {"width": 8, "parameters": 20, "flop": [2.5, 5, 7], "curve": [4.5, 3.0, 3.1]},
    ]
    sizes, excess = scaling_study.points(rows)["FLOP"]
    assert (sizes, excess) == ([1, 2, 3, 5], [4.0, 3.0, pytest.approx(2.9), 2.0])


def test_who_is_ahead_is_said_by_users_paired_over_seeds():
    rng = np.random.default_rng(0)
    base = rng.uniform(0, 1, 200)
    better = np.clip(base + rng.normal(0.1, 0.1, 200), 0, 2)
    values = {"mlp": base, "transformer": better, "mlp, 4 vectors": base + rng.normal(0, 0.1, 200)}
    rows = [
        {"model": model, "users": {"NDCG@10": (own + shift).tolist()}}
        for model, own in values.items()
        for shift in (0.0, 0.2)
    ]
    first, second = sequence.verdicts(rows)
    assert f"{(better - base).mean():+.4f}" in first
    assert first.endswith("transformer is ahead.")
    assert second.endswith("neither is.")
    assert sequence.verdicts(rows[:2]) == []


@pytest.mark.slow
def test_the_cost_of_private_training_is_that_of_both_kinds():
    split, since = private_training.world(users=400, seed=0)
    found = private_training.cost(split, since, repeats=1, moments=2)
    for kind in ("processor", "wall"):
        private, plain = found[f"private_{kind}_seconds"], found[f"plain_{kind}_seconds"]
        assert found[f"ratio_{kind}"] == pytest.approx(private / plain)
        assert min(private, plain) > 0
