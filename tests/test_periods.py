"""Each period is judged before it is shown to any model."""

from datetime import timedelta

import numpy as np
import polars as pl
import pytest

from interestkit.cleaning import clean
from interestkit.examples import TrainingConfig
from interestkit.features import fit_features
from interestkit.periods import NEVER, RETRAINED, UPDATED, Prequential, prequential
from interestkit.prediction import Predictor
from interestkit.simulation import START, simulate
from interestkit.training import fit

LOG, _ = clean(simulate(num_users=60, num_items=40, num_interests=4, num_bots=0, faults=0, seed=3))
CUTS = [START + timedelta(days=day) for day in (80, 100, 120)]
QUICK = TrainingConfig(epochs=1, examples_per_epoch=64, batch_size=32, num_targets=4)


@pytest.fixture(scope="module")
def found():
    asked = []

    def train(events, until):
        asked.append((events["time"].max(), until))
        features = fit_features(events, LOG.items, until=until)
        known = features.histories(events)
        shape = {"item_dim": 4, "hidden": (8,), "history_length": 8, "repeat_length": 8}
        model = fit(features, known, config=QUICK, progress=False, **shape).model
        return Predictor(features=features, model=model)

    result = prequential(LOG.events, LOG.items, CUTS, train=train, config=QUICK, progress=False)
    assert all(last < until for last, until in asked)
    assert [until for _, until in asked] == CUTS[:2]
    return result


def test_all_models_are_one_in_the_first_period_and_the_same_users_are_judged(found):
    first = found.scores.filter(period=CUTS[0])
    own = [first.filter(model=name)["value"].to_list() for name in (NEVER, UPDATED, RETRAINED)]
    np.testing.assert_array_equal(own[0], own[1])
    np.testing.assert_array_equal(own[0], own[2])
    users = found.scores.group_by("period", "target", "model").agg(
        pl.col("user").sort().hash().sum()
    )
    assert users.group_by("period", "target").agg(pl.col("user").n_unique())["user"].max() == 1


def test_an_update_ends_where_its_period_begins(found):
    (update,) = found.updates
    before = LOG.events.filter(pl.col("time") < CUTS[1])["time"].max()
    assert update.predictor.features.fitted_until == before
    assert found.times.select("period", "model").rows() == [
        (CUTS[1], UPDATED),
        (CUTS[1], RETRAINED),
    ]


def test_absent_users_have_no_event_since_the_first_period_began(found):
    late = found.scores.filter(period=CUTS[1]).unique("user")
    seen = LOG.events.filter(pl.col("time") >= CUTS[0], pl.col("time") < CUTS[1])["user"]
    for user, is_absent in late.select("user", "is_absent").rows():
        assert is_absent == (user not in set(seen))


def test_means_and_differences_are_those_of_hand():
    day = CUTS[0]
    rows = [
        (day, NEVER, "a", 0.0, True, "x"),
        (day, UPDATED, "a", 0.0, True, "x"),
        (CUTS[1], NEVER, "a", 0.4, True, "x"),
        (CUTS[1], NEVER, "b", 0.2, False, "y"),
        (CUTS[1], UPDATED, "a", 0.5, True, "x"),
        (CUTS[1], UPDATED, "b", 0.8, False, "new"),  # which the other model does not know
    ]
    names = ["period", "model", "user", "value", "is_absent", "interest"]
    scores = pl.DataFrame(rows, schema=names, orient="row").with_columns(target=pl.lit("items"))
    times = pl.DataFrame({"period": [CUTS[1]], "model": [UPDATED], "seconds": [2.0]})
    hand = Prequential(scores=scores, times=times, updates=())
    table = hand.forgetting()
    assert table.select("group", pl.col("gain").round(6), "users").rows() == [
        ("absent users", 0.1, 1),
        ("new", 0.6, 1),
        ("x", 0.1, 1),
    ]
    with pytest.raises(ValueError, match="target must be one of items, new items, interests"):
        hand.forgetting("item")
    means = dict(hand.summary().select("model", "value").rows())
    # user a: (0 + 0.4) / 2 and (0 + 0.5) / 2, then the mean with b
    assert means == {NEVER: pytest.approx(0.2), UPDATED: pytest.approx((0.25 + 0.8) / 2)}
    assert hand.summary()["of_time"].null_count() == 2


@pytest.mark.parametrize("cuts", [CUTS[:1], CUTS[::-1]])
def test_cuts_must_rise(cuts):
    with pytest.raises(ValueError, match="cuts must be two times or more, rising"):
        prequential(LOG.events, LOG.items, cuts, train=None)


def test_cuts_have_a_time_zone():
    cuts = [cut.replace(tzinfo=None) for cut in CUTS]
    with pytest.raises(ValueError, match="cuts must have a time zone, got 2024-"):
        prequential(LOG.events, LOG.items, cuts, train=None)
