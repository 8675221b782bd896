"""Simulated logs repeat, carry the interests that were planted, and bring their faults."""

import numpy as np
import polars as pl
import pytest

from interestkit import schema
from interestkit.cleaning import clean
from interestkit.simulation import TOPICS, planted_interests, simulate

PLAIN = {"num_bots": 0, "faults": 0}  # a log without anything to clean


def top_interests(planted, column="start"):
    ranked = planted.sort(column, descending=True)
    return ranked.unique("user", keep="first").select("user", top="interest", weight=column)


def labels_of(log):
    """Each event on a real item with the interest of the item."""
    return log.events.join(log.items, on="item").explode("interests").drop_nulls("interests")


def test_the_same_seed_gives_the_same_log():
    first, second = (simulate(num_users=30, seed=5) for _ in range(2))
    assert first.events.equals(second.events)
    assert first.items.equals(second.items)
    assert not first.events.equals(simulate(num_users=30, seed=6).events)


def test_the_log_has_the_size_that_was_asked_for():
    log = simulate(num_users=400, num_items=50, events_per_user=40, days=30, **PLAIN)
    assert log.num_users == 400
    # log-normal activity with sigma 0.8: the mean of 400 has a relative error of 0.05
    assert log.num_events / 400 == pytest.approx(40, rel=0.2)
    real = log.items.filter(pl.col("interests").list.len() == 1)
    assert len(real) == 50
    assert log.events["time"].min() >= pl.Series(["2024-01-01"]).str.to_datetime(time_zone="UTC")[0]
    assert log.events["time"].max() < pl.Series(["2024-01-31"]).str.to_datetime(time_zone="UTC")[0]
    assert log.events["time"].is_sorted()


def test_every_event_is_on_an_item_of_the_table():
    log = simulate(num_users=50, **PLAIN)
    assert log.events.join(log.items, on="item", how="anti").is_empty()


@pytest.mark.parametrize("sharpness", [2, 6, 40])
def test_users_follow_their_planted_top_interest(sharpness):
    options = {"num_users": 300, "sharpness": sharpness, "drift": 0.0, "seed": 2}
    log = simulate(**options, noise=0, **PLAIN)
    top = top_interests(planted_interests(**options))
    events = labels_of(log).join(top, on="user")
    share = (events["interests"] == events["top"]).mean()
    events_per_user = events["user"].value_counts().join(top, on="user")
    weights = events_per_user["count"] / events_per_user["count"].sum()
    assert share == pytest.approx((weights * events_per_user["weight"]).sum(), abs=0.03)


def test_sharp_interests_without_noise_can_be_read_off_any_event():
    options = {"num_users": 100, "num_interests": 4, "sharpness": 1e4, "drift": 0.0}
    log = simulate(**options, noise=0, **PLAIN)
    events = labels_of(log).join(top_interests(planted_interests(**options)), on="user")
    assert (events["interests"] == events["top"]).mean() > 0.99


def test_noise_hides_the_interests():
    options = {"num_users": 300, "num_interests": 10, "sharpness": 1e4, "drift": 0.0}
    log = simulate(**options, noise=1, **PLAIN)
    events = labels_of(log).join(top_interests(planted_interests(**options)), on="user")
    assert (events["interests"] == events["top"]).mean() == pytest.approx(0.1, abs=0.02)


def test_interests_drift_from_the_first_draw_to_the_second():
    options = {"num_users": 300, "sharpness": 1e3, "drift": 1.0}
    planted = planted_interests(**options)
    events = labels_of(simulate(**options, noise=0, **PLAIN))
    top = top_interests(planted, "start").join(top_interests(planted, "end"), on="user")
    events = events.join(top.filter(pl.col("top") != pl.col("top_right")), on="user").sort("time")
    early, late = events[: len(events) // 10], events[-len(events) // 10 :]
    assert (early["interests"] == early["top"]).mean() > 0.85
    assert (late["interests"] == late["top_right"]).mean() > 0.85


def test_planted_weights_sum_to_one_and_keep_still_without_drift():
    planted = planted_interests(num_users=20, num_interests=5, drift=0)
    sums = planted.group_by("user").agg(pl.col("start").sum())
    np.testing.assert_allclose(sums["start"], 1, rtol=1e-12)
    assert len(sums) == 20
    assert planted["start"].equals(planted["end"].alias("start"))


def test_drift_mixes_the_second_draw_in_by_its_share():
    options = {"num_users": 10, "num_interests": 3, "seed": 4}
    first, second = (
        planted_interests(drift=drift, **options)["end"].to_numpy() for drift in (0, 1)
    )
    mixed = planted_interests(drift=0.25, **options)["end"]
    np.testing.assert_allclose(mixed, 0.75 * first + 0.25 * second, rtol=1e-12)


def test_sharper_users_have_a_larger_first_interest():
    mean_top = [
        top_interests(planted_interests(sharpness=sharpness))["weight"].mean()
        for sharpness in (1, 6, 1000)
    ]
    assert mean_top[0] < 0.35
    assert mean_top[1] == pytest.approx(0.5, abs=0.06)
    assert mean_top[2] > 0.98


def test_popularity_within_an_interest_falls_as_one_over_rank():
    log = simulate(num_users=2000, num_items=8, num_interests=1, noise=0, **PLAIN)
    events = labels_of(log)
    counts = events["item"].value_counts(sort=True)["count"].to_numpy()
    expected = 1 / np.arange(1, 9)
    np.testing.assert_allclose(counts / counts.sum(), expected / expected.sum(), atol=0.01)


def test_people_are_awake_in_the_evening_and_busy_at_weekends():
    time = simulate(**PLAIN).events["time"]
    assert ((time.dt.hour() >= 17) & (time.dt.hour() < 23)).mean() > 0.4  # a quarter of the day
    assert ((time.dt.hour() >= 1) & (time.dt.hour() < 5)).mean() < 0.05
    assert (time.dt.weekday() >= 6).mean() > 2 / 7


def test_users_return_to_items_more_than_chance_would_have_it():
    events = simulate(num_items=5000, noise=1, **PLAIN).events  # all items, evenly
    events = events.filter(pl.col("kind") != "search")
    again = 1 - events.select("user", "item").n_unique() / len(events)
    assert 0.10 < again < 0.20


def test_searches_carry_a_word_of_the_interest_and_the_item_of_their_query():
    log = simulate(num_users=100, num_interests=3, **PLAIN)
    searches = log.events.filter(pl.col("kind") == "search")
    words = {word for topic in list(TOPICS)[:3] for word in TOPICS[topic].split()}
    assert set(searches["text"]) == words
    assert (searches["item"] == "search:" + searches["text"]).all()
    assert log.events.filter(pl.col("kind") != "search")["text"].null_count() == len(
        log.events
    ) - len(searches)


def test_all_kinds_occur_and_only_ratings_and_purchases_have_a_value():
    events = simulate(num_users=200, **PLAIN).events
    assert set(events["kind"]) == set(schema.KINDS)
    has_value = events.filter(pl.col("value").is_not_null())["kind"]
    assert set(has_value) == {"rating", "purchase"}
    ratings = events.filter(pl.col("kind") == "rating")["value"]
    assert (ratings.min(), ratings.max()) == (2, 5)


def test_each_fault_is_found_by_its_rule_of_cleaning():
    log = simulate(num_users=500, num_bots=2, faults=0.06)
    _, report = clean(log)
    dropped = dict(report.table.select("rule", "events_dropped").iter_rows())
    planted = log.num_events - 2 * 1800
    for rule in "missing_user missing_item missing_time impossible_time cancelled".split():
        assert dropped[rule] == pytest.approx(planted * 0.06 / 1.06 / 6, rel=0.2)
    assert dropped["duplicate"] == pytest.approx(dropped["missing_user"], rel=0.1)
    assert dropped["bot"] == pytest.approx(2 * 1800, rel=0.05)
    left, _ = clean(simulate(num_users=500, **PLAIN))
    assert left.num_users == 500


def test_interests_beyond_the_named_ones_are_numbered():
    log = simulate(num_users=50, num_items=40, num_interests=20, **PLAIN)
    labels = log.items["interests"].explode().drop_nulls().unique()
    assert len(labels) == 20
    assert "topic-20" in labels


def test_the_smallest_log_is_one_user_with_one_item():
    log = simulate(num_users=1, num_items=1, num_interests=1, events_per_user=1, days=1, **PLAIN)
    assert log.num_users == 1
    assert planted_interests(num_users=1, num_interests=1)["start"].to_list() == [1.0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_users": 0}, "num_users must be at least 1, got 0"),
        ({"num_interests": 0}, "num_interests must be at least 1, got 0"),
        ({"num_items": 3}, "num_items must be at least 12, got 3"),
        ({"days": 0}, "days must be at least 1, got 0"),
        ({"num_bots": -1}, "num_bots must be at least 0, got -1"),
        ({"drift": 1.1}, r"drift must be in \[0, 1\], got 1.1"),
        ({"noise": -0.1}, r"noise must be in \[0, 1\], got -0.1"),
        ({"faults": 2}, r"faults must be in \[0, 1\], got 2"),
        ({"sharpness": 0}, "sharpness must be above 0, got 0"),
        ({"events_per_user": float("nan")}, "events_per_user must be above 0, got nan"),
    ],
)
def test_simulate_rejects_what_is_outside_its_limits(options, message):
    with pytest.raises(ValueError, match=message):
        simulate(**options)


def test_planted_interests_rejects_what_is_outside_its_limits():
    with pytest.raises(ValueError, match="sharpness must be above 0, got -1"):
        planted_interests(sharpness=-1)
    with pytest.raises(ValueError, match="num_users must be at least 1, got 0"):
        planted_interests(num_users=0)
    with pytest.raises(ValueError, match=r"drift must be in \[0, 1\], got 7"):
        planted_interests(drift=7)


def test_all_of_a_tiny_log_may_be_faults():
    log = simulate(num_users=1, num_items=12, events_per_user=9, num_bots=0, faults=1.0, seed=5)
    assert log.num_events > 0
