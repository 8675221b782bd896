"""Every model on the same users with the same metrics, with intervals and paired differences."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import polars as pl
from jaxtyping import Float, Int

from interestkit import metrics
from interestkit.baselines import Ranker
from interestkit.features import Features
from interestkit.heldout import HeldOut
from interestkit.histories import power_of_two
from interestkit.progress import progress_bar
from interestkit.schema import USER
from interestkit.storage import write_atomically

TARGETS = ("items", "new items", "interests")
_ALPHA_BLOCK = 256  # users at a time where topics of all relevant items are held in memory
_RESAMPLES = 1_000


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Per-user values of every model and metric, over one fixed set of users.

    Args:
        per_user: Columns target, model, metric, seed, user, value (NaN where undefined).
        overall: Metrics of a whole set of lists: target, model, metric, seed, value.
        part: The part of the split that was judged.
        k: Length of item lists.
        interest_k: Length of interest lists.
    """

    per_user: pl.DataFrame
    overall: pl.DataFrame
    part: str
    k: int
    interest_k: int

    def __repr__(self) -> str:
        models = self.per_user["model"].unique(maintain_order=True).to_list()
        users = self.per_user[USER].n_unique()
        return f"Evaluation({self.part!r}, {users:,} users, models {', '.join(models)})"

    def table(self) -> pl.DataFrame:
        """Mean of each metric over users and seeds, with a 95 % interval over users.

        Returns:
            Columns target, model, metric, value, low, high (bootstrap percentiles over users
            of the mean over seeds; null for metrics of a whole set of lists), seeds, spread
            (standard deviation of the mean between seeds, null for one seed), users (those
            with a defined value).
        """
        key = ["target", "model", "metric"]
        rows = []
        for names, group in self.per_user.group_by(key, maintain_order=True):
            values = _users_by_seed(group)
            values = values[~np.isnan(values).any(axis=1)]
            low, high = bootstrap_interval(values.mean(axis=1))
            means = np.nanmean(values, axis=0) if len(values) else np.array([np.nan])
            rows.append((*names, means.mean(), low, high, len(means), _spread(means), len(values)))
        for names, group in self.overall.group_by(key, maintain_order=True):
            means = group["value"].to_numpy()
            users = self.per_user[USER].n_unique()
            rows.append((*names, means.mean(), None, None, len(means), _spread(means), users))
        columns = [*key, "value", "low", "high", "seeds", "spread", "users"]
        return pl.DataFrame(rows, schema=columns, orient="row", infer_schema_length=None)

    def save(self, folder: str | Path, *, data: str, split: str) -> None:
        """Write metrics.parquet (`per_user`) and results.json (`table` and `gains`) to a folder.

        Args:
            folder: An existing folder.
            data: Name of the data set.
            split: How it was split.
        """
        models = self.per_user["model"].unique(maintain_order=True).to_list()
        results = {
            "data": data,
            "split": split,
            "part": self.part,
            "table": self.table().to_dicts(),
        }
        if len(models) > 1:
            results["gains"] = self.gains(models[0]).to_dicts()
        text = json.dumps(_json_numbers(results), indent=1, ensure_ascii=False, allow_nan=False)
        write_atomically(
            Path(folder) / "results.json", lambda p: p.write_text(text + "\n", "utf-8")
        )
        write_atomically(Path(folder) / "metrics.parquet", self.per_user.write_parquet)

    def gains(self, model: str = "model") -> pl.DataFrame:
        """Paired differences: a model's value minus each other model's, user by user.

        Args:
            model: Name of the model.

        Returns:
            Columns target, metric, over (the other model), gain (mean difference), low, high
            (95 % bootstrap interval of it over users), users (those with a defined value from
            both models). Values are means over seeds.

        Raises:
            ValueError: If there is no such model.
        """
        names = self.per_user["model"].unique(maintain_order=True).to_list()
        if model not in names:
            raise ValueError(f"model must be one of {names}, got {model!r}")
        rows = []
        for (target, metric), group in self.per_user.group_by(
            ["target", "metric"], maintain_order=True
        ):
            ours = _users_by_seed(group.filter(pl.col("model") == model)).mean(axis=1)
            for other in names:
                if other != model:
                    theirs = _users_by_seed(group.filter(pl.col("model") == other)).mean(axis=1)
                    difference = (ours - theirs)[~np.isnan(ours - theirs)]
                    low, high = bootstrap_interval(difference)
                    mean = difference.mean() if len(difference) else np.nan
                    rows.append((target, metric, other, mean, low, high, len(difference)))
        columns = ["target", "metric", "over", "gain", "low", "high", "users"]
        return pl.DataFrame(rows, schema=columns, orient="row", infer_schema_length=None)


def evaluate(
    rankers: Mapping[str, Ranker | Sequence[Ranker]],
    truth: HeldOut,
    features: Features,
    *,
    k: int = 10,
    interest_k: int = 3,
    progress: bool = True,
) -> Evaluation:
    """Rank for every judged user with every model, and judge against what users really did.

    Items are judged twice: "items" with repeats allowed, and "new items", where items of the
    user's history are neither recommended nor counted as relevant. Items outside the catalogue
    stay in the denominators. Interests are judged by the share of a user's later events.

    Args:
        rankers: Name -> model, or one model per seed.
        truth: The held-out users.
        features: The catalogue, for labels and popularity.
        k: Length of item lists.
        interest_k: Length of interest lists.
        progress: Show a progress bar over models.

    Returns:
        Values of every user of `truth`, model, seed and metric: NDCG, recall, hit rate,
        alpha-NDCG (topics are interests), user coverage and novelty of items; accuracy for the
        user's next moment, NDCG, recall and log loss of interests. Over all lists together:
        coverage of the candidates and of the interests.

    Raises:
        ValueError: If `k` or `interest_k` is larger than there are items or interests, or no
            ranker is given.

    Example:
        >>> from interestkit import clean, fit_features, held_out, simulate, temporal_split
        >>> from interestkit.baselines import Popular
        >>> log, _ = clean(simulate(num_users=50, num_items=20, num_interests=4, seed=1))
        >>> split = temporal_split(log, min_judged=0)
        >>> features = fit_features(split.before("test"), split.items)
        >>> popular = Popular(features=features, log=features.histories(split.before("test")))
        >>> truth = held_out(features, split, "test")
        >>> evaluate({"popular": popular}, truth, features, k=5, progress=False)
        Evaluation('test', 39 users, models popular)
    """
    if not rankers:
        raise ValueError("rankers must name at least one model, got none")
    if not 1 <= interest_k <= features.num_interests:
        allowed = f"1..{features.num_interests} (the interests)"
        raise ValueError(f"interest_k must be in {allowed}, got {interest_k}")
    per_user, overall = [], []
    runs = [
        (name, seed, ranker)
        for name, models in rankers.items()
        for seed, ranker in enumerate(models if isinstance(models, Sequence) else [models])
    ]
    bar = progress_bar(runs, label="evaluation", unit="model", enabled=progress)
    for name, seed, ranker in bar:
        for target, metric, value in _judge(ranker, truth, features, k, interest_k):
            value = np.asarray(value, dtype=float)
            row = {"target": target, "model": name, "metric": metric, "seed": seed}
            if value.ndim:
                values = pl.DataFrame({USER: truth.histories.users, "value": value})
                literals = {key: pl.lit(part) for key, part in row.items()}
                per_user.append(values.with_columns(**literals))
            else:
                overall.append(row | {"value": float(value)})
    columns = ["target", "model", "metric", "seed", USER, "value"]
    return Evaluation(
        per_user=pl.concat(per_user).select(columns),
        overall=pl.DataFrame(overall),
        part=truth.part,
        k=k,
        interest_k=interest_k,
    )


def _judge(ranker: Ranker, truth: HeldOut, features: Features, k: int, interest_k: int):
    """Triples target, metric, value: one value per user, or one for all."""
    for target, new_only in (("items", False), ("new items", True)):
        codes, _ = ranker.rank(truth.histories, k=k, exclude_seen=new_only)
        for metric, value in _judge_items(codes, truth, features, new_only):
            yield target, metric, value
    for metric, value in _judge_interests(ranker.interests(truth.histories), truth, interest_k):
        yield "interests", metric, value


def _judge_items(
    codes: Int[np.ndarray, "users ranks"], truth: HeldOut, features: Features, new_only: bool
) -> Iterator[tuple[str, np.ndarray]]:
    k = codes.shape[1]
    hits, relevant = truth.hits(0, codes), truth.num_relevant(new_only=new_only)
    yield f"NDCG@{k}", metrics.ndcg_at_k(hits, relevant, k=k)
    yield f"recall@{k}", metrics.recall_at_k(hits, relevant, k=k)
    yield f"hit rate@{k}", metrics.hit_rate_at_k(hits, relevant, k=k)
    yield f"alpha-NDCG@{k}", _alpha_ndcg(codes, hits, truth, features, new_only)
    candidates = int(features.is_candidate.sum())
    coverage = metrics.catalogue_coverage(codes, num_items=features.num_items)
    yield f"catalogue coverage@{k}", coverage * features.num_items / candidates
    yield f"user coverage@{k}", metrics.user_coverage(codes)
    yield f"novelty@{k}", metrics.novelty(codes, features.items["events"].to_numpy())


def _alpha_ndcg(codes, hits, truth: HeldOut, features: Features, new_only: bool):
    """alpha-NDCG over interests: relevance and diversity judged together.

    Users are taken in order of their number of relevant items, so that little is padding.
    """
    has_label = features.item_interests > 0
    topics = has_label[codes] & (hits & (codes >= 0))[:, :, None]
    rows = truth.relevant.filter(pl.col("code") >= 0)
    rows = (rows.filter(~pl.col("is_seen")) if new_only else rows).sort("user_code")
    relevant = np.append(rows["code"].to_numpy(), 0)  # padding points at the last
    stops = np.searchsorted(rows["user_code"].to_numpy(), np.arange(len(codes) + 1))
    count = np.diff(stops)
    order = np.argsort(count, kind="stable")
    values = np.empty(len(codes))
    for first in range(0, len(order), _ALPHA_BLOCK):
        users = order[first : first + _ALPHA_BLOCK]
        place = np.arange(max(64, power_of_two(int(count[users].max()) + 1)))
        inside = place[None, :] < count[users][:, None]
        code = relevant[np.where(inside, stops[users][:, None] + place[None, :], 0)]
        ideal = has_label[code] & inside[:, :, None]
        values[users] = metrics.alpha_ndcg_at_k(topics[users], ideal, k=codes.shape[1])
    unknown_only = (count == 0) & (truth.num_relevant(new_only=new_only) > 0)
    return np.where(unknown_only, 0.0, values)  # nobody can find what training never saw


def _judge_interests(
    probabilities: Float[np.ndarray, "users interests"], truth: HeldOut, k: int
) -> Iterator[tuple[str, np.ndarray]]:
    _, best = metrics.top_k(probabilities.astype(np.float32), k)
    best = np.asarray(best)
    shares = truth.interest_shares
    gains = np.take_along_axis(shares, best, axis=1)
    has_label = truth.next_interests.any(axis=1)
    right = np.asarray(metrics.accuracy(best[:, 0], truth.next_interests), dtype=float)
    yield "accuracy", np.where(has_label, right, np.nan)
    yield f"NDCG@{k}", metrics.graded_ndcg_at_k(gains, shares, k=k)
    yield f"recall@{k}", metrics.recall_at_k(gains > 0, (shares > 0).sum(axis=1), k=k)
    yield "log loss", metrics.log_loss(probabilities.astype(np.float32), shares)
    yield f"interest coverage@{k}", metrics.interest_coverage(best, num_interests=shares.shape[1])


def bootstrap_interval(
    values: Float[np.ndarray, " users"], *, share: float = 0.95, seed: int = 0
) -> tuple[float, float]:
    """Percentile bootstrap interval of a mean over users.

    Args:
        values: One number per user; NaN is left out.
        share: Share of resampled means inside the interval, in (0, 1).
        seed: Seed of the resampling.

    Returns:
        The lower and upper end; NaN without values.

    Raises:
        ValueError: If `share` is outside (0, 1).

    Example:
        >>> bootstrap_interval(np.array([1.0, 1.0, np.nan]))
        (1.0, 1.0)

    Source:
        Efron and Tibshirani (1993), An Introduction to the Bootstrap, ch. 13.
    """
    if not 0 < share < 1:
        raise ValueError(f"share must be in (0, 1), got {share}")
    values = values[~np.isnan(values)]
    if not len(values):
        return float("nan"), float("nan")
    means = _resamples(len(values), seed) @ values / len(values)
    low, high = np.quantile(means, [(1 - share) / 2, (1 + share) / 2])
    return float(low), float(high)


def _json_numbers(value):
    """The same with None for NaN, which JSON does not know."""
    if isinstance(value, dict):
        return {key: _json_numbers(part) for key, part in value.items()}
    if isinstance(value, list):
        return [_json_numbers(part) for part in value]
    return None if isinstance(value, float) and not np.isfinite(value) else value


@lru_cache(maxsize=8)
def _resamples(num_users: int, seed: int) -> Int[np.ndarray, "resamples users"]:
    """How often each user is drawn in each resample."""
    rng = np.random.default_rng(seed)
    drawn = rng.integers(0, num_users, (_RESAMPLES, num_users))
    drawn += np.arange(_RESAMPLES)[:, None] * num_users
    counts = np.bincount(drawn.ravel(), minlength=_RESAMPLES * num_users)
    return counts.reshape(_RESAMPLES, num_users).astype(np.float32)


def _users_by_seed(group: pl.DataFrame) -> Float[np.ndarray, "users seeds"]:
    """Values of all users for each seed; users come in one fixed order."""
    seeds = [part["value"].to_numpy() for part in group.partition_by("seed", maintain_order=True)]
    return np.stack(seeds, axis=1)


def _spread(means: np.ndarray) -> float | None:
    return float(means.std(ddof=1)) if len(means) > 1 else None
