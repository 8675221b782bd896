"""One model judged on every held-out user: what its lists and its interests are worth."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import polars as pl
from jaxtyping import Float, Int

from interestkit import metrics
from interestkit.baselines import Ranker
from interestkit.counting import pad, power_of_two
from interestkit.features import Features
from interestkit.heldout import HeldOut, history_shares

NUM_BINS = 15  # of confidence, as is usual
LIST_METRICS = (  # in the order of the table; all are at rank k
    *("NDCG", "recall", "precision", "MAP", "MRR", "hit rate", "alpha-NDCG", "user coverage"),
    *("diversity", "novelty", "serendipity", "miscalibration", "catalogue coverage", "Gini"),
)
_ALPHA_BLOCK = 256  # users at a time, at most, whose relevant items' topics are held in memory
_BLOCK_NUMBERS = 2**21  # numbers held in memory at a time: users x ranks x interests

Codes = Int[np.ndarray, "users ranks"]
Shares = Float[np.ndarray, "users interests"]
Judgement = tuple[str, str, np.ndarray]  # target, metric, one value per user or one for all


class _Items(NamedTuple):
    """What lists are judged by, on the device."""

    interests: jax.Array
    events: jax.Array
    is_candidate: jax.Array


class Judge:
    """All metrics of one model after another, on the same held-out users.

    What depends on the users alone is computed once: shares of interests in their histories, and
    the best alpha-DCG that each could get. Lists have k items and `interest_k` interests.
    """

    def __init__(self, truth: HeldOut, features: Features, *, k: int, interest_k: int) -> None:
        truth.histories.check_coded_by(features)
        self.truth, self.features, self.k, self.interest_k = truth, features, k, interest_k
        self._items = _Items(
            jnp.asarray(features.item_interests),
            jnp.asarray(features.items["events"].to_numpy()),
            jnp.asarray(features.is_candidate),
        )
        self._history_shares = history_shares(features, truth.histories)
        self._best = {
            new_only: _ideal_alpha_dcg(truth, features, new_only, k) for new_only in (False, True)
        }

    def __call__(self, ranker: Ranker, *, name: str) -> tuple[list[Judgement], pl.DataFrame]:
        """All metrics of a model (`name` is for messages), and how often its top interest is right.

        Returns:
            Triples target, metric and value (one per user in the order of `truth`, or one for
            all), and the bins of `metrics.reliability`: low, high (the bin's limits), count,
            confidence and accuracy (NaN where count is 0).

        Raises:
            ValueError: If a list or a row of probabilities is missing, or a score is NaN.
        """
        truth, interest_k = self.truth, self.interest_k
        found = self._judge_items(ranker, name)
        probabilities = np.asarray(ranker.interests(truth.histories), np.float32)
        _check(f"interests of {name!r}", probabilities, probabilities, truth)
        if probabilities.shape[1] != self.features.num_interests:
            came = f"{probabilities.shape[1]} columns"
            number = self.features.num_interests
            raise ValueError(f"interests of {name!r} must have {number} columns, got {came}")
        if (abs(probabilities.sum(axis=1) - 1) > 1e-3).any() or probabilities.min(initial=0) < 0:
            raise ValueError(f"interests of {name!r} must be >= 0 and sum to 1 for each user")
        best = np.asarray(metrics.top_k(probabilities, interest_k)[1])
        shares, right = truth.interest_shares, truth.next_interests
        values, bins = _judge_interests(best, probabilities, shares, right)
        names = ("accuracy", "accuracy@", "NDCG@", "recall@", "log loss", "ECE")
        for metric in (*names, "interest coverage@"):  # "@": of lists of `interest_k`
            shown = f"{metric}{interest_k}" if metric.endswith("@") else metric
            found.append(("interests", shown, np.asarray(values[metric], float)))
        return found, _reliability_table(bins)

    def _judge_items(self, ranker: Ranker, name: str) -> list[Judgement]:
        truth, found = self.truth, []
        for target, new_only in (("items", False), ("new items", True)):
            codes, scores = ranker.rank(truth.histories, k=self.k, exclude_seen=new_only)
            codes = np.asarray(codes)
            _check(f"{target} of {name!r}", codes, scores, truth)
            self._check_codes(f"{target} of {name!r}", codes)
            hits = truth.hits(0, codes, new_only=new_only)
            relevant = truth.num_relevant(new_only=new_only)
            values = _judge_lists(self._items, codes, hits, relevant, self._history_shares)
            with np.errstate(invalid="ignore"):  # 0 / 0 where no relevant item has a label
                values["alpha-NDCG"] = values.pop("alpha-DCG") / self._best[new_only]
            values |= _judge_together(self._items, codes)
            found += [(target, f"{metric}@{self.k}", values[metric]) for metric in LIST_METRICS]
        return found

    def _check_codes(self, what: str, codes: Codes) -> None:
        """Raise ValueError unless lists have k places and distinct items of the catalogue."""
        if codes.shape[1] != self.k:
            raise ValueError(f"{what} must have k={self.k} places, got {codes.shape[1]}")
        if codes.max(initial=-1) >= self.features.num_items:
            allowed = f"codes below {self.features.num_items}"
            raise ValueError(f"{what} must be {allowed}, got {codes.max()}")
        ordered = np.sort(codes, axis=1)
        twice = ((ordered[:, 1:] == ordered[:, :-1]) & (ordered[:, 1:] >= 0)).any(axis=1)
        if twice.any():
            user = str(self.truth.histories.users[twice.argmax()])
            raise ValueError(f"{what} must not list an item twice, as for user {user!r}")


def _check(what: str, rows, scores, truth: HeldOut) -> None:
    """Raise ValueError unless there is a row for each user and no score is NaN."""
    if len(rows) != len(truth):
        raise ValueError(f"{what} must have {len(truth)} rows (the judged users), got {len(rows)}")
    has_nan = np.isnan(np.asarray(scores, float)).any(axis=1)
    if has_nan.any():
        user, number = truth.histories.users[has_nan.argmax()], has_nan.sum()
        came = f"NaN for {number} of {len(truth)} users, first {user!r}"
        raise ValueError(f"{what}: scores must be numbers, got {came}")


def _judge_lists(items: _Items, codes: Codes, hits, num_relevant, own: Shares) -> dict:
    """Metrics of each user's list, in blocks of users that have one shape."""
    num_users, num_ranks = codes.shape
    size = _BLOCK_NUMBERS // (num_ranks * max(own.shape[1], 1))
    size = min(power_of_two(max(size, 1)), power_of_two(num_users))
    blocks = []
    for first in range(0, num_users, size):
        parts = [array[first : first + size] for array in (codes, hits, num_relevant, own)]
        block = _judge_block(items, *(pad(part, size) for part in parts))
        blocks.append({name: np.asarray(value, float) for name, value in block.items()})
    joined = {name: np.concatenate([block[name] for block in blocks]) for name in blocks[0]}
    return {name: value[:num_users] for name, value in joined.items()}


@jax.jit  # one program: the metrics one by one take several times as long to compile
def _judge_block(items: _Items, codes, hits, num_relevant, own) -> dict:
    k = codes.shape[1]
    labels, events, is_candidate = items
    topics = (labels > 0)[codes] & (hits & (codes >= 0))[:, :, None]
    return {
        "NDCG": metrics.ndcg_at_k(hits, num_relevant, k=k),
        "recall": metrics.recall_at_k(hits, num_relevant, k=k),
        "precision": metrics.precision_at_k(hits, num_relevant, k=k),
        "MAP": metrics.average_precision_at_k(hits, num_relevant, k=k),
        "MRR": metrics.reciprocal_rank_at_k(hits, num_relevant, k=k),
        "hit rate": metrics.hit_rate_at_k(hits, num_relevant, k=k),
        "alpha-DCG": metrics.alpha_dcg_at_k(topics, k=k),
        "user coverage": metrics.user_coverage(codes),
        "diversity": metrics.intra_list_diversity(codes, labels),
        "novelty": metrics.novelty(codes, events),
        "serendipity": metrics.serendipity(
            codes, hits, num_relevant, events, k=k, is_candidate=is_candidate
        ),
        "miscalibration": metrics.calibration(codes, labels, own),
    }


def _judge_together(items: _Items, codes: Codes) -> dict:
    """Metrics of all lists together: how much of the candidates, and how evenly."""
    is_candidate = np.asarray(items.is_candidate)
    listed = np.bincount(codes[codes >= 0], minlength=len(is_candidate))[is_candidate]
    coverage = metrics.catalogue_coverage(codes, items.is_candidate)
    return {
        "catalogue coverage": np.asarray(coverage, float),
        "Gini": np.asarray(metrics.gini(listed), float),
    }


def _ideal_alpha_dcg(truth: HeldOut, features: Features, new_only: bool, k: int):
    """The best alpha-DCG of each user that items of the catalogue allow, over interests.

    Infinite where they allow none and the user had others, of which nobody can find any. Users are
    taken in order of their number of relevant items, so that little is padding.
    """
    has_label = jnp.asarray(features.item_interests > 0)
    rows = truth.relevant.filter(pl.col("code") >= 0)
    rows = (rows.filter(~pl.col("is_seen")) if new_only else rows).sort("user_code")
    relevant = np.append(rows["code"].to_numpy(), 0)  # padding points at the last
    stops = np.searchsorted(rows["user_code"].to_numpy(), np.arange(len(truth) + 1))
    count = np.diff(stops)
    left, values = np.argsort(-count, kind="stable"), np.empty(len(truth))
    while len(left):
        place = np.arange(max(64, power_of_two(int(count[left[0]]) + 1)))
        size = _BLOCK_NUMBERS // (len(place) * max(has_label.shape[1], 1))
        size = min(_ALPHA_BLOCK, power_of_two(size // 2 + 1))  # not above it
        users, left = left[:size], left[size:]
        padded = np.pad(users, (0, size - len(users)), mode="edge")
        inside = place[None, :] < count[padded][:, None]
        code = relevant[np.where(inside, stops[padded][:, None] + place[None, :], 0)]
        values[users] = np.asarray(_best_of(has_label, code, inside, k=k))[: len(users)]
    has_unknown = truth.num_relevant(new_only=new_only) > count
    return np.where(has_unknown & (values == 0), np.inf, values)


@partial(jax.jit, static_argnames="k")
def _best_of(has_label, relevant, is_real, k: int):
    return metrics.ideal_alpha_dcg_at_k(has_label[relevant] & is_real[:, :, None], k=k)


@jax.jit
def _judge_interests(best, probabilities, shares, next_interests):
    """Metrics of predicted interests, and the bins of `metrics.reliability`."""
    k = best.shape[1]
    gains = jnp.take_along_axis(shares, best, axis=1)
    found = {
        "accuracy": metrics.accuracy(best, next_interests),
        "accuracy@": metrics.accuracy(best, next_interests, k=k),
        "NDCG@": metrics.graded_ndcg_at_k(gains, shares, k=k),
        "recall@": metrics.recall_at_k(gains > 0, (shares > 0).sum(axis=1), k=k),
        "log loss": metrics.log_loss(probabilities, shares),
        "ECE": metrics.expected_calibration_error(probabilities, shares, num_bins=NUM_BINS),
        "interest coverage@": metrics.interest_coverage(best, num_interests=shares.shape[1]),
    }
    return found, metrics.reliability(probabilities, shares, num_bins=NUM_BINS)


def _reliability_table(bins: metrics.Reliability) -> pl.DataFrame:
    edges = np.arange(NUM_BINS + 1) / NUM_BINS
    columns = {"low": edges[:-1], "high": edges[1:], "count": np.asarray(bins.count, int)}
    for name in ("confidence", "accuracy"):
        columns[name] = np.asarray(getattr(bins, name), float)
    return pl.DataFrame(columns)
