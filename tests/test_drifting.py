"""Drift is found where it was planted, and chance is called chance."""

from datetime import timedelta

import numpy as np
import polars as pl
import pytest
from scipy.sparse import csr_matrix

from interestkit.drifting import _compared, _signs, _single_interests, drift
from interestkit.features import fit_features
from interestkit.simulation import START, simulate

SINCE = START + timedelta(days=91)  # a Monday, as the first day is


def windows(seed, **settings):
    log = simulate(num_users=200, num_items=60, num_bots=0, faults=0, seed=seed, **settings)
    events = log.events.filter(pl.col("time") < SINCE + timedelta(days=14))
    old, new = (events.filter(side) for side in (pl.col("time") < SINCE, pl.col("time") >= SINCE))
    return old, new, fit_features(old, log.items)


def test_no_drift_gives_few_false_alarms():
    alarms = 0
    for seed in range(20):
        found = drift(*windows(seed, drift=0, events_per_user=40), swaps=199, seed=seed)
        alarms += found.table.filter(pl.col("aspect") != "interest")["is_drift"].any()
    assert alarms <= 3  # of 20 at 5 % each: more than 3 would come up once in 60 times


def test_a_planted_interest_is_found_and_named():
    old, new, features = windows(0, drift=0)
    rare = features.items_with("football")["item"].to_list()
    turned = pl.int_range(pl.len()) % 3 == 0
    new = new.with_columns(item=pl.when(turned).then(pl.lit(rare[0])).otherwise("item"))
    found = drift(old, new, features, swaps=199)
    own = found.table.filter(aspect="interest", name="football").row(0, named=True)
    assert own["is_drift"]
    assert own["after"] > own["high"] + own["before"]
    names = found.table.filter("is_drift")["aspect"].to_list()
    assert {"items", "interests"} <= set(names)
    assert found.verdict.startswith("Retrain: items, interests")


def test_an_interest_of_one_user_alone_hides_no_other():
    """Its share changes as much whichever way that user is swapped: there is hardly any chance."""
    before, after = np.full((100, 3), 5.0), np.full((100, 3), 5.0)
    after[:30, 0] += 10  # planted
    before[:, 2] = after[:, 2] = 0
    before[0, 2] = 4
    both = (csr_matrix(part) for part in (before, after))
    rows = _single_interests(*both, ["planted", "same", "lonely"], _signs(999, 100, 0))
    found = {row["name"]: row["p_corrected"] for row in rows}
    assert found["planted"] < 0.01
    assert found["lonely"] > 0.05


def test_unknown_items_and_users_are_a_rise():
    old, new, features = windows(0, drift=0)
    is_new = pl.int_range(pl.len()) % 2 == 0
    new = new.with_columns(item=pl.when(is_new).then(pl.lit("never seen")).otherwise("item"))
    new = new.with_columns(user=pl.when(is_new).then(pl.col("user") + "x").otherwise("user"))
    table = drift(old, new, features, swaps=199).table
    for aspect in ("unknown items", "unknown users"):
        row = table.filter(aspect=aspect).row(0, named=True)
        assert row["is_drift"]
        assert row["after"] == pytest.approx(0.5, abs=0.02)
        assert row["before"] < 0.02


def test_distances_are_those_of_the_formulas():
    before, after = csr_matrix([[3.0, 1.0], [4.0, 0.0]]), csr_matrix([[1.0, 3.0], [0.0, 4.0]])
    row = _compared("kinds", before, after, np.array([[0, 0], [1, 1]], np.int8))
    p, q = np.array([7.5, 1.5]) / 9, np.array([1.5, 7.5]) / 9
    assert row["psi"] == pytest.approx(((q - p) * np.log(q / p)).sum())
    mean = (p + q) / 2
    assert row["js"] == pytest.approx((p * np.log2(p / mean) + q * np.log2(q / mean)).sum() / 2)
    assert row["p"] == 1  # swapping nobody, and everybody, is as far apart
    one = _compared("kinds", before, after, np.array([[0, 1], [1, 0], [1, 0]], np.int8))
    assert one["p"] == 1 / 4  # swapping one of them brings both together


def test_a_worse_score_says_retrain_and_a_better_one_does_not():
    old, new, features = windows(0, drift=0)
    users = pl.Series("user", [f"u{n:05d}" for n in range(100)])
    low, high = (users.to_frame().with_columns(value=pl.lit(v)) for v in (0.1, 0.5))
    worse = drift(old, new, features, scores=(high, low), swaps=199)
    assert worse.table.filter(aspect="score")["is_drift"].item()
    assert worse.verdict.startswith("Retrain: score")
    some = high.with_columns(value=pl.lit(0.45))
    slightly = drift(old, new, features, scores=(high, some), swaps=199)
    assert slightly.verdict.startswith(
        "See whether a new training helps: the score fell from 0.500"
    )
    better = drift(old, new, features, scores=(low, high), swaps=199)
    assert better.verdict.startswith("No drift")


def test_same_seed_same_table():
    given = windows(1)
    one, other = (drift(*given, swaps=119, seed=3).table for _ in range(2))
    assert one.equals(other)


def test_wrong_windows_are_named():
    old, new, features = windows(0)
    with pytest.raises(ValueError, match="must end before the new events"):
        drift(new, old, features)
    with pytest.raises(ValueError, match="must reach back to"):
        drift(old[-10:], new, features)
    with pytest.raises(ValueError, match="at least one event each"):
        drift(old, new[:0], features)
    with pytest.raises(ValueError, match="swaps must be at least 119, got 118"):
        drift(old, new, features, swaps=118)
    scores = (pl.DataFrame({"user": ["a"], "value": [0.5]}),) * 2
    with pytest.raises(ValueError, match="swaps must be at least 139, got 138"):
        drift(old, new, features, swaps=138, scores=scores)


def test_as_many_swaps_as_are_asked_for_can_find_a_drift():
    old, new, features = windows(0, drift=0)
    other = new.with_columns(item=pl.lit(features.items["item"][0]))
    high, low = (old.select("user").unique().with_columns(value=v) for v in (0.9, 0.1))
    for given in ({"swaps": 119}, {"swaps": 139, "scores": (high, low)}):
        table = drift(old, other, features, **given).table
        assert table.filter(aspect="items")["is_drift"].item()
