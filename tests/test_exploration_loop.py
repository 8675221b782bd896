"""The loop is the same for every policy, learns from choices, and narrows without exploration."""

import numpy as np
import polars as pl
import pytest

from interestkit.baselines import Popular
from interestkit.exploration.loop import (
    MEASURES,
    Rounds,
    default_policies,
    novel_places,
    simulate_rounds,
)
from interestkit.exploration.planning import Plan
from interestkit.exploration.world import Audience, World

WORLD = World(num_users=60, num_items=48, num_interests=6)


def popular(features, log, _=0):
    return Popular(features=features, log=log)


@pytest.fixture(scope="module")
def found():
    policies = default_policies()
    some = {name: policies[name] for name in ("calibrated", "random places")}
    return simulate_rounds(some, world=WORLD, rounds=25, seeds=[0, 1], progress=False)


def test_first_rounds_are_those_by_hand():
    rounds = simulate_rounds(
        {"popular": popular}, world=WORLD, rounds=2, k=4, seeds=[3], progress=False
    )
    audience = Audience(WORLD, seed=3)
    counts = np.bincount(audience.log.item, minlength=audience.features.num_items)
    lists = np.tile(np.argsort(-counts, kind="stable")[:4], (len(audience.log), 1))
    values = dict(rounds.table.filter(round=1).select("metric", "value").iter_rows())
    assert values["utility"] == pytest.approx(audience.utility(lists).mean())
    assert values["interests found"] == pytest.approx(np.nanmean(audience.found()))
    labels = np.bincount(audience.interest_of[lists[0]]) / 4
    bits = -sum(p * np.log2(p) for p in labels if p > 0)
    assert values["entropy of lists"] == pytest.approx(bits)
    own = audience.weights
    bits = -np.where(own > 0, own * np.log2(np.maximum(own, 1e-300)), 0).sum(axis=1).mean()
    assert values["entropy of interests"] == pytest.approx(bits)
    assert set(values) == set(MEASURES)
    rank = audience.choose(lists, moment=audience.end + 86_400)
    shown = rounds.shown.filter(round=1)
    assert shown["chosen"].sum() == (rank >= 0).sum()
    assert shown["propensity"].is_nan().all()  # Popular knows none
    audience.expose(lists)
    utility = rounds.table.filter(round=2, metric="utility, first interests")["value"].item()
    assert utility == pytest.approx(audience.utility(lists, Audience(WORLD, seed=3).weights).mean())


def test_lists_narrow_without_exploration_and_exploration_finds_more(found):
    curve = found.curve()

    def at(policy, metric, number):
        return curve.filter(policy=policy, metric=metric, round=number)["value"].item()

    assert at("calibrated", "entropy of lists", 25) < at("calibrated", "entropy of lists", 1) - 0.1
    last = found.against("calibrated").filter(rounds="last", policy="random places")
    gains = dict(last.select("metric", "gain").iter_rows())
    assert gains["entropy of lists"] > 0.1
    assert gains["interests found"] > 0.03


def test_random_places_log_their_propensity(found):
    shown = found.shown.filter(policy="random places")
    expected = np.array([0.9, 0.1 / (Audience(WORLD, seed=0).features.num_items - 10)])
    assert set(shown["propensity"].round(9)) == set(expected.round(9))
    rare = (shown["propensity"] < 0.5).mean()
    assert abs(rare - 0.1) < 4 * np.sqrt(0.09 / len(shown))


def test_all_policies_start_with_the_same_users(found):
    first = found.table.filter(round=1, metric="interests found")
    assert first.group_by("seed").agg(pl.col("value").n_unique())["value"].to_list() == [1, 1]


def test_one_seed_gives_one_result():
    settings = {"world": WORLD, "rounds": 3, "seeds": [2], "progress": False}
    policies = default_policies()
    some = {name: policies[name] for name in ("novel interests", "Thompson")}
    first, again = (simulate_rounds(some, **settings).table for _ in range(2))
    assert first.equals(again)


def test_a_policy_is_fitted_every_few_rounds_on_the_log_so_far():
    sizes = []

    def policy(features, log, _):
        sizes.append(len(log.item))
        return popular(features, log)

    simulate_rounds({"p": policy}, world=WORLD, rounds=5, refit_every=2, seeds=[0], progress=False)
    assert len(sizes) == 3
    assert sizes[0] == len(Audience(WORLD, seed=0).log.item)
    assert sizes[0] < sizes[1] < sizes[2]


def test_a_planner_of_your_own_gets_its_places():
    audience = Audience(WORLD, seed=0)
    known = audience.at(audience.end)
    names = audience.features.interests

    def planner(features, log):
        del features, log
        return lambda histories: [[Plan(name, "") for name in names] for _ in range(len(histories))]

    plain = popular(audience.features, known).rank(known, k=5)[0]
    ranker = novel_places(popular, planner, places=2)(audience.features, known, 0)
    codes = ranker.rank(known, k=5)[0]
    for user in range(len(known)):
        touched = set(audience.interest_of[known.seen(user)])
        new = [code for code in codes[user] if audience.interest_of[code] not in touched]
        assert len(new) >= min(2, len(names) - len(touched))
    assert not np.array_equal(plain, codes)


def test_intervals_and_gains_are_those_by_hand():
    rows = [("a", 0, 1, 1.0), ("a", 1, 1, 3.0), ("b", 0, 1, 2.0), ("b", 1, 1, 5.0)]
    columns = ["policy", "seed", "round", "value"]
    table = pl.DataFrame(rows, schema=columns, orient="row").with_columns(metric=pl.lit("m"))
    rounds = Rounds(table=table, shown=table)
    half = 12.706204736 * np.sqrt(2) / np.sqrt(2)  # t of one degree, deviation of 1 and 3
    first = rounds.curve().row(0, named=True)
    assert (first["value"], first["seeds"]) == (2.0, 2)
    assert first["high"] == pytest.approx(2 + half)
    gain = rounds.against("a").row(0, named=True)
    assert (gain["policy"], gain["gain"]) == ("b", 1.5)
    half = 12.706204736 * np.sqrt(0.5) / np.sqrt(2)
    assert gain["low"] == pytest.approx(1.5 - half)
    single = Rounds(table=table.filter(seed=0), shown=table).curve()
    assert single["low"].is_nan().all()
    with pytest.raises(ValueError, match="base must be one of"):
        rounds.against("c")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"rounds": 0}, "rounds must be at least 1, got 0"),
        ({"seeds": []}, "policies and seeds must hold at least one each"),
        ({"policies": {}}, "policies and seeds must hold at least one each"),
    ],
)
def test_settings_out_of_range_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        simulate_rounds(**settings)
