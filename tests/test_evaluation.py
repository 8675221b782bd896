"""One set of users, every model, every metric: the numbers are those that a hand finds."""

import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import polars as pl
import pytest

from interestkit.baselines import MostFrequent, Popular
from interestkit.evaluation import evaluate
from interestkit.heldout import HeldOut
from interestkit.histories import Histories

LOG2_3 = np.log2(3)
# Items 0..3 have 4, 2, 1, 1 events; item 4 is a search. Interests x, x, y, none.
FEATURES = SimpleNamespace(
    num_items=5,
    num_interests=2,
    is_candidate=np.array([True, True, True, True, False]),
    item_interests=np.array([[1, 0], [1, 0], [0, 1], [0, 0], [0, 0]], np.float32),
    items=pl.DataFrame({"events": pl.Series([4, 2, 1, 1, 8], dtype=pl.Int32)}),
)


PAST = ((0, 0, 2), (0,), (3,))  # interests x x y, x, and none


def truth_of(pairs, shares, first, past=PAST):
    """Truth from (user, code, is_seen); one row of shares and of first interests per user."""
    users = len(shares)
    return HeldOut(
        part="test",
        histories=Histories(
            users=np.array([f"user {n}" for n in range(users)]),
            offsets=np.cumsum([0, *map(len, past)], dtype=np.int32),
            item=np.concatenate(past).astype(np.int32),
            seconds=np.zeros(5, np.int32),
            weight=np.ones(5, np.float32),
            moment=np.zeros(users, np.int32),
        ),
        relevant=pl.DataFrame(
            pairs,
            schema={"user_code": pl.Int32, "code": pl.Int32, "is_seen": pl.Boolean},
            orient="row",
        ),
        interest_shares=np.array(shares, np.float32),
        next_interests=np.array(first),
    )


# user 0: items 0 (seen) and 2. user 1: item 1, and one that no catalogue has. user 2: item 3.
TRUTH = truth_of(
    [(0, 0, True), (0, 2, False), (1, 1, False), (1, -1, False), (2, 3, True)],
    shares=[(0.5, 0.5), (1, 0), (0, 0)],
    first=[(True, False), (True, False), (False, False)],
)


def none_of(pairs):
    """Truth of three users without later interests."""
    return truth_of(pairs, shares=[(0, 0)] * 3, first=[(False, False)] * 3)


class Fixed:
    """A ranker whose lists and interests are given; new items are listed apart."""

    def __init__(self, lists, new_lists, interests):
        self.lists = {False: np.array(lists), True: np.array(new_lists)}
        self.probabilities = np.array(interests, float)

    def rank(self, histories, *, k=10, exclude_seen=True):
        codes = self.lists[exclude_seen][: len(histories), :k]
        return codes, -np.ones(codes.shape, np.float32)

    def interests(self, histories):
        return self.probabilities[: len(histories)]


GOOD = Fixed(
    [[0, 2], [3, 1], [0, 1]], [[1, 2], [1, 0], [-1, -1]], [(0.6, 0.4), (0.75, 0.25), (0.5, 0.5)]
)
BAD = Fixed(
    [[3, 2], [0, 2], [0, 1]], [[1, 3], [2, 0], [0, 1]], [(0.4, 0.6), (0.25, 0.75), (0.5, 0.5)]
)
BEST = 1 + 1 / LOG2_3  # discounted gain of two hits at the top
NAN = np.nan
# two thirds x against a list of half x and half y, of which 1 % is the past
KL = 2 / 3 * np.log(2 / 3 / (0.99 / 2 + 0.01 * 2 / 3))
KL += 1 / 3 * np.log(1 / 3 / (0.99 / 2 + 0.01 * 1 / 3))
BY_HAND = {
    ("items", "NDCG@2"): [1, (1 / LOG2_3) / BEST, 0],
    ("items", "recall@2"): [1, 1 / 2, 0],  # the unknown item of user 1 stays in the denominator
    ("items", "precision@2"): [1, 1 / 2, 0],
    ("items", "MAP@2"): [(1 + 1) / 2, (1 / 2) / 2, 0],
    ("items", "MRR@2"): [1, 1 / 2, 0],
    ("items", "hit rate@2"): [1, 1, 0],
    # user 0 finds x, then y; user 1 x at rank 2; item 3 of user 2 has no interest
    ("items", "alpha-NDCG@2"): [1, 1 / LOG2_3, NAN],
    ("items", "user coverage@2"): [1, 1, 1],
    ("items", "diversity@2"): [1, NAN, 0],  # x and y; x and nothing; x and x
    # by popularity items 0, 1, 2 and 3 have places 1, 2, 3 and 3 of 4 candidates
    ("items", "serendipity@2"): [(3 - 2) / 4 / 2, 0, 0],
    ("items", "miscalibration@2"): [KL, 0, NAN],
    # shares of the 16 events: 4, 2, 1 and 1 of 16 are 2, 3, 4 and 4 bits
    ("items", "novelty@2"): [(2 + 4) / 2, (4 + 3) / 2, (2 + 3) / 2],
    ("new items", "NDCG@2"): [1 / LOG2_3, 1 / BEST, NAN],
    ("new items", "recall@2"): [1, 1 / 2, NAN],
    ("new items", "precision@2"): [1 / 2, 1 / 2, NAN],
    ("new items", "MAP@2"): [(1 / 2) / 1, 1 / 2, NAN],
    ("new items", "MRR@2"): [1 / 2, 1, NAN],
    ("new items", "hit rate@2"): [1, 1, NAN],
    ("new items", "alpha-NDCG@2"): [1 / LOG2_3, 1, NAN],
    ("new items", "user coverage@2"): [1, 1, 0],
    ("new items", "diversity@2"): [1, 0, NAN],
    ("new items", "serendipity@2"): [(3 - 2) / 4 / 2, (2 - 1) / 4 / 2, NAN],
    ("new items", "miscalibration@2"): [KL, 0, NAN],
    ("new items", "novelty@2"): [(3 + 4) / 2, (3 + 2) / 2, NAN],
    ("interests", "accuracy"): [1, 1, NAN],
    ("interests", "accuracy@1"): [1, 1, NAN],
    ("interests", "NDCG@1"): [1, 1, NAN],
    ("interests", "recall@1"): [1 / 2, 1, NAN],
    ("interests", "log loss"): [-(np.log(0.6) + np.log(0.4)) / 2, -np.log(0.75), NAN],
}


@pytest.fixture(scope="module")
def both():
    return evaluate({"model": GOOD, "other": BAD}, TRUTH, FEATURES, k=2, interest_k=1)


def values(evaluated, target, metric, model="model"):
    rows = evaluated.per_user.filter(target=target, metric=metric, model=model)
    return rows["value"].to_numpy()


@pytest.mark.parametrize("place", BY_HAND, ids=" ".join)
def test_metric_equals_the_value_found_by_hand(both, place):
    np.testing.assert_allclose(values(both, *place), BY_HAND[place], rtol=1e-6, atol=1e-7)


def test_there_are_no_other_metrics(both):
    found = both.per_user.select("target", "metric").unique().rows()
    assert set(found) == set(BY_HAND)
    assert both.per_user["user"].unique().sort().to_list() == ["user 0", "user 1", "user 2"]


def test_metrics_of_all_lists_together_equal_hand_computed_values(both):
    overall = both.overall.filter(model="model")
    expected = [
        # items 0, 2, 3, 1 of four candidates; then 1, 2, 0; then x alone (ties: the first)
        ("items", "catalogue coverage@2", 1.0),
        ("items", "Gini@2", (-3 * 1 - 1 * 1 + 1 * 2 + 3 * 2) / (4 * 6)),  # listed 2, 2, 1, 1 times
        ("new items", "catalogue coverage@2", 0.75),
        ("new items", "Gini@2", (-1 * 1 + 1 * 1 + 3 * 2) / (4 * 4)),  # 1, 2, 1, 0 times
        ("interests", "ECE", (abs(0.5 - 0.6) + abs(1 - 0.75)) / 2),
        ("interests", "interest coverage@1", 0.5),
    ]
    assert overall.select("target", "metric").rows() == [row[:2] for row in expected]
    found = overall["value"].to_numpy()
    np.testing.assert_allclose(found, [row[2] for row in expected], rtol=1e-6)


def test_reliability_counts_judged_users_by_confidence(both):
    bins = both.reliability.filter(pl.col("count") > 0, model="model")
    # 0.6 = 9 / 15 closes the bin 8/15..9/15; 0.75 = 11.25 / 15; the third user has no interests
    assert bins["high"].to_list() == pytest.approx([9 / 15, 12 / 15])
    assert bins.select("seed", "count").rows() == [(0, 1), (0, 1)]
    np.testing.assert_allclose(bins["confidence"], [0.6, 0.75], rtol=1e-6)
    np.testing.assert_allclose(bins["accuracy"], [0.5, 1.0], rtol=1e-6)
    assert len(both.reliability) == 2 * 15


def test_users_with_nothing_to_find_are_counted(both):
    assert repr(both).splitlines() == [
        "Evaluation('test', 3 users, models model, other)",
        "  items: 3 users judged",
        "  new items: 2 users judged, 1 with nothing to find left out",
        "  interests: 2 users judged, 1 with nothing to find left out",
    ]


def test_table_has_means_over_users_with_a_value(both):
    table = both.table()
    row = table.filter(target="new items", model="model", metric="NDCG@2").row(0, named=True)
    assert row["value"] == pytest.approx((1 / LOG2_3 + 1 / BEST) / 2, rel=1e-6)
    assert row["low"] == pytest.approx(1 / BEST, rel=1e-6)
    assert row["high"] == pytest.approx(1 / LOG2_3, rel=1e-6)
    assert (row["users"], row["seeds"], row["spread"]) == (2, 1, None)
    assert table.schema["spread"] == pl.Float64  # though nobody has several seeds here
    coverage = table.filter(metric="interest coverage@1", model="other").row(0, named=True)
    assert (coverage["value"], coverage["low"], coverage["users"]) == (1.0, None, 3)
    assert len(table) == 2 * (len(BY_HAND) + 6)


def test_gains_are_differences_of_the_same_users(both):
    gains = both.gains()
    row = gains.filter(target="interests", metric="log loss").row(0, named=True)
    ours, theirs = BY_HAND["interests", "log loss"], [None, -np.log(0.25)]
    # user 0: both lose the same
    assert row["over"] == "other"
    assert row["gain"] == pytest.approx((0 + ours[1] - theirs[1]) / 2, rel=1e-5)
    assert (row["low"], row["high"]) == pytest.approx((ours[1] - theirs[1], 0), rel=1e-5, abs=1e-7)
    assert (row["users"], row["left_out"]) == (2, 1)
    assert (row["better"], row["worse"]) == (0.5, 0.0)  # a smaller loss is a better one
    assert row["p"] == 1.0  # one user differs: both of two patterns of signs are as far
    assert (row["seeds"], row["spread"]) == (1, None)
    back = both.gains("other").filter(target="interests", metric="log loss").row(0, named=True)
    assert back["gain"] == pytest.approx(-row["gain"])
    assert (back["better"], back["worse"]) == (0.0, 0.5)


def test_holm_is_over_all_rows_of_the_gains(study, rankers):
    judged = evaluate(rankers | {"again": rankers["own"]}, study.test, study.features, k=5)
    gains = judged.gains("own")
    assert set(gains["over"]) == {"model", "again"}
    p, adjusted = gains["p"].to_numpy(), gains["p_holm"].to_numpy()
    smallest = np.nanargmin(p)
    assert p[smallest] == 1 / 10_000
    assert adjusted[smallest] == pytest.approx((~np.isnan(p)).sum() / 10_000)
    same = gains.filter(over="again")
    assert set(same["p"]) == {1.0}
    assert set(same["gain"]) == set(same["better"]) == set(same["worse"]) == {0.0}


def test_an_infinite_loss_is_called_infinite(tmp_path):
    never = Fixed(GOOD.lists[False], GOOD.lists[True], [(0.6, 0.4), (0, 1), (0.5, 0.5)])
    evaluated = evaluate({"model": GOOD, "never": never}, TRUTH, FEATURES, k=2, interest_k=1)
    assert evaluated.notes[-1] == "interests: log loss of 'never' is infinite for 1 of 3 users"
    row = evaluated.table().filter(model="never", metric="log loss").row(0, named=True)
    assert (row["value"], row["high"], row["users"]) == (np.inf, np.inf, 2)
    # a quarter of the resamples is user 0 alone
    assert row["low"] == pytest.approx(BY_HAND["interests", "log loss"][0], rel=1e-6)
    gain = evaluated.gains().filter(metric="log loss").row(0, named=True)
    assert (gain["gain"], gain["low"], gain["high"]) == (-np.inf, -np.inf, 0)
    assert np.isnan([gain["p"], gain["p_holm"], gain["effect"]]).all()
    assert (gain["better"], gain["users"]) == (0.5, 2)
    evaluated.save(tmp_path, data="made", split="temporal")
    results = json.loads((tmp_path / "results.json").read_text("utf-8"))
    assert evaluated.notes[-1] in results["notes"]


def test_gains_of_one_model_alone_have_no_rows():
    alone = evaluate({"model": GOOD}, TRUTH, FEATURES, k=2, interest_k=1).gains()
    assert alone.is_empty()
    assert {"gain", "p_holm", "better", "spread"} <= set(alone.columns)


def test_gains_leave_out_users_whom_one_of_the_models_leaves_undefined(both):
    # novelty of new items: GOOD lists nothing for user 2, BAD does
    row = both.gains().filter(target="new items", metric="novelty@2").row(0, named=True)
    bad = [(3 + 4) / 2, (4 + 2) / 2]
    assert row["users"] == 2
    assert row["gain"] == pytest.approx((3.5 - bad[0] + 2.5 - bad[1]) / 2)
    swapped = replace(
        both,
        per_user=both.per_user.with_columns(
            value=pl.when(
                (pl.col("metric") == "recall@2")
                & (pl.col("user") == "user 0")
                & (pl.col("model") == "other")
            )
            .then(float("nan"))
            .otherwise("value")
        ),
    )
    row = swapped.gains().filter(target="items", metric="recall@2").row(0, named=True)
    assert (row["users"], row["gain"]) == (2, pytest.approx((1 / 2 - 0 + 0 - 0) / 2))


def test_seeds_are_averaged_per_user_and_their_spread_is_shown():
    seeds = evaluate({"model": [GOOD, BAD], "other": BAD}, TRUTH, FEATURES, k=2, interest_k=1)
    row = seeds.table().filter(target="items", model="model", metric="recall@2").row(0, named=True)
    good, bad = (1 + 1 / 2 + 0) / 3, (1 / 2 + 0 + 0) / 3
    assert row["value"] == pytest.approx((good + bad) / 2, rel=1e-6)
    assert row["spread"] == pytest.approx(np.std([good, bad], ddof=1), rel=1e-6)
    assert (row["seeds"], row["users"]) == (2, 3)
    gain = seeds.gains().filter(target="items", metric="recall@2").row(0, named=True)
    assert gain["gain"] == pytest.approx((good - bad) / 2, rel=1e-6)
    assert gain["seeds"] == 2
    assert gain["spread"] == pytest.approx(np.std([good - bad, 0], ddof=1), rel=1e-6)


def test_users_in_another_order_give_the_same_table(both):
    order = [2, 0, 1]
    pairs = [(order.index(user), code, seen) for user, code, seen in TRUTH.relevant.rows()]
    shares, first = TRUTH.interest_shares[order], TRUTH.next_interests[order]
    turned = truth_of(pairs, shares, first, past=[PAST[user] for user in order])
    models = {
        name: Fixed(r.lists[False][order], r.lists[True][order], r.probabilities[order])
        for name, r in {"model": GOOD, "other": BAD}.items()
    }
    table = evaluate(models, turned, FEATURES, k=2, interest_k=1).table()
    np.testing.assert_allclose(
        table["value"].to_numpy(), both.table()["value"].to_numpy(), rtol=1e-6
    )


@pytest.mark.parametrize(
    "pairs",
    [
        pytest.param([(0, -1, False)], id="only-unknown-items"),
        pytest.param([(0, -1, False), (0, 3, False)], id="unknown-items-and-one-without-label"),
        pytest.param([], id="nothing-at-all"),
        pytest.param([(0, 3, True)], id="only-seen-items"),
    ],
)
def test_users_without_relevant_items_are_undefined_or_miss(pairs):
    evaluated = evaluate({"model": GOOD}, none_of(pairs), FEATURES, k=2, interest_k=1)
    expected = 0.0 if pairs and not pairs[0][2] else NAN
    np.testing.assert_array_equal(values(evaluated, "new items", "NDCG@2"), [expected, NAN, NAN])
    alpha = values(evaluated, "new items", "alpha-NDCG@2")
    np.testing.assert_array_equal(alpha, [expected, NAN, NAN])
    row = evaluated.table().filter(target="new items", metric="alpha-NDCG@2").row(0, named=True)
    np.testing.assert_array_equal(row["value"], expected)
    assert row["users"] == (0 if np.isnan(expected) else 1)


def test_gains_in_what_is_defined_for_nobody_are_undefined_without_a_warning(tmp_path):
    models = {"model": [GOOD, BAD], "other": BAD}
    nothing = evaluate(models, none_of([]), FEATURES, k=2, interest_k=1)
    row = nothing.gains().filter(target="items", metric="NDCG@2").row(0, named=True)
    assert np.isnan([row["gain"], row["low"], row["high"], row["p"], row["spread"]]).all()
    assert (row["users"], row["left_out"], row["seeds"]) == (0, 3, 2)
    nothing.save(tmp_path, data="made", split="temporal")
    saved = json.loads((tmp_path / "results.json").read_text("utf-8"))["gains"]
    assert {each["gain"] for each in saved if each["metric"] == "NDCG@2"} == {None}


@pytest.fixture(scope="module")
def rankers(study):
    log = {"features": study.features, "log": study.histories}
    return {"model": Popular(**log), "own": MostFrequent(**log)}


def test_popularity_is_between_nothing_and_the_own_habits(study, rankers):
    table = evaluate(rankers, study.test, study.features).table()
    value = {(target, model, metric): v for target, model, metric, v, *_ in table.rows()}
    assert 0 < value["items", "model", "NDCG@10"] < value["items", "own", "NDCG@10"] < 1
    assert value["interests", "own", "log loss"] < value["interests", "model", "log loss"]
    assert (table["low"] <= table["value"] + 1e-6).all()
    assert (table["value"] <= table["high"] + 1e-6).all()


def test_saved_results_hold_the_tables(both, tmp_path):
    both.save(tmp_path, data="made", split="temporal")
    assert pl.read_parquet(tmp_path / "metrics.parquet").equals(both.per_user)
    assert pl.read_parquet(tmp_path / "reliability.parquet").equals(both.reliability)
    results = json.loads((tmp_path / "results.json").read_text("utf-8"))
    assert (results["data"], results["split"], results["part"]) == ("made", "temporal", "test")
    assert len(results["table"]) == len(both.table())
    assert len(results["gains"]) == len(both.gains())


def test_saved_results_have_null_for_nan(tmp_path):
    one = evaluate({"model": GOOD}, none_of([]), FEATURES, k=2, interest_k=1)
    one.save(tmp_path, data="made", split="temporal")
    results = json.loads((tmp_path / "results.json").read_text("utf-8"))
    assert results["table"][0]["value"] is None
    assert "gains" not in results


def test_evaluate_names_what_is_wrong(study, both, rankers):
    with pytest.raises(ValueError, match="rankers must name at least one model, got none"):
        evaluate({}, TRUTH, FEATURES)
    for interest_k in (0, 3):
        message = rf"interest_k must be in 1\.\.2 \(the interests\), got {interest_k}"
        with pytest.raises(ValueError, match=message):
            evaluate({"model": GOOD}, TRUTH, FEATURES, k=2, interest_k=interest_k)
    with pytest.raises(ValueError, match=r"k must be in 1\.\.84 \(the catalogue\), got 85"):
        evaluate(rankers, study.test, study.features, k=85)
    with pytest.raises(ValueError, match="model must be one of model, other, got 'mine'"):
        both.gains("mine")
