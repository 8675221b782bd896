"""A linkage attack: who can be found again in a released log by somebody who knows a little."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import polars as pl
from jaxtyping import Float, Int

from interestkit.comparison import bootstrap_interval, rate_interval
from interestkit.limits import check_counts, check_within
from interestkit.privacy.generalising import RELEASED, floor_time
from interestkit.progress import progress_bar
from interestkit.schema import ITEM, SEARCH_PREFIX, TIME, USER

ATTACKS = ("items and times", "items")
DAY = 86_400e6  # microseconds
_MOST_DAYS = 36_500
_BLOCK_NUMBERS = 2**22  # targets x released users that are scored at a time


@dataclass(frozen=True, kw_only=True)
class Attacker:
    """What somebody knows of a person whom they look for in a released log.

    Args:
        num_items: Different items that the person had, drawn at random from the whole log, at
            least 1; all of them where there are fewer. A search is no item.
        days: The time of one event with each item is known within so many days, 0..36,500: the
            guess is off by a random amount up to that.
        num_targets: Persons who are looked for, drawn at random, at least 1; all where there are
            fewer.
        seed: Seed of all draws.

    Raises:
        ValueError: If a number is outside its limits.
    """

    num_items: int = 4
    days: float = 14.0
    num_targets: int = 2_000
    seed: int = 0

    def __post_init__(self) -> None:
        check_counts(1, num_items=self.num_items, num_targets=self.num_targets)
        check_within(f"[0, {_MOST_DAYS}]", days=self.days)

    def __str__(self) -> str:
        return f"{self.num_items} items, their times within {self.days:g} days"


def linkage_attack(
    events: pl.DataFrame,
    released: pl.DataFrame,
    *,
    users: pl.DataFrame,
    items: pl.DataFrame,
    time: str = "exact",
    attacker: Attacker | None = None,
    progress: bool = True,
) -> pl.DataFrame:
    """How many people are found again in a released log, with and without knowing times.

    The attacker knows how the log was made coarser, and no key. Each released person scores the
    sum of 1 / log(1 + n) over the known items that they had (at a time that may be the known
    one), n being the number of released people who had that item. The person who is looked for
    is found where they alone have the best score.

    Args:
        events: The true events: user, item, time.
        released: The released events: user, item, time.
        users: The released name of each user: columns user and released.
        items: The released item that stands for each item: columns item and released, which is
            null where its events were dropped.
        time: How times were made coarser, as `Coarseness.time`.
        attacker: What is known; None takes the defaults.
        progress: Show a progress bar.

    Returns:
        A row for each of `ATTACKS`: attack, targets, found, rate (share of targets found), low
        and high (its `comparison.rate_interval`), wrong (share of targets for whom
        somebody else alone has the best score), guess (share expected to be right if one of the
        best is taken by chance, at least `rate`) and guess_high (the upper end of its 95 %
        bootstrap interval).

    Raises:
        ValueError: If either log has no events, or the true one has searches alone.

    Example:
        >>> from interestkit.simulation import simulate
        >>> events = simulate(num_users=50, num_bots=0, faults=0, seed=1).events
        >>> same = {name: events.select(name, released=name).unique() for name in ("user", "item")}
        >>> found = linkage_attack(
        ...     events, events, users=same["user"], items=same["item"], progress=False
        ... )
        >>> found.select("attack", "targets", "found").rows()
        [('items and times', 50, 49), ('items', 50, 43)]

    Source:
        Narayanan and Shmatikov (2008), Robust de-anonymization of large sparse datasets, IEEE
        S&P, doi:10.1109/SP.2008.33: their scoreboard, with 1 / log(1 + n) for 1 / log n, so that
        an item of one person has a finite weight, and without a threshold on the lead of the best.
    """
    attacker = attacker or Attacker()
    if events.is_empty() or released.is_empty():
        raise ValueError("both logs must have events, got none")
    known = {"users": users, "items": items, "attacker": attacker, "progress": progress}
    facts = facts_of(events, attacker)
    rows = [
        {"attack": attack} | attack_with(facts, released, time=when, label=attack, **known)
        for attack, when in zip(ATTACKS, (time, "none"), strict=True)
    ]
    return pl.DataFrame(rows)


def attack_with(
    facts: pl.DataFrame,
    released: pl.DataFrame,
    *,
    users: pl.DataFrame,
    items: pl.DataFrame,
    time: str,
    attacker: Attacker,
    label: str = "",
    progress: bool = False,
) -> dict[str, float]:
    """A row of `linkage_attack` but for its name, from what `facts_of` returned.

    Time "none" makes no use of times; `label` says in the progress bar what is known.
    """
    facts = facts.join(items, on=ITEM, how="left", maintain_order="left")
    targets = facts.select("target", USER).unique(maintain_order=True)
    own = targets.join(users, on=USER, how="left", maintain_order="left")[RELEASED]
    if released.is_empty():  # nobody is there to be found
        return _rates(np.zeros((len(own), 2), int))
    board = _Scoreboard(released, time)
    known, number = board.runs(facts, attacker), board.numbers(own)
    blocks = range(0, len(number), board.block)
    label = f"attack, {label} known"
    bar = progress_bar(blocks, label=label, unit="block", enabled=progress)
    return _rates(np.concatenate([board.found(known, number, first) for first in bar]))


def facts_of(events: pl.DataFrame, attacker: Attacker) -> pl.DataFrame:
    """What is known of each target: user, target (its number), slot, item, time, guess (of it)."""
    rng = np.random.default_rng(attacker.seed)
    had = events.filter(~pl.col(ITEM).str.starts_with(SEARCH_PREFIX)).select(USER, ITEM, TIME)
    if had.is_empty():
        raise ValueError(f"events must have an item that is no search, got {len(events)} searches")
    names = had[USER].unique().sort()
    drawn = np.sort(rng.permutation(len(names))[: attacker.num_targets])
    targets = names[drawn].to_frame().with_row_index("target")
    had = had.join(targets, on=USER, maintain_order="left")
    had = had[rng.permutation(len(had))].unique(["target", ITEM], keep="first", maintain_order=True)
    had = had[rng.permutation(len(had))].with_columns(slot=pl.int_range(pl.len()).over("target"))
    had = had.filter(pl.col("slot") < attacker.num_items).sort("target", "slot")
    off = (rng.uniform(-1, 1, len(had)) * attacker.days * DAY).astype(np.int64)
    return had.with_columns(guess=pl.col(TIME) + pl.Series(off, dtype=pl.Duration("us")))


class _Known(NamedTuple):
    """Rows of a scoreboard that fit each thing known of each target, and what they weigh."""

    start: Int[np.ndarray, "targets slots"]
    count: Int[np.ndarray, "targets slots"]
    weight: Float[np.ndarray, "targets slots"]


class _Scoreboard:
    """A released log, sorted so that who had an item within a span of time is one run of rows."""

    def __init__(self, released: pl.DataFrame, time: str) -> None:
        self.time = time
        self._enum = {name: pl.Enum(released[name].unique().sort()) for name in (USER, ITEM)}
        self.num_users = len(self._enum[USER].categories)
        self.block = max(1, _BLOCK_NUMBERS // self.num_users)
        when = (released[TIME].dt.epoch("us") * (time != "none")).to_numpy()
        self._times, rank = np.unique(when, return_inverse=True)
        user, item = (self.numbers(released[name], name) for name in (USER, ITEM))
        self._keys, self._user = _distinct(self._key(item, rank), user)
        self._weight = 1 / np.log1p(np.bincount(_distinct(item, user)[0]))

    def numbers(self, names: pl.Series, column: str = USER) -> Int[np.ndarray, " names"]:
        """Number of each released user or item; -1 where it is not there."""
        code = names.cast(self._enum[column], strict=False).to_physical()
        return code.cast(pl.Int64).fill_null(-1).to_numpy()

    def _key(self, item: np.ndarray, time: np.ndarray) -> Int[np.ndarray, " rows"]:
        return item * (len(self._times) + 1) + time

    def runs(self, facts: pl.DataFrame, attacker: Attacker) -> _Known:
        """The rows that fit each fact: an item, at a time that may be the one that is known."""
        item = self.numbers(facts[RELEASED], ITEM)
        begin, end = np.zeros(len(item), np.int64), np.full(len(item), len(self._times))
        if self.time != "none":
            margin = pl.duration(microseconds=int(attacker.days * DAY))
            low = floor_time(pl.col("guess") - margin, self.time)
            span = facts.select(
                low=low.dt.epoch("us"), high=(pl.col("guess") + margin).dt.epoch("us")
            )
            begin = np.searchsorted(self._times, span["low"])
            end = np.searchsorted(self._times, span["high"], side="right")
        start = np.searchsorted(self._keys, self._key(item, begin))
        count = np.searchsorted(self._keys, self._key(item, end)) - start
        place = (facts["target"].to_numpy(), facts["slot"].to_numpy())
        shape = [facts[name].max() + 1 for name in ("target", "slot")]
        parts = (start, count, self._weight[item])  # no row fits an item that is not there
        known = _Known(*(np.zeros(shape, part.dtype) for part in parts))
        for table, part in zip(known, parts, strict=True):
            table[place] = part
        return known

    def found(self, known: _Known, own: np.ndarray, first: int) -> Float[np.ndarray, "targets 2"]:
        """How many have the best score for each target of a block, and whether the target has."""
        start, count, weight = (part[first : first + self.block] for part in known)
        own = own[first : first + self.block]
        score = np.zeros((len(start), self.num_users))
        for slot in range(start.shape[1]):
            lengths = count[:, slot]
            target = np.repeat(np.arange(len(start)), lengths)
            before = np.cumsum(lengths) - lengths
            row = np.arange(len(target)) + np.repeat(start[:, slot] - before, lengths)
            hit = np.zeros(score.shape, bool)
            hit[target, self._user[row]] = True
            score += weight[:, slot, None] * hit  # always in one order: equal hits, equal scores
        is_best = score == score.max(axis=1, keepdims=True)
        is_own = is_best[np.arange(len(own)), own] & (own >= 0)
        return np.stack([is_best.sum(axis=1), is_own], axis=1)


def _distinct(one: np.ndarray, other: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The different pairs of two columns, in order."""
    pairs = pl.DataFrame({"one": one, "other": other}).unique().sort("one", "other")
    return pairs["one"].to_numpy(), pairs["other"].to_numpy()


def _rates(found: Int[np.ndarray, "targets 2"]) -> dict[str, float]:
    """Rates over targets, of the number of best scores and whether the target's own is one."""
    ties, is_own = found.T
    right, targets = int(((ties == 1) & is_own).sum()), len(found)
    guess = is_own / np.maximum(ties, 1)
    low, high = rate_interval(right, targets)
    return {
        "targets": targets,
        "found": right,
        "rate": right / targets,
        "low": low,
        "high": high,
        "wrong": float(((ties == 1) & (is_own == 0)).mean()),
        "guess": float(guess.mean()),
        "guess_high": bootstrap_interval(guess)[1],
    }
