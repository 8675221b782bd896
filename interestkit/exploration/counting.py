"""Interests that somebody has not touched yet, by counting what others touched: baselines."""

from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np
from jaxtyping import Float, Int

from interestkit.exploration.crowd import (
    PROFILES,
    Crowd,
    label_counts,
    labels_touched,
    nearest,
    unit,
)
from interestkit.features import Features
from interestkit.histories import Histories

Scores = Float[np.ndarray, "users interests"]


class NovelRanker(Protocol):
    """What says which interests come next that are new."""

    def novelty(self, histories: Histories) -> Scores:
        """Score of each interest for each user; -inf for those that the user has touched."""


@dataclass(frozen=True, kw_only=True, eq=False)
class OfCrowd:
    """What all here share.

    Args:
        features: The catalogue.
        log: Histories of those who are counted.
    """

    features: Features
    log: Histories

    @cached_property
    def crowd(self) -> Crowd:
        """Who is counted."""
        return Crowd(features=self.features, log=self.log)

    def own_rows(self, histories: Histories) -> Int[np.ndarray, " users"]:
        """Row of each user in the log; -1 for somebody else."""
        rows = {user: n for n, user in enumerate(self.log.users)}
        return np.array([rows.get(user, -1) for user in histories.users], int)

    def novelty(self, histories: Histories) -> Scores:
        """Score of each interest; -inf for those that the user has touched."""
        histories.check_coded_by(self.features)
        touched = labels_touched(self.features, histories)
        return np.where(touched, -np.inf, self.scores_of(histories))


@dataclass(frozen=True, kw_only=True, eq=False)
class SimilarUsers(OfCrowd):
    """Baseline: how many of the users who are most like somebody touched an interest.

    Args:
        profile: What makes users alike, one of `crowd.PROFILES`; similarity is the cosine.
        neighbours: Users who count, each with their similarity.
        smoothing: Weight of everybody's popularity, in users who are just the same.
    """

    profile: str = "log"
    neighbours: int = 100
    smoothing: float = 1.0

    def scores_of(self, histories: Histories) -> Scores:
        """Score of each interest, touched or not."""
        crowd, scores = self.crowd, []
        own = unit(crowd.profile(label_counts(self.features, histories), self.profile))
        others = unit(crowd.profile(crowd.counts, self.profile))
        for _, weight in nearest(own, others, self.own_rows(histories), self.neighbours):
            sums = weight @ crowd.touched + self.smoothing * crowd.popularity[None]
            scores.append(sums / np.maximum(weight.sum(axis=1) + self.smoothing, 1e-9)[:, None])
        return np.concatenate(scores)


@dataclass(frozen=True, kw_only=True, eq=False)
class LabelCooccurrence(OfCrowd):
    """Baseline: how many of those who touched a user's interests touched another one.

    Args:
        profile: What an interest of the user weighs, one of `crowd.PROFILES`.
        shrinkage: Users who go with everybody's popularity, added to those with an interest.
        power: Shares are divided by popularity ** power: at 1 the score is a mean lift.
    """

    profile: str = "rare"
    shrinkage: float = 10.0
    power: float = 0.3

    def scores_of(self, histories: Histories) -> Scores:
        """Score of each interest, touched or not."""
        crowd = self.crowd
        together, popular = crowd.touched.T @ crowd.touched, np.maximum(crowd.popularity, 1e-9)
        alone = np.diagonal(together)[:, None]
        shares = (together + self.shrinkage * popular) / np.maximum(alone + self.shrinkage, 1e-9)
        own = crowd.profile(label_counts(self.features, histories), self.profile)
        own = own / np.maximum(own.sum(axis=1, keepdims=True), 1e-9)
        return own @ (shares / popular**self.power)


@dataclass(frozen=True, kw_only=True, eq=False)
class NewToOthers(OfCrowd):
    """Baseline: how many of those who had not touched an interest did so of late; the same for all.

    Args:
        days: How many days before the end of the log are counted.
    """

    days: float = 28.0

    def scores_of(self, histories: Histories) -> Scores:
        """Score of each interest, touched or not."""
        return np.tile(self.crowd.first_rates(self.days), (len(histories), 1))


BASELINES = {  # name -> class and every setting that `tune_novel` tries
    "new to others": (NewToOthers, {"days": (7.0, 14.0, 28.0, 56.0, 112.0)}),
    "similar users": (
        SimilarUsers,
        {
            "profile": PROFILES,
            "neighbours": (20, 50, 100, 200, 400, 800),
            "smoothing": (0.0, 1.0, 10.0),
        },
    ),
    "co-occurrence": (
        LabelCooccurrence,
        {
            "profile": PROFILES,
            "shrinkage": (0.0, 10.0, 100.0, 1000.0),
            "power": (0.0, 0.3, 0.6, 1.0),
        },
    ),
}
