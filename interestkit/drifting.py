"""Whether people do something else than they did: two windows of time, compared user by user.

Under "nothing has changed" the two windows of a user could as well be swapped. What the distances
are when they are, for all users at random, says which distances are no more than chance. Swapping
whole users keeps what their events have to do with one another, so that busy users raise no alarm.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta

import numpy as np
import polars as pl
from jaxtyping import Float, Int
from scipy.sparse import csr_matrix

from interestkit.comparison import holm
from interestkit.features import Features, as_events
from interestkit.limits import check_counts
from interestkit.schema import ITEM, KIND, TIME, USER

MODERATE, LARGE = 0.1, 0.25  # PSI, above what chance gives
LEVEL = 0.05
_MOST_ITEMS = 200  # that are looked at one by one; the others count together
_ASPECTS = 6  # that are always compared
_HALF = 0.5  # events added to each share, so that no logarithm is of 0


@dataclass(frozen=True, kw_only=True, eq=False)
class Drift:
    """What `drift` found.

    Args:
        table: One row per aspect, and one per interest. aspect ("items", "interests", ...,
            "interest" for a single one, "score" for the model), name (of the interest, else
            ""), before and after (share of the events; null where there is no single share),
            psi (population stability index, 0 for none), chance (mean psi where windows are
            swapped), js (Jensen-Shannon divergence, bits), low and high (95 % of `after - before`,
            or of js where there is no share, if nothing changed), p and p_corrected (over the
            aspects, and over the interests), is_drift.
        since: When the earlier window begins.
        between: When the later one begins.
        until: When it ends.
        users: Users in either window.
    """

    table: pl.DataFrame
    since: datetime
    between: datetime
    until: datetime
    users: int

    @property
    def verdict(self) -> str:
        """Whether to retrain, in a sentence."""
        found = self.table.filter(pl.col("is_drift"), pl.col("aspect") != "interest")
        if found.is_empty():
            return "No drift beyond chance: nothing needs to be done."
        names = ", ".join(found["aspect"])
        most = (found["psi"] - found["chance"]).max()
        if most >= LARGE:
            return f"Retrain: {names} drifted (PSI at most {most:.2f} above chance)."
        if "score" in found["aspect"]:
            before, after = self.table.filter(aspect="score").select("before", "after").row(0)
            return (
                f"See whether a new training helps: the score fell from {before:.3f} to "
                f"{after:.3f}, and {names} drifted (PSI at most {most:.2f} above chance)."
            )
        if most >= MODERATE:
            return (
                f"Update, and retrain if it lasts: {names} drifted (PSI {most:.2f} above chance)."
            )
        return f"Updates are enough: {names} drifted, but little (PSI {most:.2f} above chance)."

    def __repr__(self) -> str:
        days = (self.until - self.between).total_seconds() / 86_400
        when = f"{self.between:%Y-%m-%d} and the {days:.3g} days before it, {self.users:,} users"
        return f"Drift(from {when}): {self.verdict}"


def drift(
    reference: pl.DataFrame,
    events: pl.DataFrame,
    features: Features,
    *,
    scores: tuple[pl.DataFrame, pl.DataFrame] | None = None,
    swaps: int = 999,
    seed: int = 0,
) -> Drift:
    """New events against as long a window of those before them, in what a model depends on.

    Aspects are how often each item is had (the 200 most frequent and the rest), each interest and
    each kind; how many events a user has in the window; the share of events with items, and by
    users, that have not occurred before the window; with `scores`, the score of the model. Each is
    a distribution over categories, for which

        PSI = sum of (after - before) log(after / before),
        JS = (KL(before || mean) + KL(after || mean)) / 2 in bits,

    and p is the share of swaps (with the observed one among them) with as large a JS; for the
    unknown ones, and for the score, with as large a rise, or fall. Holm's correction over the
    aspects, and the largest change of any interest over the interests, keep the chance of any
    false alarm at 5 % for each. The weekly rhythm counts as drift unless the new events are of
    whole weeks.

    Args:
        reference: Events that were known, such as those that the model was trained on.
        events: New ones, all later.
        features: The catalogue and its interests.
        scores: Tables (user, value in 0..1, such as `Prequential.scores` of two periods) of how
            good the model was for users before and in the new window.
        swaps: Random swaps behind each p-value: 119 or more, 139 with `scores`. With fewer, no
            p-value could be so low that it is drift once it is corrected.
        seed: Seed of the swaps.

    Raises:
        ValueError: If there are no events, an event of `reference` is not before all new ones,
            `reference` does not reach as far back as the new ones last, or `swaps` is below 119,
            or 139 with `scores`.

    Example:
        >>> from datetime import datetime, UTC
        >>> from interestkit import fit_features, simulate
        >>> log = simulate(
        ...     num_users=80, num_items=40, num_interests=4, drift=0, num_bots=0, faults=0
        ... )
        >>> is_old = pl.col("time") < datetime(2024, 4, 1, tzinfo=UTC)
        >>> old, new = log.events.filter(is_old), log.events.filter(~is_old)
        >>> features = fit_features(old, log.items)
        >>> drift(old, new, features, swaps=199).verdict
        'No drift beyond chance: nothing needs to be done.'

    Source:
        Siddiqi (2006), Credit Risk Scorecards (PSI, and 0.1 and 0.25 as its limits); Lin (1991),
        IEEE Trans. Inf. Theory 37(1), doi:10.1109/18.61115 (JS); Westfall and Young (1993),
        Resampling-Based Multiple Testing (the largest change).
    """
    reference, events = as_events(reference), as_events(events)
    windows, edges = _windows(reference, events)
    users = pl.concat(windows).select(pl.col(USER).unique().sort())
    places = users.with_row_index("row")
    check_counts(round((_ASPECTS + (scores is not None)) / LEVEL) - 1, swaps=swaps)
    signs = _signs(swaps, len(users), seed)
    counts = _counts(windows, reference, features, places)
    rows = [_compared(aspect, *pair, signs) for aspect, pair in counts]
    if scores is not None:
        rows.append(_of_scores(scores, swaps, seed))
    corrected = holm(np.array([row["p"] for row in rows]))
    whole = [row | {"p_corrected": p} for row, p in zip(rows, corrected, strict=True)]
    own = [_interests(window, features, places) for window in windows]
    single = _single_interests(*own, features.interests, signs)
    return Drift(
        table=_as_table(whole + single),
        since=edges[0],
        between=edges[1],
        until=edges[2],
        users=len(users),
    )


def _windows(reference: pl.DataFrame, events: pl.DataFrame):
    """Events of both windows, and when the first begins, the second begins and it ends."""
    if events.is_empty() or reference.is_empty():
        raise ValueError("events and reference must hold at least one event each, got none")
    last, begin, end = reference[TIME].max(), events[TIME].min(), events[TIME].max()
    if last >= begin:
        raise ValueError(f"reference must end before the new events, at {begin}, got {last}")
    end += timedelta(seconds=1)
    since = begin - (end - begin)
    if reference[TIME].min() > since:
        came = reference[TIME].min()
        raise ValueError(
            f"reference must reach back to {since}, as long as events last, got {came}"
        )
    earlier = reference.filter(pl.col(TIME) >= since)
    if earlier.is_empty():
        raise ValueError(f"reference must hold an event from {since} on, got none")
    return (earlier, events), (since, begin, end)


def _counts(windows, reference: pl.DataFrame, features: Features, places: pl.DataFrame):
    """For each aspect the counts of each user (row) in each category, in both windows."""
    both = pl.concat(windows)
    common = both[ITEM].value_counts(sort=True).sort(["count", ITEM], descending=[True, False])
    common = common[ITEM][:_MOST_ITEMS].to_list()
    kinds = sorted(both[KIND].unique())
    yield "items", [_table(w, places, ITEM, common) for w in windows]
    yield "interests", [_interests(w, features, places) for w in windows]
    yield "kinds", [_table(w, places, KIND, kinds) for w in windows]
    yield "activity", [_activity(w, places) for w in windows]
    for what, column in (("unknown items", ITEM), ("unknown users", USER)):
        yield what, [_unknown(w, reference, column, places) for w in windows]


def _table(window, places: pl.DataFrame, column: str, names: list[str]) -> csr_matrix:
    """Events of each user with each name, and in the last column with any other."""
    code = dict(zip(names, range(len(names)), strict=True))
    codes = window[column].replace_strict(code, default=len(names), return_dtype=pl.Int32)
    return _matrix(window, places, codes.to_numpy(), len(names) + 1)


def _matrix(window, places: pl.DataFrame, codes, width: int) -> csr_matrix:
    row = window.join(places, on=USER, maintain_order="left")["row"].to_numpy()
    shape = (len(places), width)
    return csr_matrix((np.ones(len(row)), (row, codes)), shape=shape)


def _interests(window, features: Features, places: pl.DataFrame) -> csr_matrix:
    """Weight of each interest in each user's events with items of the catalogue."""
    codes = features.codes(window[ITEM])
    codes = np.where(codes < 0, features.num_items, codes)
    known = _matrix(window, places, codes, features.num_items + 1)
    return csr_matrix(known[:, :-1] @ csr_matrix(features.item_interests.astype(np.float64)))


def _activity(window, places: pl.DataFrame) -> csr_matrix:
    """One count for each user who is there: by the power of two of their events."""
    events = window.group_by(USER).len()
    codes = np.minimum(np.log2(events["len"].to_numpy()).astype(int), 15)
    return _matrix(events, places, codes, 16)


def _unknown(window, reference: pl.DataFrame, column: str, places: pl.DataFrame) -> csr_matrix:
    """Events of each user with what has not occurred before the window, and all others."""
    earlier = reference.filter(pl.col(TIME) < window[TIME].min())[column].unique()
    is_known = window[column].is_in(earlier.implode())
    return _matrix(window, places, is_known.cast(pl.Int32).to_numpy(), 2)


def _signs(swaps: int, users: int, seed: int) -> Int[np.ndarray, "swaps users"]:
    """1 where the windows of a user are swapped."""
    return np.random.default_rng(seed).integers(0, 2, (swaps, users), dtype=np.int8)


def _swapped(before: csr_matrix, after: csr_matrix, signs) -> tuple[np.ndarray, np.ndarray]:
    """Counts of both windows: as they are in row 0, then with users swapped."""
    total, own = np.asarray((before + after).sum(axis=0)), np.asarray(before.sum(axis=0))
    moved = ((after - before).T @ signs.T.astype(np.float64)).T
    first = np.concatenate([own, own + moved])
    return first, total - first


def _shares(counts: Float[np.ndarray, "swaps categories"]) -> Float[np.ndarray, "swaps categories"]:
    counts = counts + _HALF
    return counts / counts.sum(axis=1, keepdims=True)


def _distances(p: np.ndarray, q: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """PSI and JS of each row."""
    mean = (p + q) / 2
    js = (p * np.log2(p / mean) + q * np.log2(q / mean)).sum(axis=1) / 2
    return ((q - p) * np.log(q / p)).sum(axis=1), js


def _compared(aspect: str, before: csr_matrix, after: csr_matrix, signs) -> dict:
    """A row of the table."""
    counts = _swapped(before, after, signs)
    seen = counts[0][0] + counts[1][0] > 0
    p, q = (_shares(c[:, seen]) for c in counts)
    psi, js = _distances(p, q)
    row = {"aspect": aspect, "name": "", "before": None, "after": None}
    if aspect.startswith("unknown"):  # the share of the first category, which can only rise
        if not seen[0]:
            p, q = np.zeros_like(p), np.zeros_like(q)
        statistic = q[:, 0] - p[:, 0]
        row |= {"before": p[0, 0], "after": q[0, 0]}
    else:
        statistic = js
    return row | _tested(psi, js, statistic, statistic)


def _tested(psi, js, statistic, shown) -> dict:
    """What both kinds of rows end in; `statistic` is large where something changed."""
    low, high = np.quantile(shown[1:], [0.025, 0.975])
    p = _p(statistic, statistic[0])
    chance = float(psi[1:].mean())
    return {"psi": psi[0], "chance": chance, "js": js[0], "low": low, "high": high, "p": p}


def _of_scores(scores: tuple[pl.DataFrame, pl.DataFrame], swaps: int, seed: int) -> dict:
    """The row of the model's score: hits and misses as two categories."""
    means = [t.drop_nans("value").group_by(USER).agg(pl.col("value").mean()) for t in scores]
    users = pl.concat(means).select(pl.col(USER).unique().sort())
    signs = _signs(swaps, len(users), seed)
    counts = []
    for table in means:
        value = users.join(table, on=USER, how="left", maintain_order="left")["value"].to_numpy()
        counts.append(csr_matrix(np.nan_to_num(np.stack([value, 1 - value], axis=1))))
    p, q = (_shares(c) for c in _swapped(*counts, signs))
    fall = p[:, 0] - q[:, 0]
    row = {"aspect": "score", "name": "", "before": p[0, 0], "after": q[0, 0]}
    return row | _tested(*_distances(p, q), fall, -fall)


def _single_interests(before, after, names, signs) -> list[dict]:
    """A row for each interest: its share before and after."""
    p, q = (_shares(c) for c in _swapped(before, after, signs))
    change = np.abs(q - p)
    change /= np.maximum(np.sqrt((change**2).mean(axis=0)), 1e-12)
    largest, rows = change.max(axis=1), []
    for number, name in enumerate(names):
        own, new = (np.stack([s[:, number], 1 - s[:, number]], axis=1) for s in (p, q))
        row = {"aspect": "interest", "name": name, "before": own[0, 0], "after": new[0, 0]}
        row |= _tested(*_distances(own, new), change[:, number], new[:, 0] - own[:, 0])
        rows.append(row | {"p_corrected": _p(largest, change[0, number])})
    return rows


def _p(statistics: np.ndarray, seen: float) -> float:
    """Share of the statistics, of which the first is the observed one, that are as large."""
    return float((statistics >= seen - 1e-12).mean())


def _as_table(rows: list[dict]) -> pl.DataFrame:
    numbers = ("before", "after", "psi", "chance", "js", "low", "high", "p", "p_corrected")
    schema = dict.fromkeys(("aspect", "name"), pl.String) | dict.fromkeys(numbers, pl.Float64)
    table = pl.DataFrame(rows, schema=schema)
    return table.with_columns(is_drift=pl.col("p_corrected") <= LEVEL)
