"""What a coarser log is still good for: a model that learns from it, judged on the truth."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import polars as pl
from jaxtyping import Float, Int

from interestkit.baselines import Ranker
from interestkit.comparison import bootstrap_interval
from interestkit.evaluation import evaluate
from interestkit.events import EventLog
from interestkit.features import Features, fit_features
from interestkit.heldout import HeldOut, held_out
from interestkit.histories import Histories
from interestkit.neighbours import EASE
from interestkit.privacy.generalising import RELEASED, Coarseness, generalised, with_interests
from interestkit.schema import ITEM, TIME, USER
from interestkit.splitting import temporal_split

MakeRanker = Callable[[Features, Histories], Ranker]
_JUDGED = (("items", "NDCG@10"), ("new items", "NDCG@10"), ("interests", "accuracy"))
_MODELS = ("original", "released")
_COLUMNS = {
    **dict.fromkeys(("target", "metric"), pl.String),
    **dict.fromkeys((*_MODELS, "lost", "low", "high"), pl.Float64),
    "users": pl.Int64,
}


def quick_ranker(features: Features, histories: Histories) -> Ranker:
    """EASE that repeats own items as much as the log does, and forgets over a quarter of it."""
    repeats = histories.num_repeats / max(len(histories.item), 1)
    known = {"features": features, "log": histories}
    return EASE(**known, power=1.0, days=features.scales_days[-1] / 4, own_weight=10 * repeats)


def accuracy_lost(
    log: EventLog,
    coarseness: Coarseness,
    *,
    ranker: MakeRanker = quick_ranker,
    progress: bool = True,
) -> pl.DataFrame:
    """What a model loses that learns from a coarser log.

    One model learns from the events before the test period, one from those events made coarser.
    Both are asked about the same users, the second with their coarser histories, and are judged
    by what these users really did in the test period. An item that stands for many is never
    recommended. Pseudonyms change nothing here.

    Args:
        log: A log that `clean` has cleaned.
        coarseness: How coarse the second model sees it.
        ranker: Makes a model from features and histories.
        progress: Show a progress bar.

    Returns:
        Columns target, metric, original and released (means over the users), lost (mean of the
        first minus the second within users), low and high (its 95 % bootstrap interval), users
        (those for whom both are defined).

    Raises:
        ValueError: If nobody can be judged, or as `generalise`.

    Example:
        >>> from interestkit import clean, simulate
        >>> log, _ = clean(simulate(num_users=50, num_items=40, num_interests=4, seed=1))
        >>> same = Coarseness(time="exact", min_item_users=1)
        >>> accuracy_lost(log, same, progress=False)["lost"].to_list()
        [0.0, 0.0, 0.0]
    """
    split = temporal_split(log, min_judged=0)
    before = split.before("test")
    features = fit_features(before, split.items)
    truth = held_out(features, split, "test")
    labelled = with_interests(replace(log, events=before, items=split.items), features)
    coarse, names = generalised(labelled, coarseness)
    rankers = {
        "original": ranker(features, features.histories(before)),
        "released": _learned(coarse, names, features, truth, ranker),
    }
    k, interest_k = min(10, features.num_items), min(3, features.num_interests)
    judged = evaluate(rankers, truth, features, k=k, interest_k=interest_k, progress=progress)
    rows = [
        _lost(judged.per_user, target, metric.replace("10", str(k))) for target, metric in _JUDGED
    ]
    return pl.DataFrame(rows, schema=_COLUMNS, orient="row")


def _lost(judged: pl.DataFrame, target: str, metric: str) -> tuple:
    """A row of what `accuracy_lost` returns."""
    own = judged.filter(target=target, metric=metric)
    original, released = (own.filter(model=name)["value"].to_numpy() for name in _MODELS)
    lost = original - released
    is_defined = ~np.isnan(lost)
    means = (
        part[is_defined].mean() if is_defined.any() else np.nan
        for part in (original, released, lost)
    )
    return (target, metric, *means, *bootstrap_interval(lost), int(is_defined.sum()))


@dataclass(frozen=True, kw_only=True, eq=False)
class _Learned:
    """A model of a coarser log that answers in the items and interests of the true one.

    Args:
        ranker: The model.
        histories: The coarser histories of the judged users, in their order.
        item_codes: True code of each item of the coarser log; -1 for one that stands for many.
        has_interest: 1 where an interest of the coarser log (row) is that of the true one.
    """

    ranker: Ranker
    histories: Histories
    item_codes: Int[np.ndarray, " items"]
    has_interest: Float[np.ndarray, "interests true_interests"]

    def rank(self, _: Histories, *, k: int = 10, exclude_seen: bool = True):
        """Codes and scores of the k best items of each judged user."""
        most = min(k, len(self.item_codes))
        codes, scores = self.ranker.rank(self.histories, k=most, exclude_seen=exclude_seen)
        scores, empty = np.asarray(scores), ((0, 0), (0, k - most))
        codes = np.where(scores > -np.inf, self.item_codes[np.asarray(codes)], -1)
        codes = np.pad(codes, empty, constant_values=-1)
        return codes, np.pad(scores, empty, constant_values=-np.inf)

    def interests(self, _: Histories) -> Float[np.ndarray, "users interests"]:
        """Probability of each interest; all the same where the coarser log has none of them."""
        found = np.asarray(self.ranker.interests(self.histories)) @ self.has_interest
        found += 1e-9
        return found / found.sum(axis=1, keepdims=True)


def _learned(
    log: EventLog, names: pl.DataFrame, features: Features, truth: HeldOut, ranker: MakeRanker
) -> _Learned:
    """The model that learns from a coarser log, whose users have their true names."""
    own = fit_features(log.events, log.items)
    folded = names.filter(pl.col(ITEM) != pl.col(RELEASED))[RELEASED].unique()
    is_real = pl.col("is_candidate") & ~pl.col(ITEM).is_in(folded.implode())
    own = replace(own, items=own.items.with_columns(is_candidate=is_real))
    seconds = pl.Series(truth.histories.moment).cast(pl.Int64)
    moments = pl.DataFrame({USER: pl.Series(truth.histories.users, dtype=pl.String)}).with_columns(
        (pl.lit(features.origin) + pl.duration(seconds=seconds)).alias(TIME)
    )
    is_same = np.array(own.interests)[:, None] == np.array(features.interests)
    return _Learned(
        ranker=ranker(own, own.histories(log.events)),
        histories=own.histories(log.events, moments=moments),
        item_codes=np.where(own.is_candidate, features.codes(own.items[ITEM]), -1),
        has_interest=is_same.astype(float),
    )
