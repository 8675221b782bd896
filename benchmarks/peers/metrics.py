"""Ask other packages for their metrics on random cases, for `tests/test_metrics_peers.py`.

Run in the environment that `sh benchmarks/peers/environment.sh metrics` makes, from the root of the
checkout.
Cases hold ties, lists shorter than k and empty, and users with nothing relevant. No peer breaks
ties as we do, so each is given the order of a list, and none sees an empty place as a miss, so
places left empty hold items that nobody wants. NaN in an answer: the peer says nothing.
"""

import argparse
import json
import platform
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pandas as pd
import pytrec_eval
import ranx
import torch
from recommenders.evaluation import python_evaluation as recommenders
from rectools import Columns
from rectools import metrics as rectools
from sklearn import metrics as sklearn
from sklearn.calibration import calibration_curve
from torchmetrics.functional import classification, retrieval

ITEMS, LABELS, RANKS, CUTS = 30, 4, 10, (1, 3, 5, 10)
EXCLUDED = 255  # as a score: this item is not recommended to this user
PARTS = 1009  # probabilities are whole numbers of 1/1009, so that none lies on the edge of a bin
BINS = 15
PACKAGES = "numpy pytrec-eval-terrier ranx recommenders rectools scikit-learn torch torchmetrics"


def make_cases(seed: int, num_users: int, num_predicted: int) -> dict[str, np.ndarray]:
    """Arrays of small whole numbers, from which everything that is judged follows."""
    rng = np.random.default_rng(seed)
    order = rng.permuted(np.tile(np.arange(ITEMS), (num_users, 1)), axis=1)
    scores = rng.integers(0, 12, (num_users, ITEMS))
    scores[order >= rng.integers(0, 16, (num_users, 1))] = EXCLUDED
    grades = rng.integers(1, 4, (num_users, ITEMS))
    order = rng.permuted(order, axis=1)
    grades[order >= rng.choice([0, 1, 2, 4, 8, 14], (num_users, 1))] = 0
    chances = rng.dirichlet(np.ones(LABELS), num_predicted)
    return {
        "scores": scores.astype(np.uint8),
        "grades": grades.astype(np.uint8),
        "k": rng.choice(CUTS, num_users).astype(np.uint8),
        "num_events": (1 + rng.permutation(ITEMS)).astype(np.int32),
        "tied_events": (rng.permutation(ITEMS) // 6).astype(np.int32),
        "item_label": rng.integers(0, LABELS, ITEMS).astype(np.uint8),
        "vectors": rng.integers(1, 9, (ITEMS, 3)).astype(np.uint8),
        "probabilities": rng.multinomial(PARTS, chances).astype(np.uint16),
        "label": rng.integers(0, LABELS, num_predicted).astype(np.uint8),
    }


def ranked_lists(scores: np.ndarray) -> list[list[int]]:
    """Each user's best items, by falling score and rising code."""
    return [
        sorted((i for i in range(ITEMS) if row[i] != EXCLUDED), key=lambda i: (-int(row[i]), i))[
            :RANKS
        ]
        for row in scores
    ]


def padded(items: list[int]) -> list[int]:
    """The list with items that nobody wants in its empty places."""
    return items + [ITEMS + rank for rank in range(len(items), RANKS)]


def ask_ranx(cases, lists) -> dict[str, np.ndarray]:
    """Of each user at the user's own k."""
    names = {"precision": "precision", "recall": "recall", "hit_rate": "hit rate"}
    names |= {"mrr": "reciprocal rank", "map": "average precision", "ndcg": "graded ndcg"}
    names |= {"ndcg_burges": "graded ndcg, exponential gain"}
    answers = {f"{ours} | ranx": np.full(len(lists), np.nan) for ours in names.values()}
    for k in CUTS:
        users = np.flatnonzero(cases["k"] == k)
        run = {
            str(u): {f"{i:02}": float(-r) for r, i in enumerate(padded(lists[u]))} for u in users
        }
        asked = [f"{theirs}@{k}" for theirs in names]
        wanted = ranx.Qrels(judgements(cases["grades"], users))
        found = ranx.evaluate(wanted, ranx.Run(run), asked, return_mean=False)
        place = {user: row for row, user in enumerate(wanted.keys())}
        rows = [place[str(user)] for user in users]
        for theirs, ours in names.items():
            answers[f"{ours} | ranx"][users] = found[f"{theirs}@{k}"][rows]
    return answers


def judgements(grades, users) -> dict[str, dict[str, int]]:
    """The grade of each item, 0 too, so that nobody is left out."""
    return {str(u): {f"{i:02}": int(grade) for i, grade in enumerate(grades[u])} for u in users}


def ask_trec_eval(cases, lists) -> dict[str, np.ndarray]:
    """trec_eval through pytrec_eval; it has no cut for the reciprocal rank, so lists are cut."""
    names = {"P": "precision", "recall": "recall", "success": "hit rate"}
    names |= {"map_cut": "average precision", "ndcg_cut": "graded ndcg"}
    names |= {"recip_rank": "reciprocal rank"}
    cuts = ",".join(map(str, CUTS))
    measures = {f"{theirs}.{cuts}" for theirs in names if theirs != "recip_rank"} | {"recip_rank"}
    users = range(len(lists))
    judge = pytrec_eval.RelevanceEvaluator(judgements(cases["grades"], users), measures)
    runs = {
        str(u): {f"{i:02}": float(-r) for r, i in enumerate(padded(lists[u])[: cases["k"][u]])}
        for u in users
    }
    found = judge.evaluate(runs)
    cut = {theirs: "" if theirs == "recip_rank" else "_{}" for theirs in names}
    return {
        f"{ours} | trec_eval": np.array(
            [found[str(u)][theirs + cut[theirs].format(cases["k"][u])] for u in users]
        )
        for theirs, ours in names.items()
    }


def ask_rectools(cases, lists) -> dict[str, np.ndarray]:
    """RecTools; its list metrics skip empty places, so only serendipity is given filled ones."""
    listed, filled = table(lists), table(map(padded, lists))
    wanted = pd.DataFrame(np.argwhere(cases["grades"] > 0), columns=[Columns.User, Columns.Item])
    past, tied = (interactions(cases[name]) for name in ("num_events", "tied_events"))
    features = pd.DataFrame(np.eye(LABELS)[cases["item_label"]])
    hamming = rectools.PairwiseHammingDistanceCalculator(features)
    catalog = range(ITEMS)
    answers = {}
    for k in CUTS:
        values = {
            "precision": rectools.Precision(k).calc_per_user(listed, wanted),
            "recall": rectools.Recall(k).calc_per_user(listed, wanted),
            "hit rate": rectools.HitRate(k).calc_per_user(listed, wanted),
            "reciprocal rank": rectools.MRR(k).calc_per_user(listed, wanted),
            "average precision": rectools.MAP(k).calc_per_user(listed, wanted),
            "ndcg": rectools.NDCG(k, divide_by_achievable=True).calc_per_user(listed, wanted),
            "ndcg, default": rectools.NDCG(k).calc_per_user(listed, wanted),
            "novelty": rectools.MeanInvUserFreq(k).calc_per_user(listed, past),
            "diversity": rectools.IntraListDiversity(k, hamming).calc_per_user(listed),
            "serendipity": rectools.Serendipity(k).calc_per_user(filled, wanted, past, catalog),
            "serendipity, short lists": rectools.Serendipity(k).calc_per_user(
                listed, wanted, past, catalog
            ),
            "serendipity, tied events": rectools.Serendipity(k).calc_per_user(
                filled, wanted, tied, catalog
            ),
        }
        few = rectools.CatalogCoverage(k, normalize=True), listed[listed[Columns.User] < 20]
        for size in (ITEMS, 5):
            coverage = few[0].calc(few[1], range(size))
            answers[f"coverage of {size}@{k} | RecTools"] = np.array(coverage)
        users = np.flatnonzero(cases["k"] == k)
        for name, of_users in values.items():
            answer = answers.setdefault(f"{name} | RecTools", np.full(len(lists), np.nan))
            answer[users] = of_users.reindex(users).to_numpy()
    return answers


def interactions(num_events: np.ndarray) -> pd.DataFrame:
    """A log in which each item has that many events, all of different users."""
    user = np.concatenate([np.arange(count) for count in num_events])
    return pd.DataFrame({Columns.User: user, Columns.Item: np.repeat(np.arange(ITEMS), num_events)})


def table(lists) -> pd.DataFrame:
    """Lists as rows of user, item and rank."""
    rows = [(u, i, r) for u, items in enumerate(lists) for r, i in enumerate(items, start=1)]
    return pd.DataFrame(rows, columns=[Columns.User, Columns.Item, Columns.Rank])


def ask_recommenders(cases, lists) -> dict[str, np.ndarray]:
    """recommenders; its mean over users is asked for one user at a time."""
    listed = table(lists).set_axis(["userID", "itemID", "rank"], axis=1)
    listed = listed[listed["rank"].to_numpy() <= cases["k"][listed["userID"]]]
    wanted = pd.DataFrame(np.argwhere(cases["grades"] > 0), columns=["userID", "itemID"])
    listed, wanted = listed.assign(prediction=-1.0 * listed["rank"]), wanted.assign(rating=1.0)
    own, names = dict(list(listed.groupby("userID"))), ("average precision", "truncated")
    answers = {f"{name} | recommenders": np.full(len(lists), np.nan) for name in names}
    for user, truth in wanted.groupby("userID"):
        k = int(cases["k"][user])
        for name, metric in zip(names, (recommenders.map, recommenders.map_at_k), strict=True):
            if user in own:
                answers[f"{name} | recommenders"][user] = metric(truth, own[user], k=k)
    vectors = [row.astype(float) for row in cases["vectors"]]
    features = pd.DataFrame({"itemID": range(ITEMS), "features": vectors})
    past = pd.DataFrame({"userID": -1, "itemID": range(ITEMS)})  # not used beside features
    settings = {"item_feature_df": features, "item_sim_measure": "item_feature_vector"}
    found = recommenders.user_diversity(past, listed[["userID", "itemID"]], **settings)
    of_users = found.set_index("userID")["user_diversity"].reindex(range(len(lists)))
    truth = pd.DataFrame({"userID": [1, 2], "itemID": [7, 7], "rating": 1.0})
    shown = pd.DataFrame({"userID": [1, 3], "itemID": [7, 7], "prediction": 1.0})
    answers["of a silent and an idle user | recommenders"] = np.array(
        recommenders.map_at_k(truth, shown, k=1)  # user 2 is shown nothing, user 3 wants nothing
    )
    return answers | {"diversity of vectors | recommenders": of_users.to_numpy()}


def whole_ranking(items: list[int], grades: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Distinct scores of all items and their grades; what is not listed comes last."""
    scores = np.linspace(0.01, 0.5, ITEMS + RANKS, dtype=np.float32)
    scores[padded(items)] = np.linspace(1.0, 0.6, RANKS)
    return scores, np.append(grades, np.zeros(RANKS, int)).astype(int)


def ask_torchmetrics(cases, lists) -> dict[str, np.ndarray]:
    """TorchMetrics, user by user."""
    binary = {
        "precision": retrieval.retrieval_precision,
        "recall": retrieval.retrieval_recall,
        "hit rate": retrieval.retrieval_hit_rate,
        "reciprocal rank": retrieval.retrieval_reciprocal_rank,
        "average precision": retrieval.retrieval_average_precision,
    }
    answers = {f"{name} | TorchMetrics": [] for name in [*binary, "graded ndcg"]}
    for items, grades, k in zip(lists, cases["grades"], cases["k"].tolist(), strict=True):
        scores, gains = map(torch.from_numpy, whole_ranking(items, grades))
        for name, metric in binary.items():
            answers[f"{name} | TorchMetrics"].append(metric(scores, gains > 0, top_k=k))
        ndcg = retrieval.retrieval_normalized_dcg(scores, gains, top_k=k)
        answers["graded ndcg | TorchMetrics"].append(ndcg)
    predicted = torch.from_numpy(cases["probabilities"].astype(np.float32) / PARTS)
    label = torch.from_numpy(cases["label"].astype(int))
    for k in (1, 2):
        answers[f"accuracy@{k} | TorchMetrics"] = [
            classification.multiclass_accuracy(p[None], one[None], LABELS, average="micro", top_k=k)
            for p, one in zip(predicted, label, strict=True)
        ]
    error = classification.multiclass_calibration_error(predicted, label, LABELS, n_bins=BINS)
    answers["calibration error | TorchMetrics"] = error
    edge = torch.tensor([[0.5, 0.5], [0.75, 0.25]]), torch.tensor([0, 1])
    error = classification.multiclass_calibration_error(*edge, num_classes=2, n_bins=2)
    answers["calibration error on an edge | TorchMetrics"] = error
    return {name: np.array(values, dtype=float) for name, values in answers.items()}


def ask_sklearn(cases, lists) -> dict[str, np.ndarray]:
    """scikit-learn, user by user; with the scores themselves it takes the mean over ties."""
    ndcg, of_ties = [], []
    for items, grades, k, own in zip(
        lists, cases["grades"], cases["k"].tolist(), cases["scores"].astype(int), strict=True
    ):
        scores, gains = whole_ranking(items, grades)
        ndcg.append(sklearn.ndcg_score(gains[None], scores[None], k=k))
        own = np.where(own == EXCLUDED, -1, own)
        of_ties.append(sklearn.ndcg_score(grades[None], own[None], k=k))
    predicted, label = cases["probabilities"] / PARTS, cases["label"]
    names = range(LABELS)
    pairs = [(label[i : i + 1], predicted[i : i + 1]) for i in range(len(label))]
    answers = {
        "graded ndcg | scikit-learn": ndcg,
        "graded ndcg, mean over ties | scikit-learn": of_ties,
        "log loss | scikit-learn": [sklearn.log_loss(*pair, labels=names) for pair in pairs],
    }
    for k in (1, 2):
        answers[f"accuracy@{k} | scikit-learn"] = [
            sklearn.top_k_accuracy_score(*pair, k=k, labels=names) for pair in pairs
        ]
    is_right = predicted.argmax(axis=1) == label
    curve = calibration_curve(is_right, predicted.max(axis=1), n_bins=BINS)
    answers |= {"bin accuracy | scikit-learn": curve[0], "bin confidence | scikit-learn": curve[1]}
    return {name: np.array(values, dtype=float) for name, values in answers.items()}


def stacked(answers: dict[str, np.ndarray], num_rows: int) -> dict[str, np.ndarray]:
    """Answers of one length as one table, which compresses well, since most are the same."""
    own = sorted(name for name, values in answers.items() if values.shape == (num_rows,))
    columns = [answers.pop(name).round(7).astype(np.float32) for name in own]
    return {f"names of {num_rows}": np.array(own), f"answers of {num_rows}": np.stack(columns, 1)}


def main() -> None:
    """Make the cases, ask, and write both to one file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("tests/fixtures/peer_metrics.npz"))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--users", type=int, default=2000)
    parser.add_argument("--predicted", type=int, default=1500)
    options = parser.parse_args()
    cases = make_cases(options.seed, options.users, options.predicted)
    lists = ranked_lists(cases["scores"])
    answers = {}
    peers = (ask_ranx, ask_trec_eval, ask_recommenders, ask_rectools, ask_torchmetrics, ask_sklearn)
    for ask in peers:
        answers |= ask(cases, lists)
    settings = f"--seed {options.seed} --users {options.users} --predicted {options.predicted}"
    about = {
        "command": f"python benchmarks/peers/metrics.py {settings}",
        "python": platform.python_version(),
        "versions": {name: version(name) for name in PACKAGES.split()},
    }
    tables = stacked(answers, options.users) | stacked(answers, options.predicted)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(options.out, about=json.dumps(about), **cases, **tables, **answers)


if __name__ == "__main__":
    main()
