"""One set of users, every model, every metric: the numbers are those that a hand finds."""

import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import polars as pl
import pytest

from interestkit import evaluation, metrics
from interestkit.baselines import MostFrequent, Popular
from interestkit.evaluation import bootstrap_interval, evaluate
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


def truth_of(pairs, shares, first):
    """Truth from (user, code, is_seen); one row of shares and of first interests per user."""
    users = len(shares)
    return HeldOut(
        part="test",
        histories=Histories(
            users=np.array([f"user {n}" for n in range(users)]),
            offsets=np.zeros(users + 1, np.int32),
            item=np.zeros(0, np.int32),
            seconds=np.zeros(0, np.int32),
            weight=np.zeros(0, np.float32),
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
BY_HAND = {
    ("items", "NDCG@2"): [1, (1 / LOG2_3) / BEST, 0],
    ("items", "recall@2"): [1, 1 / 2, 0],  # the unknown item of user 1 stays in the denominator
    ("items", "hit rate@2"): [1, 1, 0],
    # user 0 finds x, then y; user 1 x at rank 2; item 3 of user 2 has no interest
    ("items", "alpha-NDCG@2"): [1, 1 / LOG2_3, NAN],
    ("items", "user coverage@2"): [1, 1, 1],
    # shares of the 16 events: 4, 2, 1 and 1 of 16 are 2, 3, 4 and 4 bits
    ("items", "novelty@2"): [(2 + 4) / 2, (4 + 3) / 2, (2 + 3) / 2],
    ("new items", "NDCG@2"): [1 / LOG2_3, 1 / BEST, NAN],
    ("new items", "recall@2"): [1, 1 / 2, NAN],
    ("new items", "hit rate@2"): [1, 1, NAN],
    ("new items", "alpha-NDCG@2"): [1 / LOG2_3, 1, NAN],
    ("new items", "user coverage@2"): [1, 1, 0],
    ("new items", "novelty@2"): [(3 + 4) / 2, (3 + 2) / 2, NAN],
    ("interests", "accuracy"): [1, 1, NAN],
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
    np.testing.assert_allclose(values(both, *place), BY_HAND[place], rtol=1e-6)


def test_there_are_no_other_metrics(both):
    found = both.per_user.select("target", "metric").unique().rows()
    assert set(found) == set(BY_HAND)
    assert both.per_user["user"].unique().sort().to_list() == ["user 0", "user 1", "user 2"]
    assert repr(both) == "Evaluation('test', 3 users, models model, other)"


def test_coverage_is_of_the_candidates_alone(both):
    overall = both.overall.filter(model="model")
    assert overall.rows() == [
        # items 0, 2, 3, 1 of four candidates; then 1, 2, 0; then x alone (ties: the first)
        ("items", "model", "catalogue coverage@2", 0, 1.0),
        ("new items", "model", "catalogue coverage@2", 0, 0.75),
        ("interests", "model", "interest coverage@1", 0, 0.5),
    ]


def test_table_has_means_over_users_with_a_value(both):
    table = both.table()
    row = table.filter(target="new items", model="model", metric="NDCG@2").row(0, named=True)
    assert row["value"] == pytest.approx((1 / LOG2_3 + 1 / BEST) / 2, rel=1e-6)
    assert row["low"] == pytest.approx(1 / BEST, rel=1e-6)
    assert row["high"] == pytest.approx(1 / LOG2_3, rel=1e-6)
    assert (row["users"], row["seeds"], row["spread"]) == (2, 1, None)
    coverage = table.filter(metric="interest coverage@1", model="other").row(0, named=True)
    assert (coverage["value"], coverage["low"], coverage["users"]) == (1.0, None, 3)
    assert len(table) == 2 * (len(BY_HAND) + 3)


def test_gains_are_differences_of_the_same_users(both):
    gains = both.gains()
    row = gains.filter(target="interests", metric="log loss").row(0, named=True)
    ours, theirs = BY_HAND["interests", "log loss"], [None, -np.log(0.25)]
    # user 0: both lose the same
    assert row["over"] == "other"
    assert row["gain"] == pytest.approx((0 + ours[1] - theirs[1]) / 2, rel=1e-5)
    assert (row["low"], row["high"]) == pytest.approx((ours[1] - theirs[1], 0), rel=1e-5)
    assert row["users"] == 2
    back = both.gains("other").filter(target="interests", metric="log loss").row(0, named=True)
    assert back["gain"] == pytest.approx(-row["gain"])


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


def test_users_in_another_order_give_the_same_table(both):
    order = [2, 0, 1]
    pairs = [(order.index(user), code, seen) for user, code, seen in TRUTH.relevant.rows()]
    turned = truth_of(pairs, TRUTH.interest_shares[order], TRUTH.next_interests[order])
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


@pytest.fixture(scope="module")
def rankers(study):
    log = {"features": study.features, "log": study.histories}
    return {"model": Popular(**log), "own": MostFrequent(**log)}


@pytest.mark.parametrize("block", [1, 7, 128])
def test_alpha_ndcg_does_not_depend_on_the_size_of_blocks(study, rankers, monkeypatch, block):
    codes, _ = rankers["own"].rank(study.test.histories, k=5, exclude_seen=False)
    hits = study.test.hits(0, codes)
    monkeypatch.setattr(evaluation, "_ALPHA_BLOCK", block)
    actual = evaluation._alpha_ndcg(codes, hits, study.test, study.features, False)
    np.testing.assert_allclose(actual, one_call_alpha_ndcg(study, codes, hits), rtol=1e-6)


def one_call_alpha_ndcg(study, codes, hits):
    """alpha-NDCG of all users at once, from tables made in plain loops."""
    relevant = {user: [] for user in range(len(codes))}
    for user, code, _ in study.test.relevant.rows():
        if code >= 0:
            relevant[user].append(code)
    has_label = study.features.item_interests > 0
    shape = (len(codes), max(map(len, relevant.values())), has_label.shape[1])
    ideal, listed = np.zeros(shape, bool), np.zeros((*codes.shape, shape[2]), bool)
    for user, own in relevant.items():
        ideal[user, : len(own)] = has_label[own]
        for rank in np.flatnonzero(hits[user]):
            listed[user, rank] = has_label[codes[user, rank]]
    return metrics.alpha_ndcg_at_k(listed, ideal, k=codes.shape[1])


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


def test_bootstrap_interval_is_that_of_the_normal_approximation_for_many_users():
    values = np.random.default_rng(0).normal(3, 2, 4000)
    low, high = bootstrap_interval(values)
    half = 1.96 * values.std() / np.sqrt(len(values))
    # an end of 1,000 resamples has a standard error of about 0.09 half-widths
    np.testing.assert_allclose(
        [low, high], values.mean() + np.array([-half, half]), atol=0.4 * half
    )
    narrow = bootstrap_interval(values, share=0.5)
    assert narrow[1] - narrow[0] == pytest.approx((high - low) * 0.6745 / 1.96, rel=0.15)


def test_bootstrap_intervals_cover_the_true_mean_as_often_as_they_say():
    rng = np.random.default_rng(1)
    samples = rng.exponential(1.0, (400, 60))
    intervals = np.array([bootstrap_interval(sample) for sample in samples])
    covered = ((intervals[:, 0] <= 1) & (intervals[:, 1] >= 1)).mean()
    # 95 % minus what skewness costs at 60 users (about 2 points), four standard errors around
    assert 0.93 - 4 * 0.0128 < covered < 0.95 + 4 * 0.0109


def test_bootstrap_leaves_out_nan_and_has_no_interval_of_nothing():
    assert bootstrap_interval(np.array([2.0, np.nan, 2.0])) == (2.0, 2.0)
    assert np.isnan(bootstrap_interval(np.array([np.nan]))).all()
    assert bootstrap_interval(np.arange(9.0)) == bootstrap_interval(np.arange(9.0))
    assert bootstrap_interval(np.arange(9.0)) != bootstrap_interval(np.arange(9.0), seed=1)


@pytest.mark.parametrize("share", [0, 1])
def test_bootstrap_rejects_impossible_shares(share):
    with pytest.raises(ValueError, match=rf"share must be in \(0, 1\), got {share}"):
        bootstrap_interval(np.ones(3), share=share)


def test_evaluate_names_what_is_wrong(study, both, rankers):
    with pytest.raises(ValueError, match="rankers must name at least one model, got none"):
        evaluate({}, TRUTH, FEATURES)
    for interest_k in (0, 3):
        message = rf"interest_k must be in 1\.\.2 \(the interests\), got {interest_k}"
        with pytest.raises(ValueError, match=message):
            evaluate({"model": GOOD}, TRUTH, FEATURES, k=2, interest_k=interest_k)
    with pytest.raises(ValueError, match=r"k must be in 1\.\.84 \(the catalogue\), got 85"):
        evaluate(rankers, study.test, study.features, k=85)
    with pytest.raises(ValueError, match=r"model must be one of \['model', 'other'\], got 'mine'"):
        both.gains("mine")
