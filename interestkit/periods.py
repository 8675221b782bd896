"""Judged on each coming period, then shown it: a model that is updated, beside two that are not.

Source: Dawid (1984), The prequential approach, JRSS A 147(2), doi:10.2307/2981683.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import lru_cache, partial
from typing import NamedTuple

import numpy as np
import polars as pl
from jaxtyping import Float

from interestkit.baselines import found_by
from interestkit.comparison import bootstrap_intervals
from interestkit.heldout import held_out, label_vectors
from interestkit.limits import check_one_of
from interestkit.metrics import graded_ndcg_at_k, ndcg_at_k
from interestkit.prediction import Predictor
from interestkit.progress import progress_bar
from interestkit.schema import EVENT_COLUMNS, ITEM, TIME, USER, check_has_zone, check_items
from interestkit.similarity import row_shares
from interestkit.splitting import Split
from interestkit.updating import Update, update

NEVER, UPDATED, RETRAINED = "never updated", "updated", "retrained"
TARGETS = ("items", "new items", "interests")
_GROUPS = ("is_absent", "interest")
_COLUMNS = {"period": EVENT_COLUMNS[TIME], "model": pl.String, "seconds": pl.Float64}


@dataclass(frozen=True, kw_only=True, eq=False)
class Prequential:
    """What `prequential` found.

    Args:
        scores: A row for each period, model, target and judged user: period (its beginning),
            model, target, user, value (NDCG, NaN where the user did nothing of that kind),
            is_absent (no event of the user since the first period began, so that no update
            was trained on anything new of them), interest (the one most of their events in the
            period carry, of those by which the model is judged).
        times: A row for each period and model: seconds of the processor to make the model that is
            judged in the period, compilation included.
        updates: The updates, in order.
    """

    scores: pl.DataFrame
    times: pl.DataFrame
    updates: tuple[Update, ...]

    def __repr__(self) -> str:
        rows = self.summary().filter(target="items").iter_rows(named=True)
        parts = (f"{r['model']} {r['value']:.3f} in {r['seconds'] or 0:.1f} s" for r in rows)
        return f"Prequential({len(self.updates) + 1} periods, NDCG of items: {', '.join(parts)})"

    def curve(self) -> pl.DataFrame:
        """Mean of each period, model and target over users, with a 95 % interval.

        Returns:
            Columns period, model, target, value, low, high, users.
        """
        return _means(self.scores, ["period", "model", "target"])

    def summary(self) -> pl.DataFrame:
        """Means over users, and the time that was spent after the first model, which all share.

        Returns:
            Columns model, target, value, low, high, users, seconds, of_retrained (share of the
            value of full retraining) and of_time (share of its time); the last two are null where
            nothing was retrained.
        """
        table = _means(self.scores, ["model", "target"])
        seconds = self.times.group_by("model").agg(pl.col("seconds").sum())
        table = table.join(seconds, on="model", how="left", maintain_order="left")
        best = table.filter(model=RETRAINED).select("target", best="value", most="seconds")
        table = table.join(best, on="target", how="left", maintain_order="left")
        return table.with_columns(
            of_retrained=pl.col("value") / pl.col("best"),
            of_time=pl.col("seconds") / pl.col("most"),
        ).drop("best", "most")

    def forgetting(self, target: str = "items") -> pl.DataFrame:
        """What updates have cost on what they did not see: updated minus never updated, per user.

        First for users of whom updates saw nothing new, then for each interest over all users.
        Below 0, with the whole interval, something was forgotten.

        Args:
            target: One of "items", "new items" and "interests".

        Returns:
            Columns group ("absent users" or an interest), gain, low, high (95 % over users), users.

        Raises:
            ValueError: If there is no such target.
        """
        check_one_of(TARGETS, target=target)
        own = self.scores.filter(target=target).drop_nans("value")
        pairs = own.filter(model=UPDATED).join(own.filter(model=NEVER), on=["period", USER])
        pairs = pairs.with_columns(value=pl.col("value") - pl.col("value_right"))
        # before the first update both are the same
        pairs = pairs.filter(pl.col("period") > self.scores["period"].min())
        absent = pairs.filter("is_absent").with_columns(group=pl.lit("absent users"))
        labels = pairs.drop_nulls("interest").with_columns(group="interest")
        table = pl.concat([_means(part, ["group"]) for part in (absent, labels.sort("interest"))])
        return table.rename({"value": "gain"})


def prequential(
    events: pl.DataFrame,
    items: pl.DataFrame,
    cuts: Sequence[datetime],
    *,
    train: Callable[[pl.DataFrame, datetime], Predictor],
    retrain: bool = True,
    k: int = 10,
    interest_k: int = 3,
    progress: bool = True,
    **options: object,
) -> Prequential:
    """Three models through time: judged on each period, and only then shown its events.

    One is trained before the first cut and never changed, one is updated after each period, one is
    trained anew. Each ranks at the beginning of a period, for users with events before it. Users,
    and what they did, are the same for all: an item carries the interests that any of the models
    gives it, and those that a model does not know are missing in its lists. Interests from
    behaviour are clusters that each training finds for itself, so that there the model that is
    trained anew is judged by its own, and its interests cannot be compared with the others'.

    Args:
        events: A clean log.
        items: Its items table.
        cuts: Times at which periods begin, rising, and the end of the last one.
        train: Makes a model of events and the time until which they were collected: what
            `updated` is measured against, so give it the epochs that it needs, and no more.
        retrain: False leaves out the third model, which takes most of the time.
        k: Length of item lists.
        interest_k: Length of interest lists.
        progress: Show a progress bar over periods.
        **options: Of `update`, such as `config` and `replay`.

    Raises:
        ValueError: If there are not two cuts, they do not rise, one has no time zone, or a period
            has no user to judge, or an item has two rows.
    """
    cuts = list(cuts)
    for cut in cuts:
        check_has_zone(cuts=cut)
    check_items(items)
    if len(cuts) < 2 or sorted(set(cuts)) != cuts:
        raise ValueError(f"cuts must be two times or more, rising, got {[*map(str, cuts)]}")
    events = events.sort(USER, TIME, maintain_order=True)
    scores, times, updates = [], [], []
    first = train(events.filter(pl.col(TIME) < cuts[0]), cuts[0])
    models = {NEVER: first, UPDATED: first} | ({RETRAINED: first} if retrain else {})
    for n in progress_bar(range(len(cuts) - 1), label="periods", unit="period", enabled=progress):
        within = pl.col(TIME).is_between(cuts[n], cuts[n + 1], closed="left")
        before, coming = events.filter(pl.col(TIME) < cuts[n]), events.filter(within)
        if n:
            made, spent = _timed(_go_on, models[UPDATED], before, items, cuts[n], options)
            updates.append(made)
            models[UPDATED] = made.predictor
            times.append((cuts[n], UPDATED, spent))
            if retrain:
                models[RETRAINED], spent = _timed(train, before, cuts[n])
                times.append((cuts[n], RETRAINED, spent))
        split = _split(before, coming, items, cuts[n])
        happened = lru_cache(partial(_done, split=split, since=cuts[0]))
        judge = lru_cache(
            partial(_judged, split=split, happened=happened, k=k, interest_k=interest_k)
        )
        period = pl.lit(cuts[n]).cast(_COLUMNS["period"])
        scores += (  # in the first period all are one
            judge(model, _named_alike(name, models)).with_columns(period=period, model=pl.lit(name))
            for name, model in models.items()
        )
    return Prequential(
        scores=pl.concat(scores).select("period", "model", "target", USER, "value", *_GROUPS),
        times=pl.DataFrame(times, schema=_COLUMNS, orient="row"),
        updates=tuple(updates),
    )


def _go_on(model: Predictor, before, items, until: datetime, options) -> Update:
    """The model after what it has not seen of the events before a time."""
    is_new = pl.col(TIME) > model.features.fitted_until
    past, new = before.filter(~is_new), before.filter(is_new)
    return update(model, new, items, past=past, until=until, progress=False, **options)


def _timed(work: Callable, *given: object):
    """What the work returns, and seconds of the processor."""
    began = time.process_time()
    return work(*given), time.process_time() - began


def _split(before, coming, items, moment: datetime) -> Split:
    """Everything before a moment to know, everything after it to be found."""
    moments = coming.select(USER).unique(maintain_order=True)
    moments = moments.with_columns(pl.lit(moment).cast(coming.schema[TIME]).alias(TIME))
    nobody = {"validation": coming.clear(), "moments_validation": moments.clear()}
    own = {"train": before, "test": coming, "moments_test": moments, "items": items}
    return Split(**own, **nobody, method="temporal", name="period")


class _Done(NamedTuple):
    """What users did in a period, whoever is judged: shares of all interests, and who they are."""

    interests: tuple[str, ...]
    shares: Float[np.ndarray, "users interests"]
    users: pl.DataFrame


def _named_alike(name: str, models: Mapping[str, Predictor]) -> tuple[Predictor, ...]:
    """The models whose interests of one name are the same as those of this one, each once."""
    if any(model.features.interest_source == "behaviour" for model in models.values()):
        models = {n: own for n, own in models.items() if (n == RETRAINED) == (name == RETRAINED)}
    return tuple(dict.fromkeys(models.values()))


def _done(models: Sequence[Predictor], split: Split, since: datetime) -> _Done:
    """The truth of a period: an item has each interest that one of the models gives it."""
    all_features = [model.features for model in models]
    names = tuple(dict.fromkeys(name for own in all_features for name in own.interests))
    items = split.test.select(pl.col(ITEM).unique()).join(split.items, on=ITEM, how="left")
    carries = np.zeros((len(items), len(names)), np.float32)
    for own in all_features:
        carries[:, _places(own.interests, names)] += label_vectors(own, items)
    labels = {"interests": names, "item_interests": row_shares((carries > 0).astype(np.float32))}
    truth = held_out(replace(all_features[0], items=items, **labels), split, "test")
    shares, users = truth.interest_shares, pl.Series(USER, truth.histories.users, pl.String)
    top = np.where(shares.any(axis=1), shares.argmax(axis=1), -1)
    recent = split.train.filter(pl.col(TIME) >= since)[USER].unique()
    groups = (~users.is_in(recent.implode()), pl.Series([*names, None], dtype=pl.String)[top])
    return _Done(names, shares, pl.DataFrame([users, *map(pl.Series.alias, groups, _GROUPS)]))


def _places(own: Sequence[str], names: Sequence[str]) -> list[int]:
    return [names.index(name) for name in own]


def _judged(
    model: Predictor,
    named_alike: tuple[Predictor, ...],
    *,
    split: Split,
    happened: Callable[[tuple[Predictor, ...]], _Done],
    k: int,
    interest_k: int,
) -> pl.DataFrame:
    """Values of all users for each target."""
    truth, done, values = held_out(model.features, split, "test"), happened(named_alike), {}
    for target, new_only in (("items", False), ("new items", True)):
        values[target] = ndcg_at_k(*found_by(model, truth, k=k, new_only=new_only), k=k)
    said = np.full(done.shares.shape, -1.0)
    said[:, _places(model.features.interests, done.interests)] = model.interests(truth.histories)
    best = np.argsort(-said, axis=1, kind="stable")[:, :interest_k]
    gains = np.take_along_axis(done.shares * (said >= 0), best, axis=1)
    values["interests"] = graded_ndcg_at_k(gains, done.shares, k=interest_k)
    return pl.concat(
        done.users.with_columns(value=np.asarray(value, np.float64), target=pl.lit(target))
        for target, value in values.items()
    )


def _means(scores: pl.DataFrame, key: list[str]) -> pl.DataFrame:
    """Mean over users of the mean of each over periods, with an interval over users."""
    rows = []
    for names, group in scores.drop_nans("value").group_by(key, maintain_order=True):
        users = group.group_by(USER, maintain_order=True).agg(pl.col("value").mean())["value"]
        (low,), (high,) = bootstrap_intervals(users.to_numpy()[:, None])
        rows.append((*names, users.mean(), low, high, len(users)))
    columns = {name: scores.schema[name] for name in key}
    columns |= dict.fromkeys(("value", "low", "high"), pl.Float64) | {"users": pl.Int64}
    return pl.DataFrame(rows, schema=columns, orient="row")
