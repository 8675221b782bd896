"""A short random search over the settings of anything that ranks.

Trials are points of a scrambled Halton sequence, which spreads few trials more evenly over each
setting than independent draws, and both cover more of it than a grid: Bergstra and Bengio (2012),
JMLR 13. Settings are judged on validation users, never on test users.
"""

import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import polars as pl

from interestkit.baselines import Ranker, found_by
from interestkit.files import write_text
from interestkit.heldout import HeldOut
from interestkit.limits import check_counts
from interestkit.metrics import hit_rate_at_k, ndcg_at_k, recall_at_k
from interestkit.progress import progress_bar

TARGETS = {"items": False, "new items": True}  # True: of items that the user never had
METRICS = {"NDCG": ndcg_at_k, "recall": recall_at_k, "hit rate": hit_rate_at_k}
_OWN_COLUMNS = ("trial", "score", *TARGETS, "seconds")


@dataclass(frozen=True)
class Uniform:
    """A number drawn evenly from low..high; a whole number where both ends are.

    Numbers have four digits, or more where the range has no such number near. Whole numbers are
    rounded, so that each of the two ends has half the chance of another one.

    Raises:
        ValueError: Unless low <= default <= high, and the default is whole where the ends are.
    """

    low: float
    high: float
    default: float

    def __post_init__(self) -> None:
        if not self.low <= self.default <= self.high:
            raise ValueError(f"default must be in {self.low}..{self.high}, got {self.default}")
        if self._is_whole:
            check_counts(self.low, default=self.default)

    @property
    def _is_whole(self) -> bool:
        return isinstance(self.low, int) and isinstance(self.high, int)

    def at(self, share: float) -> float | int:
        """The value below which this share of the draws falls, 0 <= share < 1."""
        return self._rounded(self.low + share * (self.high - self.low))

    def _rounded(self, value: float) -> float | int:
        short = round(value) if self._is_whole else float(f"{value:.4g}")
        return short if self.low <= short <= self.high else value


class LogUniform(Uniform):
    """A number whose logarithm is drawn evenly, for settings that span powers of ten.

    Raises:
        ValueError: Unless 0 < low <= default <= high.
    """

    def __post_init__(self) -> None:
        if not self.low > 0:
            raise ValueError(f"low must be above 0 on a log scale, got {self.low}")
        super().__post_init__()

    def at(self, share: float) -> float | int:
        """The value below which this share of the draws falls, 0 <= share < 1."""
        return self._rounded(self.low * (self.high / self.low) ** share)


@dataclass(frozen=True)
class Choice:
    """One of some values, all as likely; the first is the default.

    Raises:
        ValueError: If there is none.
    """

    values: tuple

    def __post_init__(self) -> None:
        object.__setattr__(self, "values", tuple(self.values))
        if not self.values:
            raise ValueError("values must hold at least one, got none")

    @property
    def default(self) -> object:
        """The first value."""
        return self.values[0]

    def at(self, share: float) -> object:
        """The value at this share of the way through them, 0 <= share < 1."""
        return self.values[int(share * len(self.values))]


Space = Mapping[str, Uniform | Choice]  # the name of each setting, and what it is drawn from


@dataclass(frozen=True, kw_only=True)
class SearchResult:
    """All trials of a search and what they scored on validation users.

    Args:
        table: One row per trial: trial (1 has the defaults), score (the mean of the targets),
            the targets, seconds, and a column per setting (a tuple is shown as text).
        settings: Settings of each trial, as they were given to `build`.
        metric: What was measured.
        label: What was searched.
    """

    table: pl.DataFrame
    settings: tuple[dict[str, object], ...]
    metric: str
    label: str

    def __repr__(self) -> str:
        score = self.table["score"][self._best_row]
        return (
            f"SearchResult({self.label!r}, {len(self.table)} trials, "
            f"best {self.metric} {score:.4f} in trial {self._best_row + 1})"
        )

    @property
    def best(self) -> dict[str, object]:
        """Settings of the trial with the best score; of equals the earlier one."""
        return dict(self.settings[self._best_row])

    @property
    def _best_row(self) -> int:
        return int(np.nanargmax(self.table["score"].to_numpy()))

    def save(self, path: str | Path) -> Path:
        """The file, to which settings and scores are written as JSON; NaN becomes null."""
        rows = self.table.select(*_OWN_COLUMNS).fill_nan(None).to_dicts()
        trials = [row | {"settings": own} for row, own in zip(rows, self.settings, strict=True)]
        whole = {"label": self.label, "metric": self.metric, "best": self.best, "trials": trials}
        text = json.dumps(whole, indent=1, allow_nan=False) + "\n"
        write_text(Path(path), text)
        return Path(path)


def draw_settings(space: Space, *, num_trials: int, seed: int = 0) -> list[dict[str, object]]:
    """The defaults, then random settings; more trials of one seed begin with the same ones.

    Raises:
        ValueError: If `num_trials` is below 1, or a setting has the name of a result.

    Example:
        >>> draw_settings({"days": LogUniform(1.0, 100.0, default=7.0)}, num_trials=1)
        [{'days': 7.0}]
    """
    check_counts(1, num_trials=num_trials)
    if taken := [name for name in space if name in _OWN_COLUMNS]:
        raise ValueError(f"settings must not be called {', '.join(_OWN_COLUMNS)}, got {taken}")
    from scipy.stats.qmc import Halton

    shares = Halton(len(space), rng=seed).random(num_trials - 1) if space else []
    drawn = [{n: s.at(u) for (n, s), u in zip(space.items(), row, strict=True)} for row in shares]
    return [{name: setting.default for name, setting in space.items()}, *drawn]


def search(
    build: Callable[..., Ranker],
    space: Space,
    *,
    validation: HeldOut,
    num_trials: int = 12,
    seed: int = 0,
    metric: str = "NDCG@10",
    targets: Sequence[str] = ("items", "new items"),
    workers: int = 1,
    label: str = "search",
    progress: bool = True,
) -> SearchResult:
    """Build and judge a ranker with its default settings, then with random ones.

    Args:
        build: Called with the settings by name; returns what is judged.
        space: Name of each setting -> what it is drawn from; `tuning.SPACES` has those of the kit.
        validation: Held-out validation users.
        num_trials: Trials, the defaults included. Compare models with equal numbers.
        seed: Seed of the settings: same seed, same trials.
        metric: NDCG, recall or hit rate, at a length of list in 1..items.
        targets: "items" (repeats allowed), "new items" or both: the score is their mean.
        workers: Trials side by side, in threads; each needs its own memory. More than one pays
            where a trial leaves cores idle; `ALS` fits one at a time all the same.
        label: Name in the progress bar and the result.
        progress: Show a progress bar over trials.

    Returns:
        The trials; one whose training diverges (FloatingPointError) scores NaN.

    Raises:
        ValueError: If an argument is none of the above, `validation` is the test part or has no
            user to judge, or no trial could be scored.

    Example:
        >>> from interestkit import clean, fit_features, held_out, simulate, temporal_split
        >>> from interestkit.baselines import Popular
        >>> log, _ = clean(simulate(num_users=50, num_items=20, num_interests=4, seed=1))
        >>> split = temporal_split(log, min_judged=0)
        >>> features = fit_features(split.train, split.items)
        >>> known = features.histories(split.train)
        >>> search(
        ...     partial(Popular, features=features, log=known),
        ...     {"days": LogUniform(0.5, 365.0, default=28.0)},
        ...     validation=held_out(features, split, "validation"),
        ...     num_trials=3,
        ...     progress=False,
        ... )
        SearchResult('search', 3 trials, best NDCG@10 0.536 in trial 1)
    """
    measure = measure_of(validation, metric, targets)
    check_counts(1, workers=workers)
    settings = draw_settings(space, num_trials=num_trials, seed=seed)
    bar = progress_bar(settings, label=label, unit="trial", enabled=progress)
    outcomes = _side_by_side(partial(_trial, build, measure), settings, workers)
    rows = [outcome for _, outcome in zip(bar, outcomes, strict=True)]
    if all(np.isnan(row["score"]) for row in rows):
        raise ValueError(f"{label}: none of {num_trials} trials could be scored, all diverged")
    rows = [{"trial": number, **row} for number, row in enumerate(rows, 1)]
    columns = [pl.Series(n, [_cell(s[n]) for s in settings], strict=False) for n in space]
    table = pl.DataFrame(rows).with_columns(*columns)
    return SearchResult(table=table, settings=tuple(settings), metric=metric, label=label)


def measure_of(validation: HeldOut, metric: str, targets: Sequence[str]):
    """A function from a ranker to the mean of the metric over users: score and each target."""
    validation.check_may_choose()
    name, _, length = metric.rpartition("@")
    if name not in METRICS or not length.isdecimal():
        raise ValueError(f"metric must be one of {list(METRICS)} as in NDCG@10, got {metric!r}")
    if not targets or not set(targets) <= set(TARGETS):
        raise ValueError(f"targets must be among {list(TARGETS)}, got {list(targets)}")
    for target in targets:
        if not validation.num_relevant(new_only=TARGETS[target]).any():
            raise ValueError(f"validation must hold a user with later {target}, got none")

    def measure(ranker: Ranker) -> dict[str, float]:
        values = dict.fromkeys(TARGETS, float("nan"))
        for target in targets:
            new_only, k = TARGETS[target], int(length)
            users = METRICS[name](*found_by(ranker, validation, k=k, new_only=new_only), k=k)
            values[target] = float(np.nanmean(users))
        return {"score": float(np.mean([values[target] for target in targets])), **values}

    return measure


def _trial(build: Callable[..., Ranker], measure, settings: dict[str, object]) -> dict[str, float]:
    began = time.perf_counter()
    try:
        values = measure(build(**settings))
    except FloatingPointError:
        values = dict.fromkeys(("score", *TARGETS), float("nan"))
    return {**values, "seconds": time.perf_counter() - began}


def _side_by_side(run: Callable, settings: Iterable, workers: int) -> Iterator:
    """Results in the order of `settings`, computed `workers` at a time."""
    if workers == 1:
        yield from map(run, settings)
        return
    pool = ThreadPoolExecutor(workers)
    try:
        yield from pool.map(run, settings)
    finally:
        pool.shutdown(cancel_futures=True)


def _cell(value: object) -> object:
    return " × ".join(map(str, value)) if isinstance(value, list | tuple) else value
