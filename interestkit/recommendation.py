"""Recommendations as a tidy table: what to show whom, with names and probabilities."""

import numpy as np
import polars as pl

from interestkit.baselines import Ranker
from interestkit.features import Features
from interestkit.histories import Histories
from interestkit.schema import INTERESTS, ITEM, TITLE, USER


def recommend(
    ranker: Ranker,
    features: Features,
    histories: Histories,
    *,
    k: int = 10,
    exclude_seen: bool = True,
) -> pl.DataFrame:
    """The k best items for each user.

    Args:
        ranker: A `Predictor` (hybrid, or `in_mode("collaborative")`, `in_mode("content")`) or a
            baseline.
        features: The catalogue.
        histories: Whom to recommend to; a user with an empty history gets popular items.
        k: Length of the list, 1 <= k <= items.
        exclude_seen: Leave out items of the user's history.

    Returns:
        Columns user, rank (from 1), item, title, interests, score: the log-probability that a
        model gives the item, or the count behind a baseline. Users with fewer than k items
        left have fewer rows.

    Raises:
        ValueError: If `k` is outside 1..items, or the histories are coded by other features.

    Example:
        >>> from datetime import UTC, datetime
        >>> from interestkit.baselines import Popular
        >>> from interestkit.features import fit_features
        >>> from interestkit.schema import ITEM_COLUMNS
        >>> time = datetime(2024, 3, 1, tzinfo=UTC)
        >>> pairs = [("ann", "tea"), ("bob", "tea"), ("bob", "jam")]
        >>> events = [{"user": user, "item": item, "time": time} for user, item in pairs]
        >>> features = fit_features(events, pl.DataFrame(schema=ITEM_COLUMNS), min_item_events=1)
        >>> histories = features.histories(events)
        >>> popular = Popular(features=features, log=histories)
        >>> recommend(popular, features, histories, k=2).select("user", "rank", "item").rows()
        [('ann', 1, 'jam')]
    """
    histories.check_coded_by(features)
    codes, scores = ranker.rank(histories, k=k, exclude_seen=exclude_seen)
    listed = codes >= 0
    user, rank = np.nonzero(listed)
    items = features.items.select(ITEM, TITLE, INTERESTS)[codes[listed]]
    return (
        pl.DataFrame({"rank": rank + 1, "score": scores[listed]})
        .with_columns(pl.Series(USER, histories.users[user], dtype=pl.String), *items)
        .select(USER, "rank", ITEM, TITLE, INTERESTS, "score")
    )
