"""Those of whom little is known get the lists of whoever serves such users better."""

from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from small_world import histories_of

from interestkit import baselines
from interestkit.coldstart import ColdStart, cold_start
from interestkit.heldout import HeldOut


class Always:
    """Recommends one item to everybody."""

    def __init__(self, code):
        self.code = code

    def rank(self, histories, *, k=10, exclude_seen=True):
        del exclude_seen
        codes = np.full((len(histories), k), -1)
        codes[:, 0] = self.code
        return codes, np.zeros((len(histories), k))

    def interests(self, histories):
        return np.full((len(histories), 2), self.code)


class OnlyKnown(Always):
    """Recommends 3 to those who have at least two events, and nothing that is right to others."""

    def rank(self, histories, *, k=10, exclude_seen=True):
        codes, scores = super().rank(histories, k=k, exclude_seen=exclude_seen)
        codes[:, 0] = np.where(histories.lengths >= 2, 3, 4)
        return codes, scores


HISTORIES = histories_of([], [(0, 1)], [(0, 1), (1, 2)], [(0, 1), (1, 2), (2, 3)])


def truth_of(histories, code):
    """Every user has this item later."""
    number = len(histories)
    relevant = {"user_code": range(number), "code": [code] * number, "is_seen": [False] * number}
    types = {"user_code": pl.Int32, "code": pl.Int32, "is_seen": pl.Boolean}
    return HeldOut(
        part="validation",
        histories=histories,
        relevant=pl.DataFrame(relevant, schema=types),
        interest_shares=np.zeros((number, 2)),
        next_interests=np.zeros((number, 2), bool),
    )


TRUTH = truth_of(HISTORIES, 1)


@pytest.mark.parametrize("min_events", [0, 1, 2, 9])
def test_who_has_too_few_events_gets_the_fallback(min_events):
    ranker = ColdStart(model=Always(1), fallback=Always(2), min_events=min_events)
    expected = [2 if events < min_events else 1 for events in (0, 1, 2, 3)]
    assert ranker.rank(HISTORIES, k=1)[0][:, 0].tolist() == expected
    assert ranker.interests(HISTORIES)[:, 0].tolist() == expected


@pytest.mark.parametrize(
    ("model", "code", "expected"),
    [
        (Always(1), 1, 0),  # the model is right and the fallback is not
        (Always(1), 2, 6),  # the other way round, as far as is looked
        (OnlyKnown(0), 3, 0),  # nobody is right where little is known: no reason to change
        (OnlyKnown(0), 2, 6),
    ],
)
def test_the_choice_is_that_of_the_held_out_users(model, code, expected):
    long = histories_of([(0, 1), (1, 2), (2, 3)], [(0, 1), (1, 2), (2, 3)])
    found = cold_start(model, Always(2), truth_of(long, code))
    assert found.min_events == expected


def test_only_histories_for_which_the_fallback_is_ahead_are_left_to_it():
    long = histories_of([(0, 1), (1, 2), (2, 3)])
    both = truth_of(long, 3)
    both = replace(both, relevant=pl.concat([both.relevant, truth_of(long, 2).relevant]))
    assert cold_start(OnlyKnown(0), Always(2), both).min_events == 2  # then they are equal


@pytest.mark.parametrize(
    ("change", "settings", "message"),
    [
        ({}, {"most_events": 0}, "most_events must be at least 1, got 0"),
        ({"part": "test"}, {}, "truth must be the validation part: settings never see test users"),
        ({"relevant": TRUTH.relevant.clear()}, {}, "truth must hold a user with later items, got"),
    ],
    ids=["no-length", "test-users", "nothing-to-find"],
)
def test_what_cannot_be_chosen_on_is_refused(change, settings, message):
    with pytest.raises(ValueError, match=message):
        cold_start(Always(1), Always(2), replace(TRUTH, **change), **settings)


def test_newest_keeps_the_last_events_of_each_user():
    newest = HISTORIES.newest(1)
    assert newest.lengths.tolist() == [0, 1, 1, 1]
    assert newest.item.tolist() == [0, 1, 2]
    assert newest.seconds.tolist() == [day * 86_400 for day in (1, 2, 3)]
    assert HISTORIES.newest(0).item.tolist() == []
    assert HISTORIES.newest(9).item.tolist() == HISTORIES.item.tolist()


def test_somebody_new_gets_no_worse_a_list_than_what_is_popular(study):
    popular = baselines.Popular(features=study.features, log=study.histories)
    judged = replace(study.test, part="validation")  # the other part chose the epoch
    ranker = cold_start(study.predictor, popular, judged)
    for count in (0, 1):
        own = study.test.histories.newest(count)
        lists = [each.rank(own, exclude_seen=False)[0] for each in (ranker, popular)]
        if count < ranker.min_events:
            np.testing.assert_array_equal(*lists)
    assert ranker.min_events == 1  # this small model knows nobody without a history
