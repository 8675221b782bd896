"""The attack finds whom a slow search over all people finds, and nobody else."""

from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
import pytest

from interestkit.privacy.generalising import Coarseness, generalised
from interestkit.privacy.linking import Attacker, facts_of, linkage_attack
from interestkit.schema import EVENT_COLUMNS
from interestkit.simulation import simulate

START = datetime(2024, 5, 1, tzinfo=UTC)


def events_of(rows):
    """Events from (user, item, days after the start)."""
    rows = [(u, i, START + timedelta(days=day), "view", None, None) for u, i, day in rows]
    return pl.DataFrame(rows, schema=EVENT_COLUMNS, orient="row")


def same_names(events):
    return {f"{name}s": events.select(name, released=name).unique() for name in ("user", "item")}


def attack(events, released=None, time="exact", attacker=None, **names):
    """Rows of the attack by their name."""
    names = same_names(events) | names
    released = events if released is None else released
    table = linkage_attack(events, released, **names, time=time, attacker=attacker, progress=False)
    return {row["attack"]: row for row in table.to_dicts()}


# Ann and Bob have the same two items, Bob a third; Cat has one of them, Dan another.
FOUR = events_of(
    [
        *(("ann", "x", 0), ("ann", "y", 0), ("bob", "x", 99), ("bob", "y", 99), ("bob", "z", 99)),
        *(("cat", "x", 50), ("dan", "w", 0)),
    ]
)


def test_people_are_found_who_alone_have_all_that_is_known():
    found = attack(FOUR, attacker=Attacker(days=1))
    row = found["items"]  # bob by z, dan by w; ann and bob have ann's, three have cat's
    assert (row["targets"], row["found"], row["rate"], row["wrong"]) == (4, 2, 0.5, 0.0)
    assert row["guess"] == pytest.approx((1 / 2 + 1 + 1 / 3 + 1) / 4)
    row = found["items and times"]  # nobody did anything on the day of another
    assert (row["found"], row["guess"], row["wrong"]) == (4, 1.0, 0.0)
    assert row["low"] == pytest.approx(0.025 ** (1 / 4))
    assert attack(FOUR, attacker=Attacker(days=0))["items and times"] == row  # to the microsecond


def test_a_person_who_lost_what_was_known_is_not_found_and_somebody_else_is_blamed():
    released = FOUR.filter((pl.col("user") != "ann") & (pl.col("item") != "z"))
    released = released.with_columns(pl.col("user").replace({"bob": "zoe"}))  # the last by name
    users = pl.DataFrame({"user": ["bob", "cat", "dan"], "released": ["zoe", "cat", "dan"]})
    row = attack(FOUR, released, users=users)["items"]
    assert row["found"] == 2  # bob and dan
    assert row["wrong"] == 0.25  # ann is taken for bob, who alone has x and y
    assert row["guess"] == pytest.approx((0 + 1 + 1 / 2 + 1) / 4)


def test_rare_items_count_more_than_frequent_ones():
    # The target had r (2 people) and f, g (4 people each). In the release one has r, one f and g.
    rest = [(user, item, 0) for user in ("p", "q", "s") for item in ("f", "g")]
    truth = events_of([("t", "r", 0), ("t", "f", 0), ("t", "g", 0)])
    released = events_of([("t", "r", 0), ("o", "r", 0), ("o", "h", 0), *rest])
    users = pl.DataFrame({"user": ["t"], "released": ["t"]})
    row = attack(truth, released, users=users)["items"]
    # r weighs 1/log 3 = 0.91, f and g 2/log 4 = 1.44 together: the three with both lead.
    assert (row["found"], row["guess"]) == (0, 0.0)
    released = released.filter(pl.col("item") != "g")  # f alone weighs 0.72: those with r lead
    assert attack(truth, released, users=users)["items"]["guess"] == 0.5


def test_a_search_is_not_known_and_a_dropped_item_fits_nobody():
    events = events_of([("a", "search:q", 0), ("a", "x", 0), ("b", "x", 0), ("b", "y", 0)])
    items = pl.DataFrame({"item": ["x", "y"], "released": ["x", None]})
    row = attack(events, events.filter(pl.col("item") != "y"), items=items)["items"]
    assert (row["targets"], row["found"], row["guess"]) == (2, 0, 0.5)


def slow_attack(events, released, users, items, time, attacker, with_times):
    """Number found, and expected by guessing, one target, one person, one fact after the other."""
    people = released["user"].unique().sort().to_list()
    size = released.group_by("item").agg(pl.col("user").n_unique()).rows()
    weight = {item: 1 / np.log(1 + n) for item, n in size}
    rows = {person: released.filter(user=person).select("item", "time").rows() for person in people}
    found = guess = 0
    for facts in facts_of(events, attacker).partition_by("target"):
        score = dict.fromkeys(people, 0.0)
        for fact in facts.to_dicts():
            span = [fact["guess"] + timedelta(days=s * attacker.days) for s in (-1, 1)]
            if time == "week":
                low = span[0].replace(hour=0, minute=0, second=0, microsecond=0)
                span[0] = low - timedelta(days=low.weekday())
            for person in people:
                if any(
                    item == items[fact["item"]] and (not with_times or span[0] <= at <= span[1])
                    for item, at in rows[person]
                ):
                    score[person] += weight[items[fact["item"]]]
        best = [p for p in people if score[p] >= max(score.values()) - 1e-9]
        own = users[facts["user"][0]]
        found += best == [own]
        guess += (own in best) / len(best)
    return found, guess


@pytest.mark.parametrize("time", ["exact", "week"])
def test_the_attack_equals_a_slow_one(time):
    log = simulate(
        num_users=25, num_items=30, num_interests=3, events_per_user=15, faults=0, seed=6
    )
    coarse, items = generalised(log, Coarseness(time=time, min_item_users=6))
    users = {name: f"p{number}" for number, name in enumerate(log.events["user"].unique().sort())}
    released = coarse.events.with_columns(pl.col("user").replace_strict(users))
    names = {"users": pl.DataFrame({"user": users.keys(), "released": users.values()})}
    attacker = Attacker(num_items=3, days=2.5, seed=1)
    fast = attack(log.events, released, time, attacker, **names, items=items)
    for with_times, row in ((True, fast["items and times"]), (False, fast["items"])):
        found, guess = slow_attack(
            log.events, released, users, dict(items.rows()), time, attacker, with_times
        )
        assert row["found"] == found
        assert row["guess"] == pytest.approx(guess / row["targets"])
    assert fast["items"]["found"] < fast["items and times"]["found"]


def test_blocks_change_nothing(monkeypatch):
    log = simulate(num_users=40, num_items=30, num_bots=0, faults=0, seed=6)
    whole = attack(log.events)
    monkeypatch.setattr("interestkit.privacy.linking._BLOCK_NUMBERS", 130)
    assert attack(log.events) == whole


def test_as_many_targets_and_items_as_asked_are_drawn_and_times_are_off_within_the_days():
    log = simulate(num_users=40, num_items=30, num_bots=0, faults=0, seed=6)
    facts = facts_of(log.events, Attacker(num_targets=7, num_items=3, days=2))
    assert facts["user"].n_unique() == facts["target"].n_unique() == 7
    assert facts.group_by("user").len()["len"].max() == 3
    assert not facts.select("user", "item").is_duplicated().any()
    off = (facts["guess"] - facts["time"]).dt.total_seconds().abs() / 86_400
    assert 1 < off.max() <= 2
    true = log.events.select("user", "item", "time").unique()
    assert len(facts.join(true, on=["user", "item", "time"], how="semi")) == len(facts)


def test_what_cannot_be_attacked_is_one_error():
    with pytest.raises(ValueError, match="both logs must have events, got none"):
        attack(FOUR, FOUR.clear())
    for name, value in (("num_items", 0), ("num_targets", 0)):
        with pytest.raises(ValueError, match=f"{name} must be at least ., got {value}"):
            Attacker(**{name: value})
    for value in (-1, np.inf):
        with pytest.raises(ValueError, match=rf"days must be in \[0, 36500\], got {value}"):
            Attacker(days=value)
    with pytest.raises(ValueError, match="an item that is no search, got 2 searches"):
        attack(events_of([("ann", "search:tea", 0), ("bob", "search:tea", 1)]))
