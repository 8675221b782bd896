"""Features that grow with new events: what was known keeps its place, what is new stands behind."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

import numpy as np
import polars as pl
from jaxtyping import Int

from interestkit.content import fold_in, label_shares, words_of
from interestkit.features import Features, as_events, catalogue_of, counted
from interestkit.modalities import Modality, larger
from interestkit.schema import (
    INTERESTS,
    ITEM,
    KIND,
    TIME,
    TITLE,
    USER,
    check_items,
    check_kinds,
    end_after,
)


def grow_features(
    features: Features,
    new_events: pl.DataFrame,
    items: pl.DataFrame,
    *,
    past: pl.DataFrame | None = None,
    until: datetime | None = None,
    min_item_events: int = 5,
    modalities: Sequence[Modality] = (),
) -> Features:
    """The features with new events: known items and interests keep their codes and vectors.

    New items stand behind the known ones, new labels behind the known interests. Content vectors of
    new items are folded into the directions that are there; popularity goes on from the last
    snapshot, and there are as many snapshots as before: the closest give way. Time scales and
    weights of kinds stay. A known item keeps the labels that it has.

    Args:
        features: What was fitted, or grown, before.
        new_events: Events after `features.fitted_until`.
        items: Items table with the new items.
        past: Events up to `features.fitted_until`: an item counts as new once it has
            `min_item_events` in both together. None counts new events alone.
        until: As in `fit_features`.
        min_item_events: An item with fewer events stays out of the catalogue.
        modalities: Vectors of the new items, as in `colditems.with_new_items`.

    Returns:
        New features; those given stay as they are.

    Raises:
        ValueError: If there is no new event, one is not after `features.fitted_until`, one of the
            past is, one is not before `until`, a kind has no weight, a column is missing, or an
            item has two rows.

    Example:
        >>> from interestkit import fit_features, simulate
        >>> log = simulate(num_users=60, num_items=40, num_interests=4, num_bots=0, faults=0)
        >>> old, new = log.events[:2000], log.events[2000:]
        >>> features = fit_features(old, log.items)
        >>> grown = grow_features(features, new, log.items, past=old)
        >>> grown.items["item"][: features.num_items].equals(features.items["item"])
        True
    """
    new, past = checked(features, new_events, past)
    check_items(items)
    last = new[TIME].max()
    until = end_after(last, until)
    events = pl.concat([past, new])
    strange = events.join(features.items.select(ITEM), on=ITEM, how="anti", maintain_order="left")
    added = catalogue_of(strange, items, min_item_events)
    labels = _labels(features, added, events)
    added = added.with_columns(pl.Series(INTERESTS, labels, pl.List(pl.String)))
    fresh = {label for row in labels for label in row} - set(features.interests)
    names = (*features.interests, *sorted(fresh))
    counts = new[ITEM].value_counts()
    seen = features.items.select(ITEM).join(counts, on=ITEM, how="left", maintain_order="left")
    more = seen["count"].fill_null(0).cast(pl.Int32)
    old = features.items.with_columns(pl.col("events") + more)
    grown = with_rows(replace(features, items=old), added, names, modalities)
    grown = replace(grown, fitted_until=last)
    popularity, edges = _popularity(features, grown, new, strange, features.second(until))
    return replace(grown, popularity=popularity, snapshot_seconds=edges)


def with_rows(
    features: Features,
    added: pl.DataFrame,
    interests: tuple[str, ...],
    modalities: Sequence[Modality] = (),
) -> Features:
    """The features with items behind the known ones; their popularity stays to be appended.

    Args:
        features: Known items, whose content vectors are the directions for those of the new ones.
        added: Rows as in `Features.items`, whose labels are all among `interests`.
        interests: The known interests, and any new ones behind them.
        modalities: Vectors of the new items.
    """
    if added.is_empty():
        return features
    catalogue = pl.concat([features.items, added.select(features.items.columns)])
    words = (catalogue[TITLE].to_list(), catalogue[INTERESTS].to_list())
    old = np.pad(features.item_interests, ((0, 0), (0, len(interests) - features.num_interests)))
    new = label_shares(added[INTERESTS].to_list(), interests)
    return replace(
        features,
        items=catalogue,
        interests=interests,
        item_interests=np.concatenate([old, new]),
        content=np.concatenate([features.content, fold_in(features.content, *words)]),
        modalities=larger(features.modalities, modalities, added[ITEM]),
    )


def checked(
    features: Features, new_events: pl.DataFrame, past: pl.DataFrame | None
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """New events and those before them (none without `past`), each on its side of the features.

    Raises:
        ValueError: As `grow_features`.
    """
    new, limit = as_events(new_events), features.fitted_until
    if new.is_empty():
        raise ValueError("new_events must hold at least one event, got none")
    past = new.clear() if past is None else as_events(past)
    for what, table, side in (
        ("new_events must be after", new, pl.col(TIME) > limit),
        ("past must end by", past, pl.col(TIME) <= limit),
    ):
        check_kinds(table[KIND], what="events", allowed=features.kind_weights)
        if len(wrong := table.filter(~side.fill_null(False))):
            user, item, time, _ = wrong.row(0)
            raise ValueError(
                f"{what} {limit}, until which the features were fitted, got {len(wrong):,} of "
                f"{len(table):,} events on the other side, such as {user!r} with {item!r} at {time}"
            )
    return new, past


def _labels(features: Features, added: pl.DataFrame, events: pl.DataFrame) -> list[tuple[str, ...]]:
    """Interests of the new items, found as those of the known ones were."""
    if features.interest_source == "labels":
        return [tuple(dict.fromkeys(row)) for row in added[INTERESTS].to_list()]
    if features.interest_source == "titles":
        rows = added.select(TITLE, "is_candidate").iter_rows()
        found = (set(words_of(title)) if ok else set() for title, ok in rows)
        return [tuple(name for name in features.interests if name in words) for words in found]
    return _cluster_of_users(features, added, events)


def _cluster_of_users(features: Features, added: pl.DataFrame, events: pl.DataFrame):
    """For each new item the cluster that those who had it have most of; none for strangers."""
    clusters = features.items.select(ITEM, cluster=pl.col(INTERESTS).list.first())
    clusters = clusters.drop_nulls()  # of what only strangers had
    had = events.join(clusters, on=ITEM).group_by(USER, "cluster").len()
    new = events.filter(pl.col(ITEM).is_in(added[ITEM].implode())).select(USER, ITEM)
    votes = new.join(had, on=USER).group_by(ITEM, "cluster").agg(pl.col("len").sum())
    best = votes.sort(["len", "cluster"], descending=[True, False]).unique(ITEM, keep="first")
    found = added.select(ITEM).join(best, on=ITEM, how="left", maintain_order="left")["cluster"]
    return [() if name is None else (name,) for name in found]


def _popularity(features: Features, grown: Features, new, strange, end: int):
    """Snapshots, as many as before, and their times: known items go on, new ones are counted."""
    edges, num_known = features.snapshot_seconds, features.num_items
    if len(edges) == 1:  # nothing is ever popular now
        shape = (1, len(features.scales_days), grown.num_items)
        return np.zeros(shape, np.float32), edges
    end = max(end, int(edges[-1]) + 1)
    step = max((edges[-1] - edges[0]) // (len(edges) - 1), 1)
    most = min(len(edges) - 1, int(end - edges[-1]))  # more would only give way again
    steps = min(max(round((end - edges[-1]) / step), 1), most)
    later = np.linspace(edges[-1], end, steps + 1).astype(np.int32)
    before = np.expm1(features.popularity[-1].astype(np.float64))
    going_on = counted(grown, new, later, range(num_known), before)[1:]
    known = np.concatenate([features.popularity, going_on])
    edges = np.concatenate([edges, later[1:]])
    fresh = counted(grown, strange, edges, range(num_known, grown.num_items))
    kept = _spread_out(edges, len(features.snapshot_seconds))
    return np.concatenate([known, fresh], axis=2)[kept], edges[kept]


def _spread_out(edges: Int[np.ndarray, " edges"], count: int) -> Int[np.ndarray, " kept"]:
    """Places of so many edges, the first and the last among them: the closest have given way."""
    kept = np.arange(len(edges))
    while len(kept) > count:
        gaps = edges[kept[2:]] - edges[kept[:-2]]
        kept = np.delete(kept, 1 + int(gaps.argmin()))
    return kept
