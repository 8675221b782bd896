"""What users really did after the moment of prediction: the truth that models are judged by."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import polars as pl
from jaxtyping import Bool, Float, Int
from scipy.sparse import csr_matrix

from interestkit import reprs
from interestkit.content import label_shares, words_of
from interestkit.features import Features
from interestkit.histories import Histories
from interestkit.schema import INTERESTS, ITEM, SEARCH_PREFIX, TIME, TITLE, USER
from interestkit.similarity import pair_matrix, row_shares, sums_by_user
from interestkit.splitting import Split


@dataclass(frozen=True, kw_only=True)
class HeldOut:
    """The judged users of one part of a split, their histories, and what came after.

    Args:
        part: "validation" or "test".
        histories: History of each judged user.
        relevant: Distinct items of each user after the moment: columns user_code, code (-1 for
            an item that is not in the catalogue, which nobody can recommend), is_seen (the
            user had it before).
        interest_shares: Share of each interest in the user's later events; a row of zeros
            where none of them carries a label.
        next_interests: True for interests of the user's first later event; events at the same
            instant, such as the lines of one basket, count together.
    """

    part: str
    histories: Histories
    relevant: pl.DataFrame
    interest_shares: Float[np.ndarray, "users interests"]
    next_interests: Bool[np.ndarray, "users interests"]

    def __len__(self) -> int:
        return len(self.histories)

    def __repr__(self) -> str:
        unknown = (self.relevant["code"] < 0).mean()
        return f"HeldOut({self.part!r}, {len(self):,} users, {unknown:.1%} of items unknown)"

    def _repr_html_(self) -> str:
        return reprs.of_held_out(self)

    def num_relevant(self, *, new_only: bool = False) -> Int[np.ndarray, " users"]:
        """Distinct later items of each user, or only those that the user never had before."""
        rows = self.relevant.filter(~pl.col("is_seen")) if new_only else self.relevant
        return np.bincount(rows["user_code"], minlength=len(self)).astype(np.int32)

    def check_may_choose(self, *, what: str = "validation") -> None:
        """Raise ValueError, with the name of the argument, if these are the test users."""
        if self.part == "test":
            raise ValueError(f"{what} must be the validation part: settings never see test users")

    @cached_property
    def _keys(self) -> dict[bool, Int[np.ndarray, " pairs"]]:
        """Numbers that stand for user and item: of all later items, and (True) of new ones."""
        known = self.relevant.filter(pl.col("code") >= 0)
        keys = known["user_code"].cast(pl.Int64) * 2**32 + known["code"]
        return {False: np.sort(keys), True: np.sort(keys.filter(~known["is_seen"]))}

    def hits(
        self, first_user: int, codes: Int[np.ndarray, "users ranks"], *, new_only: bool = False
    ) -> Bool[np.ndarray, "users ranks"]:
        """True where a listed item is one of the user's later items.

        Args:
            first_user: Number of the user in row 0 of `codes`; the rows are consecutive users.
            codes: Catalogue codes; negative where the list is empty.
            new_only: Only items that the user never had before count.
        """
        users = np.arange(first_user, first_user + len(codes), dtype=np.int64)[:, None]
        keys = users * 2**32 + codes
        known = self._keys[new_only]
        if not len(known):
            return np.zeros(codes.shape, bool)
        place = np.minimum(np.searchsorted(known, keys), len(known) - 1)
        return (known[place] == keys) & (codes >= 0)


def held_out(features: Features, split: Split, part: str = "test") -> HeldOut:
    """Histories of the judged users of a part, and what they did afterwards.

    Args:
        features: Features fitted on events before the moments of that part.
        split: The split.
        part: "validation" or "test".

    Returns:
        One row per user who has an event before the moment; searches are no later items.

    Raises:
        ValueError: If no user can be judged, or if the features have seen the part of a temporal
            split. Other splits let later events of other users into training: `audit` tells.

    Example:
        >>> from interestkit.features import fit_features
        >>> from interestkit.simulation import simulate
        >>> from interestkit.splitting import temporal_split
        >>> log = simulate(num_users=40, num_items=30, num_bots=0, faults=0)
        >>> split = temporal_split(log, min_judged=0)
        >>> truth = held_out(fit_features(split.train, split.items), split)
        >>> len(truth) == len(split.judged_users("test"))
        True
    """
    before, judged = split.before(part), split.judged_users(part)
    if judged.is_empty():
        raise ValueError(f"{part} has no user with an event before the moment of prediction")
    all_moments = getattr(split, f"moments_{part}")
    moments = judged.to_frame(USER).join(all_moments, on=USER, maintain_order="left")
    if split.method == "temporal" and features.fitted_until >= moments[TIME].min():
        raise ValueError(
            f"features must be fitted before {moments[TIME].min()} to judge {part}, "
            f"got features fitted until {features.fitted_until}"
        )
    code = moments.select(USER, user_code=pl.int_range(pl.len(), dtype=pl.Int32))
    later = getattr(split, part).join(code, on=USER, maintain_order="left")
    later = later.filter(~pl.col(ITEM).str.starts_with(SEARCH_PREFIX))
    later = later.with_columns(code=pl.Series(features.codes(later[ITEM]), dtype=pl.Int32))
    pairs = later.unique([USER, ITEM], maintain_order=True)
    seen = before.select(USER, ITEM, is_seen=True).unique()
    pairs = pairs.join(seen, on=[USER, ITEM], how="left", maintain_order="left")
    shares, first = _interests_of(features, split.items, later, len(moments))
    return HeldOut(
        part=part,
        histories=features.histories(before, moments=moments),
        relevant=pairs.select("user_code", "code", pl.col("is_seen").fill_null(False)),
        interest_shares=shares,
        next_interests=first,
    )


def _interests_of(features: Features, items: pl.DataFrame, later: pl.DataFrame, num_users: int):
    """Interest shares of each user's events, and the interests of the first of them."""
    distinct = later.select(pl.col(ITEM).unique(maintain_order=True))
    table = distinct.join(items, on=ITEM, how="left", maintain_order="left")
    vectors = label_vectors(features, table)
    row = table.select(ITEM, row=pl.int_range(pl.len()))
    events = later.join(row, on=ITEM, maintain_order="left").with_columns(
        is_first=pl.col(TIME) == pl.col(TIME).min().over(USER)
    )
    both = (part.select("user_code", "row") for part in (events, events.filter("is_first")))
    sums, first = (sums_by_user(*part.to_numpy().T, vectors, num_users=num_users) for part in both)
    return row_shares(sums), first > 0


def pairs_of(features: Features, histories: Histories, power: float = 1.0) -> csr_matrix:
    """Who had what: users x items, (number of events) ** `power`, of histories coded by these."""
    histories.check_coded_by(features)
    shape = {"num_users": len(histories), "num_items": features.num_items}
    return pair_matrix(histories.user, histories.item, power=power, **shape)


def label_sums(features: Features, histories: Histories) -> Float[np.ndarray, "users interests"]:
    """Sum of the interests of the events of each history, coded by these features."""
    return (pairs_of(features, histories) @ csr_matrix(features.item_interests)).toarray()


def history_shares(
    features: Features, histories: Histories
) -> Float[np.ndarray, "users interests"]:
    """Share of each interest in the events of each history; 0 where no event has one."""
    return row_shares(label_sums(features, histories))


def label_vectors(features: Features, table: pl.DataFrame) -> Float[np.ndarray, "items interests"]:
    """Interest shares of items, catalogue or not: an item too rare to learn keeps its label."""
    codes = features.codes(table[ITEM])
    vectors = np.where((codes >= 0)[:, None], features.item_interests[codes], np.float32(0))
    if features.interest_source == "behaviour":
        return vectors
    unknown = table.filter(pl.Series(codes < 0, dtype=pl.Boolean))
    labels = unknown[INTERESTS].fill_null([]).to_list()
    if features.interest_source == "titles":
        labels = map(words_of, unknown[TITLE])
    vectors[codes < 0] = label_shares(labels, features.interests)
    return vectors
