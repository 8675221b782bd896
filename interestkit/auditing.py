"""Audit of a split and the features fitted for it: every leak by name, with an example row."""

import html
import math
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import combinations

import numpy as np
import polars as pl
from jaxtyping import Float, Int

from interestkit import schema
from interestkit.content import WORD
from interestkit.counting import SECONDS_PER_DAY
from interestkit.features import Features
from interestkit.markup import html_table
from interestkit.schema import INTERESTS, ITEM, KIND, TIME, TITLE, USER
from interestkit.splitting import Split

FUTURE = "future event"
FITTED = "features fitted on held-out events"
DUPLICATE = "duplicate across the cut"
ATTRIBUTE = "attribute from the future"
TIE = "unstable tie"
POPULARITY = "popularity from the future"
ACROSS_USERS = "later events of other users"

_FINDING = dict.fromkeys(("level", "leak", "table"), pl.String)
_FINDING |= {"count": pl.Int64, "example": pl.String, "meaning": pl.String}
_ATTRIBUTE = "attribute"
_BOUND = "bound"  # the moment at or after which a row may not be known
_IS_LATE = pl.col(TIME) >= pl.col(_BOUND)
_KEY = [USER, ITEM, TIME, KIND]
_ORDER = {"validation": ("train", "validation"), "test": ("train", "validation", "test")}
_TOLERANCE = 1e-6  # relative and absolute, of popularity: rounding to float32 is 6e-8


@dataclass(frozen=True, kw_only=True, eq=False)
class Audit:
    """What `audit` found.

    Args:
        findings: One row per finding: level ("leak", or "note" for what the kind of split
            brings with it), leak (its name), table (where it is), count (rows, items, interests,
            attributes or, for "later events of other users", users), example (one of them, in
            words) and meaning.
        part: The part that is about to be judged.
        method: How the log was split.
        name: Name of the log.
    """

    findings: pl.DataFrame
    part: str
    method: str
    name: str

    @property
    def is_clean(self) -> bool:
        """True where nothing leaks; notes do not count."""
        return self._leaks.is_empty()

    def raise_if_leaking(self) -> None:
        """Stop where something leaks.

        Raises:
            ValueError: If there is a leak; the message names each, with its example.
        """
        if not self.is_clean:
            rows = self._leaks.select("leak", "table", "count", "example").iter_rows()
            leaks = "; ".join("{} in {} ({:,}, such as {})".format(*row) for row in rows)
            raise ValueError(f"{self.name!r} leaks into {self.part}: {leaks}")

    def __repr__(self) -> str:
        rows = self.findings.select(pl.col("level").str.to_uppercase(), pl.exclude("level")).rows()
        text = "  {} {}, in {}: {:,}\n       such as {}\n       {}"
        return "\n".join([self._title(), *(text.format(*row) for row in rows)])

    def _repr_html_(self) -> str:
        head = f"<p>{html.escape(self._title())}</p>"
        if self.findings.is_empty():
            return head
        return head + html_table(self.findings.to_dict(as_series=False), caption="Findings")

    @property
    def _leaks(self) -> pl.DataFrame:
        return self.findings.filter(pl.col("level") == "leak")

    def _title(self) -> str:
        found = ", ".join(sorted(set(self._leaks["leak"]))) or "no leak found"
        return f"Audit of {self.name!r} ({self.method}) before {self.part} is judged: {found}"


def audit(
    split: Split,
    features: Features,
    *,
    part: str = "test",
    attributes: pl.DataFrame | None = None,
) -> Audit:
    """What the split and the features know that nobody could know when a part is predicted.

    Known may be what is in the parts before `part`: `train` for "validation", `train` and
    `validation` for "test". The leaks, by name:

    - future event: an event of an earlier part at or after the moment at which users of a later
      part are predicted (after leave-last-out, at which its own user is), or one that is to be
      predicted and lies before that moment.
    - features fitted on held-out events: they say that they know later events, an item has more
      events than the known ones up to `fitted_until`, or only items without a known event carry
      an interest.
    - duplicate across the cut: the same user, item, time and kind in two parts. The same item at
      another time is a repetition and no leak, however near.
    - attribute from the future: a row of `attributes` that became known at or after the moment.
    - unstable tie: an event of an earlier part at the very moment of prediction, where the later
      part has one as well; after leave-last-out, one of the same user, so that the order of
      the log alone decides which is the last.
    - popularity from the future: snapshots more than a second after the cut, or more
      popularity than the known events before a snapshot explain. One second is allowed because
      `fit_features` ends, left alone, one second after the last event.

    After leave-last-out, "later events of other users" is a note: it belongs to the method.

    What cannot be seen: when a title or an interest of `split.items` was first written; what
    content vectors, behaviour clusters or a model were fitted on; a choice made after looking
    at the part; events left out on purpose; a time that is wrong in the log.

    Args:
        split: The split.
        features: Features that are used when the part is judged; those fitted on less than may
            be known are fine.
        part: The part that is about to be judged, "validation" or "test".
        attributes: What is known of users or of items, one row each: user or item, attribute
            (its name) and time (when it became known; null where it always was). After
            leave-last-out users are held to their own moment, items to the last of the part.

    Returns:
        The findings, none of them where all is clean.

    Raises:
        ValueError: If `part` is another one or nobody is predicted in it, or if a column of
            `attributes` is missing or has another type.

    Example:
        >>> from interestkit.features import fit_features
        >>> from interestkit.simulation import simulate
        >>> from interestkit.splitting import temporal_split
        >>> log = simulate(num_users=40, num_items=30, num_bots=0, faults=0)
        >>> split = temporal_split(log, min_judged=0)
        >>> audit(split, fit_features(split.before("test"), split.items))
        Audit of 'simulated' (temporal) before test is judged: no leak found
        >>> audit(split, fit_features(log.events, split.items)).findings["leak"].unique().sort()[0]
        'features fitted on held-out events'

    Source:
        Kaufman et al. (2012), Leakage in data mining, ACM TKDD 6(4),
        doi:10.1145/2382577.2382579; Ji et al. (2023), A critical study on data leakage in
        recommender system offline evaluation, ACM TOIS 41(3), doi:10.1145/3569930.
    """
    cut = split.cut(part)
    moments = getattr(split, f"moments_{part}")
    if moments.is_empty():
        raise ValueError(f"{part} has no moment at which a user is predicted")
    earlier = pl.concat([getattr(split, name) for name in _ORDER[part][:-1]])
    known = earlier if cut is None else earlier.filter(pl.col(TIME) < cut)
    fitted_on = known.filter(pl.col(TIME) <= features.fitted_until)
    findings = [
        *_duplicates(split, part),
        *_late_events(split, part),
        *_early_events(split, part),
        *_fitted_too_late(features, known, cut),
        *_unexplained_items(features, fitted_on),
        *_unexplained_interests(features, fitted_on, split.items),
        *_late_snapshots(features, cut),
        *_unexplained_popularity(features, fitted_on),
        *_late_attributes(attributes, moments, cut),
        *(_later_events_of_others(moments, known) if cut is None else []),
    ]
    table = pl.DataFrame(findings, schema=_FINDING, orient="row")
    return Audit(findings=table, part=part, method=split.method, name=split.name)


def _duplicates(split: Split, part: str) -> list[tuple]:
    findings = []
    for earlier, later in combinations(_ORDER[part], 2):
        rows, others = getattr(split, earlier), getattr(split, later)
        near = pl.col(TIME).is_between(others[TIME].min(), others[TIME].max())
        both = rows.filter(near).join(others, on=_KEY, how="semi")
        meaning = "The same user, item, time and kind: what is to be predicted is known."
        findings += _event_finding(DUPLICATE, f"{earlier} and {later}", both, meaning)
    return findings


def _late_events(split: Split, part: str) -> list[tuple]:
    """Ties with, and events after, the moments of later parts; duplicates are left out."""
    order, findings = _ORDER[part], []
    for number, name in enumerate(order[:-1]):
        later = order[number + 1 :]
        held = pl.concat([getattr(split, each) for each in later])
        bounds = pl.concat([getattr(split, f"moments_{each}") for each in later])
        late = _with_bound(split, getattr(split, name), bounds).filter(_IS_LATE)
        late = late.join(held, on=_KEY, how="anti")
        ties = late.filter(pl.col(TIME) == pl.col(_BOUND)).join(held, on=TIME, how="semi")
        meaning = "A later part has an event at the same moment: only the order of rows parts them."
        findings += _event_finding(TIE, name, ties, meaning)
        meaning = "It is not before the moment at which users of a later part are predicted."
        findings += _event_finding(FUTURE, name, late.join(ties, on=_KEY, how="anti"), meaning)
    return findings


def _early_events(split: Split, part: str) -> list[tuple]:
    """Events of the held-out parts before their moment; duplicates are left out."""
    findings = []
    for number, name in enumerate(_ORDER[part][1:], start=1):
        bounded = _with_bound(split, getattr(split, name), getattr(split, f"moments_{name}"))
        early = bounded.filter(~_IS_LATE)
        for each in _ORDER[part][:number]:
            early = early.join(getattr(split, each), on=_KEY, how="anti")
        meaning = "It is to be predicted, but lies before the moment: what is known may be later."
        findings += _event_finding(FUTURE, name, early, meaning)
    return findings


def _fitted_too_late(features: Features, known: pl.DataFrame, cut: datetime | None) -> list[tuple]:
    last = known[TIME].max()
    is_late = features.fitted_until >= cut if cut else last is None or features.fitted_until > last
    example = f"fitted until {features.fitted_until}, the last known event is at {last}"
    meaning = "The last event that the features were fitted on may not be known."
    return [("leak", FITTED, "features.fitted_until", 1, example, meaning)] if is_late else []


def _unexplained_items(features: Features, known: pl.DataFrame) -> list[tuple]:
    """Items of the catalogue with more events than the known ones."""
    counts = known.group_by(ITEM).agg(known=pl.len())
    items = features.items.select(ITEM, "events").join(counts, on=ITEM, how="left")
    items = items.with_columns(pl.col("known").fill_null(0))
    excess = items.filter(pl.col("events") > pl.col("known"))
    if excess.is_empty():
        return []
    item, fitted, few = excess.sort("known", ITEM).row(0)
    example = f"item {_short(item)}, events counted {fitted:,}, events known {few:,}"
    meaning = "More events than may be known; with 0 known only held-out events name the item."
    return [("leak", FITTED, "features.items", len(excess), example, meaning)]


def _unexplained_interests(
    features: Features, known: pl.DataFrame, items: pl.DataFrame
) -> list[tuple]:
    """Interests that items of the log carry, but none with a known event."""
    if features.interest_source == "behaviour":
        return []
    words = pl.col(TITLE).str.to_lowercase().str.extract_all(WORD).alias(INTERESTS)
    names = pl.col(INTERESTS) if features.interest_source == "labels" else words
    tables = items.select(ITEM, names), features.items.select(ITEM, INTERESTS)
    ours = pl.Series(features.interests, dtype=pl.String).implode()
    carried = pl.concat(tables).explode(INTERESTS).filter(pl.col(INTERESTS).is_in(ours))
    old = carried.join(known, on=ITEM, how="semi")
    new = carried.join(old, on=INTERESTS, how="anti")
    if new.is_empty():
        return []
    item, name = new.sort(INTERESTS, ITEM).row(0)
    example = f"interest {_short(name)}, carried by item {_short(item)}"
    meaning = "Only items without a known event carry it, so the list of interests knows them."
    return [("leak", FITTED, "features.interests", new[INTERESTS].n_unique(), example, meaning)]


def _late_snapshots(features: Features, cut: datetime | None) -> list[tuple]:
    start = math.floor(features.origin.timestamp())
    at = features.snapshot_seconds.astype(np.int64) + start
    late = at[at > math.ceil(cut.timestamp()) + 1] if cut else at[:0]
    if not len(late):
        return []
    example = f"the snapshot of {datetime.fromtimestamp(late[0], UTC)}, the cut is at {cut}"
    meaning = "Popularity is taken after the moment at which users are predicted."
    return [("leak", POPULARITY, "features.snapshot_seconds", len(late), example, meaning)]


def _unexplained_popularity(features: Features, known: pl.DataFrame) -> list[tuple]:
    """Items that are more popular at a snapshot than the known events before it explain."""
    codes = features.codes(known[ITEM])
    known, codes = known.filter(pl.Series(codes >= 0)), codes[codes >= 0]
    seconds = features.seconds(known[TIME]).astype(np.int64)
    weights = known[KIND].replace_strict(
        dict(features.kind_weights), default=0.0, return_dtype=pl.Float64
    )
    is_over, worst = np.zeros(features.num_items, bool), (0.0,)
    for scale, days in enumerate(features.scales_days):
        given = features.popularity[:, scale]
        explained = _explained(features, codes, seconds, weights.to_numpy(), days)
        excess = given - explained * (1 + _TOLERANCE) - _TOLERANCE
        is_over |= (excess > 0).any(axis=0)
        snapshot, item = np.unravel_index(excess.argmax(), excess.shape)
        most = (excess[snapshot, item], item, given[snapshot, item], explained[snapshot, item])
        worst = max(worst, most)
    if not is_over.any():
        return []
    _, item, given, explained = worst
    name = _short(features.items[ITEM][int(item)])
    example = f"item {name}, popularity {given:.4g}, explained {explained:.4g}"
    meaning = "Events that may not be known were counted in the popularity before a snapshot."
    return [("leak", POPULARITY, "features.popularity", int(is_over.sum()), example, meaning)]


def _explained(
    features: Features,
    codes: Int[np.ndarray, " events"],
    seconds: Int[np.ndarray, " events"],
    weights: Float[np.ndarray, " events"],
    days: float,
) -> Float[np.ndarray, "snapshots items"]:
    """As `popularity.popularity_at`, which it checks: log(1 + decayed weight before a snapshot)."""
    edges = features.snapshot_seconds.astype(np.int64)
    first = np.searchsorted(edges, seconds, side="right")  # the first snapshot that counts it
    counts = first < len(edges)
    first, codes, seconds, weights = (a[counts] for a in (first, codes, seconds, weights))
    decayed = weights * np.exp((seconds - edges[first]) / SECONDS_PER_DAY / days)
    shape = (len(edges), features.num_items)
    cell = first * features.num_items + codes
    sums = np.bincount(cell, decayed, minlength=math.prod(shape)).reshape(shape)
    kept = np.exp(-np.diff(edges) / SECONDS_PER_DAY / days)
    for snapshot, share in enumerate(kept, start=1):
        sums[snapshot] += sums[snapshot - 1] * share
    return np.log1p(sums)


def _late_attributes(
    attributes: pl.DataFrame | None, moments: pl.DataFrame, cut: datetime | None
) -> list[tuple]:
    if attributes is None:
        return []
    whose = [name for name in (USER, ITEM) if name in attributes.columns]
    if len(whose) != 1:
        raise ValueError(f"attributes must have a column user or item, got {attributes.columns}")
    columns = {whose[0]: pl.String, _ATTRIBUTE: pl.String, TIME: schema.EVENT_COLUMNS[TIME]}
    schema.check_columns(attributes, columns, what="attributes")
    if cut is None and whose == [USER]:
        bounded = attributes.join(moments.rename({TIME: _BOUND}), on=USER)
    else:
        bound = pl.lit(cut or moments[TIME].max(), dtype=schema.EVENT_COLUMNS[TIME])
        bounded = attributes.with_columns(bound.alias(_BOUND))
    late = bounded.filter(_IS_LATE)
    if late.is_empty():
        return []
    name, attribute, time = late.select(*columns).sort(TIME, whose[0], _ATTRIBUTE).row(0)
    example = f"{whose[0]} {_short(name)}, attribute {_short(attribute)}, known since {time}"
    meaning = "It did not exist yet at the moment of prediction."
    return [("leak", ATTRIBUTE, "attributes", len(late), example, meaning)]


def _later_events_of_others(moments: pl.DataFrame, known: pl.DataFrame) -> list[tuple]:
    last = known[TIME].max()
    ahead = moments.filter(pl.col(TIME) < last).sort(TIME, USER)
    if ahead.is_empty():
        return []
    user, moment = ahead.select(USER, TIME).row(0)
    example = f"user {_short(user)} is predicted at {moment}, known events run until {last}"
    meaning = "By its nature leave-last-out lets a model know what others did later; no alarm."
    return [("note", ACROSS_USERS, "known events", len(ahead), example, meaning)]


def _with_bound(split: Split, events: pl.DataFrame, moments: pl.DataFrame) -> pl.DataFrame:
    """Events with the first moment of all users, or after leave-last-out of their own."""
    if split.method == "temporal":
        first = pl.lit(moments[TIME].min(), dtype=schema.EVENT_COLUMNS[TIME])
        return events.with_columns(first.alias(_BOUND))
    return events.join(moments.group_by(USER).agg(pl.col(TIME).min().alias(_BOUND)), on=USER)


def _event_finding(leak: str, table: str, rows: pl.DataFrame, meaning: str) -> list[tuple]:
    """One finding whose example is the first of the rows in time, or none without rows."""
    if rows.is_empty():
        return []
    user, item, time, kind = rows.select(_KEY).sort(TIME, USER, ITEM, KIND).row(0)
    example = f"user {_short(user)}, item {_short(item)}, {time}, {kind}"
    return [("leak", leak, table, len(rows), example, meaning)]


def _short(name: object) -> str:
    """A name in quotes, line breaks escaped, cut at 40 characters."""
    text = repr(name)
    return text if len(text) <= 40 else f"{text[:39]}…"
