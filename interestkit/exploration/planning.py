"""The exploration loop: a planner proposes interests that are new, a recommender picks items."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
import polars as pl
from jaxtyping import Float, Int

from interestkit.baselines import Ranker
from interestkit.exploration.counting import NovelRanker
from interestkit.exploration.crowd import NEVER, first_touches, label_counts, labels_touched
from interestkit.features import Features
from interestkit.histories import Histories
from interestkit.limits import check_counts
from interestkit.schema import ITEM, TITLE, USER

_USERS = 128  # ranked at a time
_FIRST = 2_000  # items that are ranked first; all of them only if these are not enough


class Plan(NamedTuple):
    """An interest to propose, and why."""

    interest: str
    why: str


class Person(NamedTuple):
    """What a planner may know of somebody: no name, no items, no times.

    Args:
        touched: Interest -> number of events, most first.
        untouched: Interests that would be new.
        likely: Pairs (from, to) of a touched and an untouched interest by the chance of the step,
            most likely first.
    """

    touched: dict[str, int]
    untouched: tuple[str, ...]
    likely: tuple[tuple[str, str], ...]


class Planner(Protocol):
    """Any function of histories: a ranked list of plans for each user, best first."""

    def __call__(self, histories: Histories) -> Sequence[Sequence[Plan]]:
        """Plans of each user; names that are no interest, or not new, are passed over."""


def transitions(features: Features, log: Histories, *, shrinkage: float = 10.0) -> pl.DataFrame:
    """Steps from one interest to the next: who touched one first, and the other later.

    Args:
        features: The catalogue.
        log: Histories of training users.
        shrinkage: Users who go with everybody's share, added to those with the first interest.

    Returns:
        A row per pair: start, goal, users (who touched `goal` for the first time after `start`),
        of (who touched `start` while `goal` was new to them), chance (share, shrunk), lift
        (chance over that of all starts together). Sorted by lift.

    Example:
        >>> from interestkit.features import fit_features
        >>> from interestkit.simulation import simulate
        >>> log = simulate(num_users=80, num_items=40, num_interests=3, num_bots=0, faults=0)
        >>> features = fit_features(log.events, log.items)
        >>> transitions(features, features.histories(log.events)).shape
        (6, 6)
    """
    first = first_touches(features, log)
    after = np.zeros((features.num_interests,) * 2, np.int64)
    could = np.zeros_like(after)
    for start in range(features.num_interests):
        own = first[first[:, start] < NEVER]
        later = own > own[:, [start]]
        could[start], after[start] = later.sum(axis=0), (later & (own < NEVER)).sum(axis=0)
    share = after.sum(axis=0) / np.maximum(could.sum(axis=0), 1)
    chance = (after + shrinkage * share) / np.maximum(could + shrinkage, 1e-9)
    start, goal = np.nonzero(~np.eye(len(after), dtype=bool))
    names = np.array(features.interests, object)
    columns = {
        "start": pl.Series(names[start], dtype=pl.String),
        "goal": pl.Series(names[goal], dtype=pl.String),
        "users": after[start, goal],
        "of": could[start, goal],
        "chance": chance[start, goal],
        "lift": chance[start, goal] / np.maximum(share[goal], 1e-9),
    }
    return pl.DataFrame(columns).sort("lift", "start", "goal", descending=[True, False, False])


def people(features: Features, histories: Histories, steps: pl.DataFrame) -> list[Person]:
    """What a planner may know of each user; `steps` are `transitions`."""
    counts = label_counts(features, histories)
    names, chance = features.interests, _chances(features, steps)
    found = []
    for own in counts:
        has = np.flatnonzero(own > 0)
        new = np.flatnonzero(own <= 0)
        order = has[np.argsort(-own[has], kind="stable")]
        start = has[chance[np.ix_(has, new)].argmax(axis=0)] if len(has) else new[:0]
        best = np.argsort(-chance[start, new], kind="stable") if len(has) else start
        found.append(
            Person(
                touched={names[code]: int(own[code]) for code in order},
                untouched=tuple(names[code] for code in new),
                likely=tuple((names[start[n]], names[new[n]]) for n in best),
            )
        )
    return found


@dataclass(frozen=True, kw_only=True, eq=False)
class LearnedPlanner:
    """Our planner: what a model of novel interests ranks highest, and the step that leads there.

    Args:
        model: Such as `fit_novel` makes.
        features: The catalogue.
        steps: `transitions` of the training log.
        number: Plans per user.
    """

    model: NovelRanker
    features: Features
    steps: pl.DataFrame
    number: int = 5

    def __call__(self, histories: Histories) -> list[list[Plan]]:
        """Plans of each user, best first."""
        scores, names = self.model.novelty(histories), self.features.interests
        chance, counts = _chances(self.features, self.steps), label_counts(self.features, histories)
        plans = []
        for own, row in zip(counts, scores, strict=True):
            has = np.flatnonzero(own > 0)
            order = np.argsort(-row, kind="stable")[: self.number]
            plans.append([])
            for code in order[row[order] > -np.inf]:
                why = "popular with others"
                if len(has):
                    start = has[chance[has, code].argmax()]
                    share = chance[start, code]
                    why = f"about {share:.0%} of those who came from {names[start]!r} went there"
                plans[-1].append(Plan(names[code], why))
        return plans


def explore(
    ranker: Ranker,
    planner: Planner,
    features: Features,
    histories: Histories,
    *,
    interests: int = 2,
    items: int = 3,
) -> pl.DataFrame:
    """For each user interests that are new, why, and the items of them that a recommender picks.

    Args:
        ranker: Any recommender; it ranks all items, of which those of the interest are kept.
        planner: A `LearnedPlanner`, a `LanguagePlanner`, or a function of your own.
        features: The catalogue.
        histories: The users.
        interests: New interests per user, at least 1.
        items: Items per interest, at least 1; fewer where an interest has no more.

    Returns:
        Columns user, interest, why, rank (from 1, within the interest), item, title.

    Raises:
        ValueError: If a number is below 1, or the planner gives no list for each user.
    """
    codes, plans = exploring_items(
        ranker, planner, features, histories, interests=interests, items=items
    )
    user, place, rank = np.nonzero(codes >= 0)
    chosen = [plans[u][p] for u, p in zip(user, place, strict=True)]
    table = features.items.select(ITEM, TITLE)[codes[codes >= 0]]
    return pl.DataFrame(
        {
            USER: pl.Series(histories.users[user], dtype=pl.String),
            "interest": pl.Series([plan.interest for plan in chosen], dtype=pl.String),
            "why": pl.Series([plan.why for plan in chosen], dtype=pl.String),
            "rank": rank + 1,
            ITEM: table[ITEM],
            TITLE: table[TITLE],
        }
    )


def exploring_items(
    ranker: Ranker,
    planner: Planner,
    features: Features,
    histories: Histories,
    *,
    interests: int,
    items: int,
) -> tuple[Int[np.ndarray, "users interests items"], list[list[Plan]]]:
    """Codes of the items of each proposed interest, -1 where there is none, and the plans."""
    check_counts(1, interests=interests, items=items)
    plans = _new_plans(planner, features, histories, interests)
    number = {name: code for code, name in enumerate(features.interests)}
    wanted = [[number[plan.interest] for plan in own] for own in plans]
    codes = np.full((len(histories), interests, items), -1)
    for first in range(0, len(histories), _USERS):
        some = histories.rows(first, first + _USERS)
        own = wanted[first : first + _USERS]
        for k in dict.fromkeys((min(_FIRST, features.num_items), features.num_items)):
            ranked = np.asarray(ranker.rank(some, k=k, exclude_seen=True)[0])
            for user, order in enumerate(ranked):
                codes[first + user] = _picked(
                    features, order[order >= 0], own[user], codes[0].shape
                )
            found = (codes[first : first + _USERS] >= 0).all(axis=2).sum(axis=1)
            if np.array_equal(found, [len(labels) for labels in own]):
                break
    return codes, plans


@dataclass(frozen=True, kw_only=True, eq=False)
class Exploring:
    """A recommender whose last places go to interests that are new to the user.

    Args:
        ranker: Fills all other places, and all that are left over.
        planner: Proposes the interests.
        features: The catalogue.
        places: Places at the end of a list, one new interest each.
    """

    ranker: Ranker
    planner: Planner
    features: Features
    places: int = 2

    def rank(
        self, histories: Histories, *, k: int = 10, exclude_seen: bool = True
    ) -> tuple[Int[np.ndarray, "users k"], Float[np.ndarray, "users k"]]:
        """Codes and scores as of `ranker`; a new interest has the score of the place it takes."""
        codes, scores = self.ranker.rank(histories, k=k, exclude_seen=exclude_seen)
        codes, scores = np.array(codes), np.asarray(scores)
        places = min(self.places, k)
        if places < 1:
            return codes, scores
        given = (self.ranker, self.planner, self.features, histories)
        new = exploring_items(*given, interests=places, items=1)[0][:, :, 0]
        for row, own in zip(codes, new, strict=True):
            fresh = [code for code in own if code >= 0 and code not in row[: k - len(own)]]
            rest = [code for code in row if code not in fresh][: k - len(fresh)]
            row[:] = [*rest, *fresh, *[-1] * (k - len(rest) - len(fresh))]
        return codes, np.where(codes >= 0, scores, -np.inf)

    def interests(self, histories: Histories) -> Float[np.ndarray, "users interests"]:
        """Probability of each interest, as of `ranker`."""
        return self.ranker.interests(histories)


def _picked(features: Features, order: np.ndarray, labels: Sequence[int], shape: tuple[int, int]):
    """The first items of an order that carry each label, none twice; -1 where there is none."""
    picked, taken = np.full(shape, -1), set()
    for place, label in enumerate(labels):
        carries = order[features.item_interests[order, label] > 0]
        best = [code for code in carries[: shape[1] + len(taken)].tolist() if code not in taken]
        picked[place, : len(best[: shape[1]])] = best[: shape[1]]
        taken.update(best[: shape[1]])
    return picked


def _new_plans(planner, features: Features, histories: Histories, number: int) -> list[list[Plan]]:
    """The first plans of each user that name an interest that is new to them."""
    given = planner(histories)
    if len(given) != len(histories):
        raise ValueError(f"planner must give a list for {len(histories)} users, got {len(given)}")
    code = {name: n for n, name in enumerate(features.interests)}
    touched = labels_touched(features, histories)
    plans = []
    for own, offered in zip(touched, given, strict=True):
        new = {}
        for plan in offered:
            if plan[0] in code and not own[code[plan[0]]]:
                new.setdefault(plan[0], Plan(*plan))
        plans.append(list(new.values())[:number])
    return plans


def _chances(features: Features, steps: pl.DataFrame) -> Float[np.ndarray, "starts goals"]:
    number = {name: n for n, name in enumerate(features.interests)}
    chance = np.zeros((features.num_interests,) * 2)
    columns = steps.filter(pl.col("start").is_in(list(number)), pl.col("goal").is_in(list(number)))
    rows = [[number[name] for name in columns[side]] for side in ("start", "goal")]
    chance[rows[0], rows[1]] = columns["chance"].to_numpy()
    return chance
