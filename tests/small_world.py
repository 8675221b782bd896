"""A catalogue of five items, and histories by hand, for the tests of what ranks them."""

from types import SimpleNamespace

import numpy as np

from interestkit.counting import SECONDS_PER_DAY
from interestkit.histories import Histories

# Items 0..3 carry interests x, x, y, none; item 4 is a search.
FEATURES = SimpleNamespace(
    num_items=5,
    num_interests=2,
    is_candidate=np.array([True, True, True, True, False]),
    item_interests=np.array([[1, 0], [1, 0], [0, 1], [0, 0], [0, 0]], np.float32),
)


def histories_of(*users):
    """Histories from lists of (item, day), predicted long after all of them."""
    events = [event for user in users for event in user]
    return Histories(
        users=np.array([f"user {n}" for n in range(len(users))]),
        offsets=np.cumsum([0, *map(len, users)]).astype(np.int32),
        item=np.array([item for item, _ in events], np.int32),
        seconds=np.array([day * SECONDS_PER_DAY for _, day in events], np.int32),
        weight=np.ones(len(events), np.float32),
        moment=np.full(len(users), 20_000 * SECONDS_PER_DAY, np.int32),
    )
