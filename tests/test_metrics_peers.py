"""Our metrics against the answers of other packages, user by user, and where they differ.

`benchmarks/peers/metrics.py` made the cases and asked; docs/metrics.md tells the differences.
"""

import json
from pathlib import Path

import numpy as np
import pytest

from interestkit import metrics

FIXTURE = Path(__file__).parent / "fixtures" / "peer_metrics.npz"
RANKS, BINS = 10, 15
PEERS = ("RecTools", "TorchMetrics", "ranx", "trec_eval")


@pytest.fixture(scope="module")
def peers():
    """Cases and answers; the answers of all users as one array for each name."""
    found = dict(np.load(FIXTURE))
    for name in [name for name in found if name.startswith("names of")]:
        found |= zip(found[name], found[name.replace("names", "answers")].T, strict=True)
    return found


@pytest.fixture(scope="module")
def lists(peers):
    """Codes, grades of the codes, all grades, and items to find: what our metrics judge."""
    scores = np.where(peers["scores"] == 255, -np.inf, peers["scores"]).astype(np.float32)
    items = np.asarray(metrics.top_k(scores, RANKS)[1])
    grades = peers["grades"].astype(int)
    listed = np.take_along_axis(grades, np.maximum(items, 0), axis=1) * (items >= 0)
    return items, listed, grades, (grades > 0).sum(axis=1)


@pytest.fixture(scope="module")
def ours(peers, lists):
    """Our values, each user's at the user's own k."""
    items, listed, grades, wanted = lists
    hits, cut = listed > 0, peers["k"]
    labels, vectors = np.eye(4)[peers["item_label"]], peers["vectors"].astype(float)

    def at_own_k(metric):
        values = np.full(len(cut), np.nan)
        for k in np.unique(cut).tolist():
            values[cut == k] = np.asarray(metric(k))[cut == k]
        return values

    all_of = {
        "precision": lambda k: metrics.precision_at_k(hits, wanted, k=k),
        "recall": lambda k: metrics.recall_at_k(hits, wanted, k=k),
        "hit rate": lambda k: metrics.hit_rate_at_k(hits, wanted, k=k),
        "reciprocal rank": lambda k: metrics.reciprocal_rank_at_k(hits, wanted, k=k),
        "average precision": lambda k: metrics.average_precision_at_k(
            hits, wanted, k=k, truncated=False
        ),
        "truncated": lambda k: metrics.average_precision_at_k(hits, wanted, k=k),
        "ndcg": lambda k: metrics.ndcg_at_k(hits, wanted, k=k),
        "graded ndcg": lambda k: metrics.graded_ndcg_at_k(listed, grades, k=k),
        "graded ndcg, exponential gain": lambda k: metrics.graded_ndcg_at_k(
            2**listed - 1, 2**grades - 1, k=k
        ),
        "serendipity": lambda k: metrics.serendipity(items, hits, wanted, peers["num_events"], k=k),
        "tied": lambda k: metrics.serendipity(items, hits, wanted, peers["tied_events"], k=k),
        "novelty": lambda k: metrics.novelty(items[:, :k], peers["num_events"]),
        "diversity of vectors": lambda k: metrics.intra_list_diversity(items[:, :k], vectors),
        "diversity": lambda k: metrics.intra_list_diversity(items[:, :k], labels),
    }
    return {name: at_own_k(metric) for name, metric in all_of.items()}


def close(actual, expected, rtol=0):
    np.testing.assert_allclose(actual, expected, rtol=rtol, atol=1e-6)


SAME = [
    *(f"{metric} | {peer}" for metric in ("precision", "recall", "hit rate") for peer in PEERS),
    *(f"reciprocal rank | {peer}" for peer in PEERS),
    *(f"average precision | {peer}" for peer in PEERS if peer != "TorchMetrics"),
    *(f"graded ndcg | {peer}" for peer in ("TorchMetrics", "ranx", "scikit-learn", "trec_eval")),
    "graded ndcg, exponential gain | ranx",
    "ndcg | RecTools",
    "average precision | recommenders",
    "truncated | recommenders",
    "serendipity | RecTools",
]


def test_fixture_says_how_it_was_made_and_holds_every_kind_of_case(peers, lists, ours):
    about = json.loads(str(peers["about"]))
    assert about["command"].startswith("python benchmarks/peers/metrics.py --seed")
    requirements = FIXTURE.parents[2] / "benchmarks" / "peers" / "metrics.txt"
    files = (requirements, requirements.with_name("metrics-alone.txt"))
    pinned = [line for file in files for line in file.read_text().split("\n") if "==" in line]
    assert sorted(pinned) == sorted(f"{name}=={v}" for name, v in about["versions"].items())
    length, wanted = (lists[0] >= 0).sum(axis=1), lists[3]
    assert len(wanted) == 2000
    for kind in (length == 0, wanted == 0, (length > 0) & (length < peers["k"]), wanted > RANKS):
        assert kind.sum() > 100
    assert set(np.isnan(ours["ndcg"]) == (wanted == 0)) == {True}


@pytest.mark.parametrize("name", SAME)
def test_our_value_is_that_of_the_peer(name, peers, lists, ours):
    mine, theirs = ours[name.split(" | ")[0]], peers[name]
    is_defined = ~np.isnan(mine)
    if "recommenders" in name:  # which knows no user without a list
        is_defined &= (lists[0] >= 0).any(axis=1)
    close(mine[is_defined], theirs[is_defined])


@pytest.mark.parametrize("name", SAME)
def test_a_user_with_nothing_to_find_is_0_or_left_out_by_peers(name, peers, lists):
    of_nobody = peers[name][lists[3] == 0]
    is_left_out = name.endswith(("RecTools", "recommenders")) and "serendipity" not in name
    np.testing.assert_array_equal(of_nobody, np.full(len(of_nobody), np.nan if is_left_out else 0))


def test_a_user_without_recommendations_is_left_out_by_some_peers(peers, lists, ours):
    is_silent, wanted = (lists[0] < 0).all(axis=1), lists[3] > 0
    np.testing.assert_array_equal(ours["serendipity"][is_silent & wanted], 0)
    for name in ("novelty", "serendipity, short lists"):
        np.testing.assert_array_equal(np.isnan(peers[f"{name} | RecTools"]), is_silent)
    hits, wanted = np.array([[True], [False], [False]]), np.array([1, 1, 0])
    close(metrics.average_precision_at_k(hits, wanted, k=1), [1, 0, np.nan])
    close(peers["of a silent and an idle user | recommenders"], 1)  # the mean of the first alone


def test_torchmetrics_divides_average_precision_by_the_hits(peers, lists, ours):
    inside = np.arange(RANKS)[None, :] < peers["k"][:, None]
    num_hits = ((lists[1] > 0) & inside).sum(axis=1)
    has_hit = num_hits > 0
    theirs = peers["average precision | TorchMetrics"][has_hit] * num_hits[has_hit]
    close(theirs, (ours["average precision"] * lists[3])[has_hit], rtol=1e-6)
    assert (abs(theirs / num_hits[has_hit] - ours["truncated"][has_hit]) > 0.1).mean() > 0.3


def test_trec_eval_cannot_reach_1_where_more_is_relevant_than_k(peers, lists, ours):
    is_more = (lists[3] > peers["k"]) & (ours["truncated"] > 0)
    assert is_more.sum() > 100
    share = peers["k"][is_more] / lists[3][is_more]
    close(peers["average precision | trec_eval"][is_more], ours["truncated"][is_more] * share)


def test_rectools_ndcg_divides_by_k_hits_unless_asked_otherwise(peers, lists, ours):
    best = np.cumsum(1 / np.log2(np.arange(2, RANKS + 2)))
    wanted, k = lists[3], peers["k"].astype(int)
    some = wanted > 0
    share = best[np.minimum(wanted, k)[some] - 1] / best[k[some] - 1]
    close(peers["ndcg, default | RecTools"][some], ours["ndcg"][some] * share)
    assert (share < 0.9).sum() > 100


def test_sklearn_takes_the_mean_over_ties(peers, lists, ours):
    theirs = peers["graded ndcg, mean over ties | scikit-learn"]
    scores = [row[row < 255] for row in peers["scores"]]
    has_tie = np.array([len(np.unique(row)) < len(row) for row in scores])
    is_short = (lists[0] >= 0).sum(axis=1) < peers["k"]
    plain = ~has_tie & ~is_short & (lists[3] > 0)
    close(theirs[plain], ours["graded ndcg"][plain])
    differs = abs(theirs - ours["graded ndcg"]) > 1e-3
    assert min(plain.sum(), differs.sum()) > 100


def test_rectools_novelty_is_in_shares_of_users(peers, lists, ours):
    events = peers["num_events"]
    has_list = (lists[0] >= 0).any(axis=1)
    constant = np.log2(events.sum() / events.max())  # the busiest item has every user
    expected = peers["novelty | RecTools"][has_list] + constant
    close(ours["novelty"][has_list], expected, rtol=1e-6)
    assert np.isnan(ours["novelty"][~has_list]).all()


def test_rectools_diversity_counts_differing_places_and_is_0_for_one_item(peers, lists, ours):
    inside = np.minimum((lists[0] >= 0).sum(axis=1), peers["k"])
    theirs = peers["diversity | RecTools"]
    close(ours["diversity"][inside > 1], theirs[inside > 1] / 2)  # two places differ, or none
    assert np.isnan(ours["diversity"][inside < 2]).all()
    np.testing.assert_array_equal(theirs[inside == 1], 0)


def test_diversity_of_vectors_is_that_of_recommenders(peers, ours):
    close(peers["diversity of vectors | recommenders"], ours["diversity of vectors"])


def test_rectools_serendipity_divides_by_the_items_listed(peers, lists, ours):
    inside = np.minimum((lists[0] >= 0).sum(axis=1), peers["k"])
    some = (lists[3] > 0) & (inside > 0)
    theirs = peers["serendipity, short lists | RecTools"][some] * (inside / peers["k"])[some]
    close(theirs, ours["serendipity"][some])


def test_rectools_serendipity_numbers_distinct_counts_and_puts_an_item_without_events_last(
    peers, lists, ours
):
    events, some = peers["tied_events"], lists[3] > 0
    counts = np.unique(events[events > 0])[::-1].tolist()  # falling, each once
    place = np.array([counts.index(e) + 1 if e else len(events) + 1 for e in events.tolist()])
    lead = place[lists[0]] - np.arange(1, RANKS + 1)[None, :]
    inside = np.arange(RANKS)[None, :] < peers["k"][:, None]
    gains = np.maximum(lead, 0) * (lists[1] > 0) * inside
    theirs = peers["serendipity, tied events | RecTools"]
    close(theirs[some], (gains.sum(axis=1) / len(events) / peers["k"])[some])
    assert (abs(theirs - ours["tied"])[some] > 0.01).sum() > 100


@pytest.mark.parametrize("k", [1, 3, 5, 10])
def test_rectools_coverage_is_ours_and_passes_1_for_items_outside_the_catalogue(peers, lists, k):
    items = lists[0][:20, :k]
    close(
        metrics.catalogue_coverage(items, np.ones(30, bool)),
        peers[f"coverage of 30@{k} | RecTools"],
    )
    assert 0.1 < peers["coverage of 30@1 | RecTools"] < 0.7
    assert peers[f"coverage of 5@{k} | RecTools"] > 1
    assert metrics.catalogue_coverage(items, np.arange(30) < 5) <= 1


@pytest.fixture(scope="module")
def predicted(peers):
    """Probabilities, and shares with one label each."""
    parts = peers["probabilities"].astype(float)
    return (parts / parts.sum(axis=1, keepdims=True)).astype(np.float32), np.eye(4)[peers["label"]]


@pytest.mark.parametrize("k", [1, 2])
def test_accuracy_is_that_of_peers_but_for_ties(peers, predicted, k):
    labels = np.asarray(metrics.top_k(predicted[0], 4)[1])
    mine = np.asarray(metrics.accuracy(labels, predicted[1] > 0, k=k))
    falling = -np.sort(-peers["probabilities"].astype(int), axis=1)
    is_tied = falling[:, k - 1] == falling[:, k]
    higher_first = 3 - np.asarray(metrics.top_k(predicted[0][:, ::-1], 4)[1])
    of_sklearn = metrics.accuracy(higher_first, predicted[1] > 0, k=k)
    np.testing.assert_array_equal(of_sklearn, peers[f"accuracy@{k} | scikit-learn"])
    for peer in ("TorchMetrics", "scikit-learn"):
        theirs = peers[f"accuracy@{k} | {peer}"]
        np.testing.assert_array_equal(mine[~is_tied], theirs[~is_tied])
    assert is_tied.sum() > 0


def test_log_loss_is_that_of_sklearn_but_infinite_for_a_label_that_was_ruled_out(peers, predicted):
    mine, theirs = np.asarray(metrics.log_loss(*predicted)), peers["log loss | scikit-learn"]
    is_finite = np.isfinite(mine)
    close(mine[is_finite], theirs[is_finite], rtol=1e-6)
    assert (~is_finite).any()
    assert np.isfinite(theirs).all()  # it takes the smallest probability for 0


def test_reliability_is_that_of_sklearn_without_the_empty_bins(peers, predicted):
    found = metrics.reliability(*predicted, num_bins=BINS)
    is_used = np.asarray(found.count) > 0
    close(found.confidence[is_used], peers["bin confidence | scikit-learn"])
    close(found.accuracy[is_used], peers["bin accuracy | scikit-learn"])


def test_calibration_error_is_that_of_torchmetrics_but_on_the_edge_of_a_bin(peers, predicted):
    mine = metrics.expected_calibration_error(*predicted, num_bins=BINS)
    close(mine, peers["calibration error | TorchMetrics"])
    edge = np.float32([[0.5, 0.5], [0.75, 0.25]])  # 0.5 ends the first of two bins for us
    ours_on_edge = metrics.expected_calibration_error(edge, np.eye(2), num_bins=2)
    close(ours_on_edge, (abs(1 - 0.5) + abs(0 - 0.75)) / 2)
    theirs = peers["calibration error on an edge | TorchMetrics"]
    close(theirs, abs((1 + 0) / 2 - (0.5 + 0.75) / 2))  # and begins the second for them
