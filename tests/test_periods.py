"""Each period is judged before it is shown to any model."""

from datetime import timedelta

import numpy as np
import polars as pl
import pytest

from interestkit.baselines import Popular
from interestkit.cleaning import clean
from interestkit.examples import TrainingConfig
from interestkit.features import fit_features
from interestkit.periods import NEVER, RETRAINED, UPDATED, Prequential, prequential
from interestkit.prediction import Predictor
from interestkit.schema import EVENT_COLUMNS, ITEM_COLUMNS
from interestkit.simulation import START, simulate
from interestkit.training import fit

LOG, _ = clean(simulate(num_users=60, num_items=40, num_interests=4, num_bots=0, faults=0, seed=3))
CUTS = [START + timedelta(days=day) for day in (80, 100, 120)]


def with_a_new_interest():
    """The log and its items, with "fresh" from the first cut on, and alone in the end for half."""
    users = LOG.events["user"].unique().sort()
    rows = [
        {
            "user": user,
            "item": f"f{n}",
            "time": START + timedelta(days=d, minutes=n),
            "kind": "view",
        }
        for user in users
        for d in (90, 110)
        for n in range(3)
    ]
    ends = pl.col("user").is_in(users[30:].implode()) & (pl.col("time") >= CUTS[1])
    old, new = LOG.events.filter(~ends), pl.DataFrame(rows, schema=EVENT_COLUMNS)
    fresh = [{"item": f"f{n}", "interests": ["fresh"]} for n in range(3)]
    items = [LOG.items.select(*ITEM_COLUMNS), pl.DataFrame(fresh, schema=ITEM_COLUMNS)]
    return pl.concat([old.select(*EVENT_COLUMNS), new]), pl.concat(items)


EVENTS, ITEMS = with_a_new_interest()
QUICK = TrainingConfig(epochs=1, examples_per_epoch=64, batch_size=32, num_targets=4)


def trained(items, events, until):
    features = fit_features(events, items, until=until)
    known = features.histories(events)
    shape = {"item_dim": 4, "hidden": (8,), "history_length": 8, "repeat_length": 8}
    model = fit(features, known, config=QUICK, progress=False, **shape).model
    return Predictor(features=features, model=model)


@pytest.fixture(scope="module")
def found():
    asked = []

    def train(events, until):
        asked.append((events["time"].max(), until))
        return trained(ITEMS, events, until)

    result = prequential(EVENTS, ITEMS, CUTS, train=train, config=QUICK, progress=False)
    assert all(last < until for last, until in asked)
    assert [until for _, until in asked] == CUTS[:2]
    return result


def test_all_models_are_one_in_the_first_period(found):
    first = found.scores.filter(period=CUTS[0])
    own = [first.filter(model=name)["value"].to_list() for name in (NEVER, UPDATED, RETRAINED)]
    np.testing.assert_array_equal(own[0], own[1])
    np.testing.assert_array_equal(own[0], own[2])


def test_users_and_their_interests_are_the_same_for_all_models_also_where_one_knows_more(found):
    judged = found.scores.drop_nans("value").group_by(
        "period", "target", "model", maintain_order=True
    )
    same = judged.agg("user", "interest").group_by("period", "target")
    assert same.agg(pl.col("user", "interest").n_unique()).select(
        "user", "interest"
    ).unique().rows() == [(1, 1)]
    last = found.curve().filter(period=CUTS[1], target="interests")
    assert set(last["users"]) == {60}
    value = dict(last.select("model", "value").rows())
    assert value[NEVER] < min(value[UPDATED], value[RETRAINED])
    # half did what the first model does not know, and nothing else
    never = found.scores.filter(period=CUTS[1], target="interests", model=NEVER)
    assert (never.filter(interest="fresh")["value"] == 0).sum() >= 30
    gain = found.forgetting("interests").filter(group="fresh").row(0, named=True)
    assert gain["low"] > 0
    assert gain["users"] >= 30


def test_clusters_of_a_model_trained_anew_change_nothing_for_the_others():
    events = EVENTS.filter(pl.col("item").is_in(LOG.items["item"].implode()))
    empty = {"title": pl.lit(None, pl.String), "interests": pl.lit([], pl.List(pl.String))}
    items = LOG.items.select(*ITEM_COLUMNS).with_columns(**empty)
    given = {"train": lambda *part: trained(items, *part), "config": QUICK, "progress": False}
    kept = prequential(events, items, CUTS, retrain=False, **given).scores
    scores = prequential(events, items, CUTS, **given).scores
    two = scores.filter(pl.col("model") != RETRAINED)
    assert kept.sort(kept.columns).equals(two.sort(kept.columns))
    own = scores.filter(pl.col("model") == RETRAINED, target="interests")
    assert own["value"].is_not_nan().any()


def test_an_update_ends_where_its_period_begins(found):
    (update,) = found.updates
    before = EVENTS.filter(pl.col("time") < CUTS[1])["time"].max()
    assert update.predictor.features.fitted_until == before
    assert found.times.select("period", "model").rows() == [
        (CUTS[1], UPDATED),
        (CUTS[1], RETRAINED),
    ]


def test_absent_users_have_no_event_since_the_first_period_began(found):
    late = found.scores.filter(period=CUTS[1]).unique("user")
    seen = EVENTS.filter(pl.col("time") >= CUTS[0], pl.col("time") < CUTS[1])["user"]
    for user, is_absent in late.select("user", "is_absent").rows():
        assert is_absent == (user not in set(seen))


def test_means_and_differences_are_those_of_hand():
    day = CUTS[0]
    rows = [
        (day, NEVER, "a", 0.0, True, "x"),
        (day, UPDATED, "a", 0.0, True, "x"),
        (CUTS[1], NEVER, "a", 0.4, True, "x"),
        (CUTS[1], NEVER, "b", 0.2, False, "new"),
        (CUTS[1], UPDATED, "a", 0.5, True, "x"),
        (CUTS[1], UPDATED, "b", 0.8, False, "new"),
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


@pytest.mark.parametrize("unlabelled", ["ann", "bob"])
def test_a_user_without_an_interest_may_be_anyone_the_first_too(unlabelled):
    other = {"ann": "bob", "bob": "ann"}[unlabelled]
    rows = [("ann", "tea", 0), ("bob", "tea", 1), (unlabelled, "new", 5), (other, "tea", 6)]
    day = [START + timedelta(days=n) for n in range(8)]
    events = pl.DataFrame(
        [{"user": user, "item": item, "time": day[n], "kind": "view"} for user, item, n in rows],
        schema=EVENT_COLUMNS,
    )
    items = [{"item": "tea", "interests": ["drinks"]}, {"item": "new", "interests": []}]
    items = pl.DataFrame(items, schema=ITEM_COLUMNS)

    def train(known, until):
        features = fit_features(known, items, until=until, min_item_events=1)
        return Popular(features=features, log=features.histories(known))

    options = {"k": 1, "interest_k": 1, "progress": False}
    scores = prequential(events, items, [day[4], day[7]], train=train, **options).scores
    rows = scores.filter(target="interests", model=NEVER).select("user", "interest").rows()
    assert dict(rows) == {unlabelled: None, other: "drinks"}


@pytest.mark.parametrize("cuts", [CUTS[:1], CUTS[::-1]])
def test_cuts_must_rise(cuts):
    with pytest.raises(ValueError, match="cuts must be two times or more, rising"):
        prequential(LOG.events, LOG.items, cuts, train=None)


def test_cuts_have_a_time_zone():
    cuts = [cut.replace(tzinfo=None) for cut in CUTS]
    with pytest.raises(ValueError, match="cuts must have a time zone, got 2024-"):
        prequential(LOG.events, LOG.items, cuts, train=None)
