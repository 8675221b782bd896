"""The made-up log that the benchmarks of training learn from, and what they hold out of it."""

import numpy as np
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
