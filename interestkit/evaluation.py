"""Every model on the same users with the same metrics, with intervals and paired differences."""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import polars as pl
from jaxtyping import Float

from interestkit import reprs
from interestkit.baselines import Ranker
from interestkit.comparison import bootstrap_intervals, is_lower_better, paired_statistics
from interestkit.features import Features
from interestkit.files import write_atomically, write_text
from interestkit.heldout import HeldOut
from interestkit.judging import Judge, Judgement
from interestkit.limits import check_one_of, check_up_to
from interestkit.progress import progress_bar
from interestkit.schema import USER
from interestkit.storage import check_not_sealed

TARGETS = ("items", "new items", "interests")


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Per-user values of every model and metric, over one fixed set of users.

    Args:
        per_user: Columns target, model, metric, seed, user, value (NaN where undefined).
        overall: Metrics of a whole set of lists: target, model, metric, seed, value.
        reliability: How often the most probable interest is right, by its probability: model,
            seed, and the columns of `metrics.reliability`.
        part: The part of the split that was judged.
        k: Length of item lists.
        interest_k: Length of interest lists.
    """

    per_user: pl.DataFrame
    overall: pl.DataFrame
    reliability: pl.DataFrame
    part: str
    k: int
    interest_k: int

    def __repr__(self) -> str:
        users = self.per_user[USER].n_unique()
        first = f"Evaluation({self.part!r}, {users:,} users, models {', '.join(self.models)})"
        return "\n  ".join([first, *self.notes])

    def _repr_html_(self) -> str:
        return reprs.of_evaluation(self)

    @property
    def models(self) -> list[str]:
        """Names of the models, in the order in which they were given."""
        return self.per_user["model"].unique(maintain_order=True).to_list()

    @cached_property
    def notes(self) -> list[str]:
        """How many users each target judges and leaves out, and where a value is infinite."""
        notes = []
        for target in self.per_user["target"].unique(maintain_order=True):
            metric = next(m for t, m, _ in self._values if t == target and m.startswith("NDCG"))
            values = self._values[target, metric, self.models[0]]
            empty = int(np.isnan(values).any(axis=1).sum())
            left_out = f", {empty:,} with nothing to find left out" if empty else ""
            notes.append(f"{target}: {len(values) - empty:,} users judged{left_out}")
        for (target, metric, model), values in self._values.items():
            if users := int(np.isinf(values).any(axis=1).sum()):
                which = f"{users:,} of {len(values):,} users"
                notes.append(f"{target}: {metric} of {model!r} is infinite for {which}")
        return notes

    @cached_property
    def _values(self) -> dict[tuple[str, str, str], Float[np.ndarray, "users seeds"]]:
        """Values of all users, in one fixed order, by target, metric and model."""
        key = ["target", "metric", "model"]
        groups = self.per_user.group_by(key, maintain_order=True)
        return {names: _users_by_seed(group) for names, group in groups}

    def table(self) -> pl.DataFrame:
        """Mean of each metric over users and seeds, with a 95 % interval over users.

        Returns:
            Columns target, model, metric, value, low, high (bootstrap percentiles over users
            of the mean over seeds; null for metrics of a whole set of lists), seeds, spread
            (standard deviation of the mean between seeds, null for one seed), users (those
            with a defined value). An infinite value makes a mean, and an end, infinite.
        """
        by_user = [values.mean(axis=1) for values in self._values.values()]
        lows, highs = bootstrap_intervals(np.stack(by_user, axis=1))
        rows = []
        for (names, values), low, high in zip(self._values.items(), lows, highs, strict=True):
            target, metric, model = names
            means, users = _means(values)
            ends = (means.mean(), low, high, len(means), _spread(means), users)
            rows.append((target, model, metric, *ends))
        key = ["target", "model", "metric"]
        for names, group in self.overall.group_by(key, maintain_order=True):
            means = group["value"].to_numpy()
            users = self.per_user[USER].n_unique()
            rows.append((*names, means.mean(), None, None, len(means), _spread(means), users))
        columns = dict.fromkeys(key, pl.String) | {"value": pl.Float64, "low": pl.Float64}
        columns |= {"high": pl.Float64, "seeds": pl.Int64, "spread": pl.Float64, "users": pl.Int64}
        return pl.DataFrame(rows, schema=columns, orient="row")

    def save(self, folder: str | Path, *, data: str, split: str) -> None:
        """Write metrics.parquet, reliability.parquet and results.json to a folder.

        The parquet files hold `per_user` and `reliability`; results.json holds `table`, `notes`
        and the `gains` of the first model, with null for what is undefined or infinite, beside
        the names of the data set and of how it was split. The folder must be there. ValueError
        inside `privacy.sealed`: these files name users and are not encrypted.
        """
        check_not_sealed("evaluations")
        results = {
            "data": data,
            "split": split,
            "part": self.part,
            "notes": self.notes,
            "table": self.table().to_dicts(),
        }
        if len(self.models) > 1:
            results["gains"] = self.gains(self.models[0]).to_dicts()
        text = json.dumps(_json_numbers(results), indent=1, ensure_ascii=False, allow_nan=False)
        write_text(Path(folder) / "results.json", text + "\n")
        write_atomically(Path(folder) / "metrics.parquet", self.per_user.write_parquet)
        write_atomically(Path(folder) / "reliability.parquet", self.reliability.write_parquet)

    @cached_property
    def _gains(self) -> dict[tuple[str, int, int], pl.DataFrame]:
        return {}

    def gains(self, model: str = "model", *, flips: int = 9_999, seed: int = 0) -> pl.DataFrame:
        """Paired differences: a model's value minus each other model's, user by user.

        Users are what is sampled: values are means over seeds first, and intervals and tests
        are over users. The family of Holm's correction is all rows of this table.

        Args:
            model: Name of the model.
            flips: Random patterns of signs behind each p-value; with more than about
                flips / 20 rows none can pass 5 % after correction.
            seed: Seed of resampling and signs.

        Returns:
            Columns target, metric, over (the other model), then those of
            `comparison.paired_statistics`: gain (mean difference), low, high (95 % bootstrap
            interval), users (those with a defined value from both models), left_out (the
            others), p (sign-flip test), p_holm, effect (Cohen's d_z); better and worse (share
            of users with a better and a worse value, the rest being equal), seeds (of the
            model), spread (standard deviation of the gain between them, null for one).

        Raises:
            ValueError: If there is no such model, or `flips` is below 1.
        """
        check_one_of(self.models, model=model)
        if (model, flips, seed) not in self._gains:
            self._gains[model, flips, seed] = self._paired(model, flips, seed)
        return self._gains[model, flips, seed]

    def _paired(self, model: str, flips: int, seed: int) -> pl.DataFrame:
        keys, differences = [], [np.zeros((self.per_user[USER].n_unique(), 0))]
        for target, metric in dict.fromkeys(names[:2] for names in self._values):
            ours = self._values[target, metric, model]
            for other in self.models:
                if other != model:
                    theirs = self._values[target, metric, other].mean(axis=1, keepdims=True)
                    with np.errstate(invalid="ignore"):  # two infinite values do not compare
                        by_seed = ours - theirs
                        differences.append(by_seed.mean(axis=1, keepdims=True))
                    spread = _spread(_means(by_seed)[0])
                    is_low = is_lower_better(metric)
                    keys.append((target, metric, other, ours.shape[1], spread, is_low))
        columns = {"target": pl.String, "metric": pl.String, "over": pl.String}
        columns |= {"seeds": pl.Int64, "spread": pl.Float64, "is_low": pl.Boolean}
        table = paired_statistics(np.concatenate(differences, axis=1), flips=flips, seed=seed)
        table = table.hstack(pl.DataFrame(keys, schema=columns, orient="row"))
        return table.select(
            *("target", "metric", "over", "gain", "low", "high", "users", "left_out"),
            *("p", "p_holm", "effect"),
            better=pl.when("is_low").then("lower").otherwise("higher"),
            worse=pl.when("is_low").then("higher").otherwise("lower"),
            seeds="seeds",
            spread="spread",
        )


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
    stay in the denominators; alone that of alpha-NDCG is the best list of the catalogue, and a user
    of other items who had nothing with a topic in it scores 0. Interests are judged by the share of
    a user's later events.

    Args:
        rankers: Name -> model, or one model per seed.
        truth: The held-out users.
        features: The catalogue, for labels and popularity.
        k: Length of item lists.
        interest_k: Length of interest lists.
        progress: Show a progress bar over models.

    Returns:
        Values of every user of `truth`, model, seed and metric. Items: NDCG, recall, precision,
        MAP, MRR, hit rate, alpha-NDCG (topics are interests), user coverage, diversity (within
        a list, by interests), novelty, serendipity, miscalibration (of a list's interests
        against the history's). Interests: accuracy for the user's next moment with one and with
        `interest_k` guesses, NDCG, recall and log loss. Over all users together: coverage of
        the candidates and of the interests, the Gini coefficient of how often each candidate
        is recommended, the expected calibration error (ECE) of the most probable interest.
        `metrics` defines each of them.

    Raises:
        ValueError: If `k` or `interest_k` is larger than there are items or interests, no
            ranker is given, or a ranker gives NaN or too few rows.

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
          items: 39 users judged
          new items: 16 users judged, 23 with nothing to find left out
          interests: 39 users judged
    """
    runs = runs_of(rankers)
    check_up_to(features.num_interests, "the interests", interest_k=interest_k)
    bar = progress_bar(runs, label="evaluation", unit="model", enabled=progress)
    judge = Judge(truth, features, k=k, interest_k=interest_k)
    return gather(bar, judge, truth, k=k, interest_k=interest_k)


def runs_of(rankers: Mapping[str, object]) -> list[tuple[str, int, object]]:
    """Name, seed and ranker of each model to judge, given as name -> ranker, or one per seed.

    Raises:
        ValueError: If there is none, or a name has none.
    """
    if not rankers:
        raise ValueError("rankers must name at least one model, got none")
    runs = [
        (name, seed, ranker)
        for name, models in rankers.items()
        for seed, ranker in enumerate(models if isinstance(models, Sequence) else [models])
    ]
    if empty := sorted(set(rankers) - {name for name, *_ in runs}):
        raise ValueError(f"rankers must have a model for each name, got none for {empty}")
    return runs


def gather(
    runs: Iterable[tuple[str, int, object]],
    judge: Callable[..., tuple[list[Judgement], pl.DataFrame | None]],
    truth: HeldOut,
    *,
    k: int,
    interest_k: int,
) -> Evaluation:
    """What a judge, such as `judging.Judge`, says of each of `runs_of` models."""
    per_user, overall, reliability = [], [], []
    users = pl.Series(USER, truth.histories.users)  # one for all tables, which share its memory
    for name, seed, ranker in runs:
        values, bins = judge(ranker, name=name)
        if bins is not None:
            run = (pl.lit(name).alias("model"), pl.lit(seed).alias("seed"))
            reliability.append(bins.select(*run, "*"))
        for target, metric, value in values:
            row = {"target": target, "model": name, "metric": metric, "seed": seed}
            if value.ndim:
                table = pl.DataFrame([users, pl.Series("value", value)])
                literals = {key: pl.lit(part) for key, part in row.items()}
                per_user.append(table.with_columns(**literals))
            else:
                overall.append(row | {"value": float(value)})
    columns = ["target", "model", "metric", "seed", USER, "value"]
    return Evaluation(
        per_user=pl.concat(per_user).select(columns),
        overall=pl.DataFrame(overall),
        reliability=pl.concat(reliability) if reliability else pl.DataFrame(),
        part=truth.part,
        k=k,
        interest_k=interest_k,
    )


def _json_numbers(value):
    """The same with None for NaN, which JSON does not know."""
    if isinstance(value, dict):
        return {key: _json_numbers(part) for key, part in value.items()}
    if isinstance(value, list):
        return [_json_numbers(part) for part in value]
    return None if isinstance(value, float) and not np.isfinite(value) else value


def _users_by_seed(group: pl.DataFrame) -> Float[np.ndarray, "users seeds"]:
    """Values of all users for each seed; users come in one fixed order."""
    seeds = [part["value"].to_numpy() for part in group.partition_by("seed", maintain_order=True)]
    return np.stack(seeds, axis=1)


def _means(values: Float[np.ndarray, "users seeds"]) -> tuple[Float[np.ndarray, " seeds"], int]:
    """Mean of each seed over the users with a value from all of them, and how many these are."""
    values = values[~np.isnan(values).any(axis=1)]
    means = values.mean(axis=0) if len(values) else np.full(values.shape[1], np.nan)
    return means, len(values)


def _spread(means: Float[np.ndarray, " seeds"]) -> float | None:
    with np.errstate(invalid="ignore"):  # infinite means have no spread
        return float(means.std(ddof=1)) if len(means) > 1 else None
