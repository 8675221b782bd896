"""What the model sees, fitted on training events alone: catalogue, interests, histories."""

import hashlib
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import cached_property
from pathlib import Path

import numpy as np
import polars as pl
from jaxtyping import Bool, Float, Int

from interestkit import reprs
from interestkit.bounded import check_arrays, read_back
from interestkit.content import content_vectors, interests_of, label_shares
from interestkit.counting import SECONDS_PER_DAY
from interestkit.histories import Histories
from interestkit.limits import check_counts
from interestkit.modalities import Modality, fitted, packed, unpacked
from interestkit.popularity import popularity_at, relative_weights, time_scales
from interestkit.schema import (
    EVENT_COLUMNS,
    INTERESTS,
    ITEM,
    ITEM_COLUMNS,
    KIND,
    KIND_WEIGHTS,
    SEARCH_PREFIX,
    TIME,
    TITLE,
    USER,
    check_columns,
    check_has_zone,
    check_items,
    check_kinds,
    did_you_mean,
    end_after,
)
from interestkit.storage import load_folder, save_folder


@dataclass(frozen=True, kw_only=True)
class Features:
    """Everything that is fitted on training events; made by `fit_features`.

    Args:
        items: Catalogue in order of code: item, title, interests, events, is_candidate
            (False for searches, which are never recommended).
        interests: Names of the interests in order of code.
        item_interests: Share of each interest in each item; a row sums to 1, or to 0 where
            an item has no label.
        content: Content vector of each item.
        popularity: log(1 + decayed weight of an item's events) before each snapshot, on each
            time scale.
        snapshot_seconds: Time of each snapshot, seconds since `origin`.
        scales_days: The time scales, in days.
        kind_weights: Weight of an event of each kind, relative to the mean training event.
        origin: The instant from which seconds are counted.
        fitted_until: Time of the last event that was fitted on.
        interest_source: Where the interests come from: "labels", "titles" or "behaviour".
        modalities: More vectors of the items, in order of code.
    """

    items: pl.DataFrame
    interests: tuple[str, ...]
    item_interests: Float[np.ndarray, "items interests"]
    content: Float[np.ndarray, "items content"]
    popularity: Float[np.ndarray, "snapshots scales items"]
    snapshot_seconds: Int[np.ndarray, " snapshots"]
    scales_days: tuple[float, ...]
    kind_weights: Mapping[str, float]
    origin: datetime
    fitted_until: datetime
    interest_source: str
    modalities: tuple[Modality, ...] = ()

    def __repr__(self) -> str:
        return (
            f"Features({self.num_items:,} items, {self.num_interests} interests from "
            f"{self.interest_source}, {self.content.shape[1]} content dimensions, "
            f"fitted until {self.fitted_until:%Y-%m-%d %H:%M})"
        )

    def _repr_html_(self) -> str:
        return reprs.of_features(self)

    @property
    def num_items(self) -> int:
        """Size of the catalogue, searches included."""
        return len(self.items)

    @property
    def num_interests(self) -> int:
        """Number of interests."""
        return len(self.interests)

    @cached_property
    def is_candidate(self) -> Bool[np.ndarray, " items"]:
        """True for items that may be recommended."""
        return self.items["is_candidate"].to_numpy()

    @property
    def by_frequency(self) -> Int[np.ndarray, " candidates"]:
        """Codes of the candidates, the most frequent first; of equals the lower code."""
        codes = np.argsort(-self.items["events"].to_numpy(), kind="stable")
        return codes[self.is_candidate[codes]]

    def items_with(self, interest: str) -> pl.DataFrame:
        """Rows of `items` that carry an interest, the most frequent item first.

        Raises:
            ValueError: If no item has that label; the message names a similar one.
        """
        if interest not in self.interests:
            hint = did_you_mean(interest, self.interests) or f", such as {self.interests[0]!r}"
            number = self.num_interests
            raise ValueError(f"interest must be one of {number} labels, got {interest!r}{hint}")
        carries = self.item_interests[:, self.interests.index(interest)] > 0
        own = self.items.filter(pl.Series(carries))
        return own.sort("events", descending=True, maintain_order=True)

    def codes(self, items: pl.Series) -> Int[np.ndarray, " events"]:
        """Catalogue code of each item name; -1 for an item that training never saw."""
        known = self.items.select(ITEM, code=pl.int_range(pl.len(), dtype=pl.Int32))
        joined = items.to_frame(ITEM).join(known, on=ITEM, how="left", maintain_order="left")
        return joined["code"].fill_null(-1).to_numpy()

    def seconds(self, times: pl.Series) -> Int[np.ndarray, " events"]:
        """Whole seconds from `origin` to each time."""
        return (times.dt.epoch("s") - math.floor(self.origin.timestamp())).cast(pl.Int32).to_numpy()

    def second(self, moment: datetime) -> int:
        """The same for one moment."""
        return math.floor(moment.timestamp()) - math.floor(self.origin.timestamp())

    def histories(
        self,
        events: pl.DataFrame | Iterable[Mapping[str, object]],
        *,
        moments: pl.DataFrame | datetime | None = None,
    ) -> Histories:
        """Histories of users, from a table or a plain list of events.

        Only events strictly before a user's moment are taken, and only those with items of
        the catalogue. Events at one instant keep the order in which they come.

        Args:
            events: A table with columns user, item, time and optionally kind, or rows such
                as `{"user": "ann", "item": "42", "time": datetime(...), "kind": "view"}`.
            moments: Table (user, time) of the users wanted and their moments, or one moment
                for all. None stands for the instant after each user's last event.

        Returns:
            One history per user of `moments` (or of `events`), in their order; a user whose
            items are all unknown has an empty one.

        Raises:
            ValueError: If a column is missing, or a kind has no weight.
        """
        events = as_events(events)
        check_kinds(events[KIND], what="events", allowed=self.kind_weights)
        if moments is None:
            moments = events.group_by(USER, maintain_order=True).agg(
                pl.col(TIME).max() + pl.duration(seconds=1)
            )
        elif isinstance(moments, datetime):
            moments = events.select(
                pl.col(USER).unique(maintain_order=True), pl.lit(moments).alias(TIME)
            )
        moment = pl.col(TIME).cast(EVENT_COLUMNS[TIME])
        moments = moments.select(USER, moment=moment).with_row_index("code")
        known = (
            events.with_columns(item_code=pl.Series(self.codes(events[ITEM])))
            .filter(pl.col("item_code") >= 0)
            .join(moments, on=USER, how="inner", maintain_order="left")
            .filter(pl.col(TIME) < pl.col("moment"))
            .sort("code", TIME, maintain_order=True)
        )
        weights = known[KIND].replace_strict(self.kind_weights, return_dtype=pl.Float32)
        ends = np.searchsorted(known["code"].to_numpy(), np.arange(len(moments) + 1))
        return Histories(
            users=moments[USER].to_numpy(),
            offsets=ends.astype(np.int32),
            item=known["item_code"].to_numpy(),
            seconds=self.seconds(known[TIME]),
            weight=weights.to_numpy(),
            moment=self.seconds(moments["moment"]),
            coded_by=self.fingerprint,
        )

    @cached_property
    def fingerprint(self) -> str:
        """Stands for the catalogue and the origin of time: whose codes and seconds these are."""
        text = "\0".join([self.origin.isoformat(), *self.items[ITEM]]).encode()
        return hashlib.blake2b(text, digest_size=8).hexdigest()

    def pack(self) -> dict:
        """Tables, arrays and meta for `storage.save_folder`; `Features.unpack` reads them."""
        meta = {
            "interests": list(self.interests),
            "scales_days": list(self.scales_days),
            "kind_weights": dict(self.kind_weights),
            "origin": self.origin.isoformat(),
            "fitted_until": self.fitted_until.isoformat(),
            "interest_source": self.interest_source,
        }
        arrays, of_modalities = packed(self.modalities)
        arrays |= {name: getattr(self, name) for name in _ARRAYS}
        return {"tables": {"items": self.items}, "arrays": arrays, "meta": meta | of_modalities}

    @classmethod
    def unpack(cls, *, tables: Mapping, arrays: Mapping, meta: Mapping) -> "Features":
        """Features from what `pack` made."""
        meta = dict(meta)
        for name in ("interests", "scales_days"):
            meta[name] = tuple(meta[name])
        for name in ("origin", "fitted_until"):
            meta[name] = datetime.fromisoformat(meta[name])
            check_has_zone(**{name: meta[name]})
        items, num_snapshots = tables["items"], len(arrays["snapshot_seconds"])
        check_columns(items, _CATALOGUE, what="items")
        num_items, scales = len(items), time_scales(meta["scales_days"], 1.0)
        weights = np.array([float(weight) for weight in meta["kind_weights"].values()])
        check_arrays(
            {**arrays, "scales_days": np.array(scales), "kind_weights": weights},
            "f",
            item_interests=(num_items, len(meta["interests"])),
            content=(num_items, None),
            popularity=(num_snapshots, len(scales), num_items),
            scales_days=(None,),
            kind_weights=(None,),
        )
        check_arrays(arrays, "i", snapshot_seconds=(None,))
        if not num_items or not num_snapshots:
            raise ValueError("items and snapshots must be at least one")
        meta["modalities"] = unpacked(items[ITEM], arrays, meta.get("modalities", {}))
        return cls(items=items, **{name: arrays[name] for name in _ARRAYS}, **meta)

    def save(self, folder: str | Path) -> Path:
        """The folder, to which the features are written whole; `Features.load` reads it."""
        return save_folder(folder, kind="features", **self.pack())

    @classmethod
    def load(cls, folder: str | Path) -> "Features":
        """Features that `save` wrote; errors as in `storage.load_folder`."""
        stored = load_folder(folder, kind="features")
        with read_back(folder):
            return cls.unpack(tables=stored.tables, arrays=stored.arrays, meta=stored.meta)


_CATALOGUE = ITEM_COLUMNS | {"events": pl.Int32, "is_candidate": pl.Boolean}
_ARRAYS = ("item_interests", "content", "popularity", "snapshot_seconds")


def fit_features(
    events: pl.DataFrame,
    items: pl.DataFrame,
    *,
    until: datetime | None = None,
    min_item_events: int = 5,
    kind_weights: Mapping[str, float] = KIND_WEIGHTS,
    num_themes: int = 60,
    content_dim: int = 32,
    num_snapshots: int = 64,
    scales_days: Sequence[float] | None = None,
    modalities: Sequence[Modality] = (),
) -> Features:
    """Catalogue, interests, content vectors and popularity, from training events alone.

    Interests are the labels of the items. Where no item of the catalogue has one they are
    themes found in the titles (`content.themes_from_titles`), and where there are no titles
    either, clusters of items that the same users touch (`content.clusters_from_behaviour`).

    Args:
        events: Training events, canonical columns.
        items: Items table: item, title, interests. It may hold more items than `events`.
        until: The end of training, after the last event: popularity is taken up to there. None
            stands for the second after the last event.
        min_item_events: An item with fewer training events does not enter the catalogue:
            nothing could be learnt of it.
        kind_weights: Weight of an event of each kind; only their ratios count.
        num_themes: Largest number of interests where they must be derived.
        content_dim: Largest number of content dimensions.
        num_snapshots: Moments at which popularity is kept, evenly spread over training; 0 where
            the times say no more than the order, so that nothing is ever popular *now*.
        scales_days: Time scales of decay, above 0, in days; None takes `TIME_SCALES` of the span.
        modalities: More vectors of items (`read_vectors`, `text_vectors`, ...), of which some items
            may have none: the model reads what is there.

    Returns:
        The fitted features. Item codes run from the most to the least frequent item, ties in
        the order of the names.

    Raises:
        ValueError: If there are no events, one is not before `until`, a column is missing, an item
            has two rows, a kind has no weight of 0 or more, all weigh 0, no item has
            `min_item_events`, `num_snapshots` is negative, or `scales_days` is empty or holds a
            number that is not above 0.

    Example:
        >>> from interestkit.simulation import simulate
        >>> log = simulate(num_users=50, num_items=30, num_interests=4, seed=1)
        >>> features = fit_features(log.events.drop_nulls("user").drop_nulls("item"), log.items)
        >>> features.num_interests, features.interest_source
        (4, 'labels')
    """
    events = as_events(events)
    if events.is_empty():
        raise ValueError("events must hold at least one event to fit features on, got none")
    check_kinds(events[KIND], what="events", allowed=kind_weights)
    check_items(items)
    last = events[TIME].max()
    until = end_after(last, until)
    check_counts(0, num_snapshots=num_snapshots)
    catalogue = catalogue_of(events, items, min_item_events)
    if catalogue.is_empty():
        raise ValueError(f"no item has min_item_events={min_item_events} training events")
    labels, source = interests_of(catalogue, events, num_themes)
    catalogue = catalogue.with_columns(pl.Series(INTERESTS, labels, pl.List(pl.String)))
    names = tuple(sorted({label for row in labels for label in row}))
    origin = events[TIME].min()
    scales_days = time_scales(scales_days, (until - origin).total_seconds() / SECONDS_PER_DAY)
    unfinished = Features(
        items=catalogue,
        interests=names,
        item_interests=label_shares(labels, names),
        content=content_vectors(catalogue[TITLE].to_list(), labels, dim=content_dim),
        popularity=np.zeros((1, len(scales_days), len(catalogue)), np.float32),
        snapshot_seconds=np.zeros(1, np.int32),
        scales_days=scales_days,
        kind_weights=relative_weights(kind_weights, events[KIND]),
        origin=origin,
        fitted_until=last,
        interest_source=source,
        modalities=fitted(modalities, catalogue[ITEM]),
    )
    if not num_snapshots:
        return unfinished
    return with_popularity(unfinished, events, until, num_snapshots)


def as_events(events: pl.DataFrame | Iterable[Mapping[str, object]]) -> pl.DataFrame:
    """User, item, time and kind of events that come as a table or as rows."""
    is_table = isinstance(events, pl.DataFrame)
    table = events if is_table else pl.DataFrame(list(events), infer_schema_length=None)
    if KIND not in table.columns:
        table = table.with_columns(pl.lit("view").alias(KIND))
    wanted = {name: EVENT_COLUMNS[name] for name in (USER, ITEM, TIME, KIND)}
    if not is_table and set(wanted) <= set(table.columns):
        table = table.cast(wanted)  # a time without a zone is UTC
    check_columns(table, wanted, what="events")
    return table.select(*wanted)


def catalogue_of(events: pl.DataFrame, items: pl.DataFrame, min_item_events: int) -> pl.DataFrame:
    """Items with enough events, from the most to the least frequent."""
    counts = (
        events.group_by(ITEM)
        .agg(pl.len().cast(pl.Int32).alias("events"))
        .filter(pl.col("events") >= min_item_events)
        .sort(["events", ITEM], descending=[True, False])
    )
    return counts.join(items, on=ITEM, how="left", maintain_order="left").select(
        ITEM,
        TITLE,
        pl.col(INTERESTS).fill_null([]),
        "events",
        is_candidate=~pl.col(ITEM).str.starts_with(SEARCH_PREFIX),
    )


def with_popularity(
    features: Features, events: pl.DataFrame, until: datetime, num_snapshots: int
) -> Features:
    """The features with popularity at so many even steps and at the end of training."""
    edges = np.linspace(0, features.second(until), num_snapshots + 1).astype(np.int32)
    popularity = counted(features, events, edges, range(features.num_items))
    return replace(features, popularity=popularity, snapshot_seconds=edges)


def counted(
    features: Features,
    events: pl.DataFrame,
    edges: Int[np.ndarray, " snapshots"],
    codes: range,
    before: Float[np.ndarray, "scales items"] | float = 0.0,
) -> Float[np.ndarray, "snapshots scales items"]:
    """Popularity of the items with these codes at some seconds, as `popularity_at`."""
    code, seconds = features.codes(events[ITEM]), features.seconds(events[TIME])
    own = (code >= codes.start) & (code < codes.stop)
    own &= seconds < edges[-1]  # not of the last, half second
    weight = events[KIND].replace_strict(dict(features.kind_weights), return_dtype=pl.Float64)
    given = (code[own] - codes.start, seconds[own], weight.to_numpy()[own])
    sizes = {"scales_days": features.scales_days, "num_items": len(codes)}
    return popularity_at(edges, *given, **sizes, before=before)
