"""What goes into the model and what comes out, as arrays with one row for each moment."""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int


class Log(NamedTuple):
    """Events of all users on the device, sorted by user and time."""

    item: Int[Array, " events"]
    seconds: Int[Array, " events"]
    weight: Float[Array, " events"]
    # position of the user's next event with this item, and the decayed sum of their events with
    # it; None for a model without repeats
    following: Int[Array, " events"] | None
    counts: Float[Array, "events scales"] | None


class Catalogue(NamedTuple):
    """What is known of each item, on the device."""

    content: Float[Array, "items content"]
    interest_codes: Int[Array, "items labels"]  # padded with num_interests
    interest_shares: Float[Array, "items labels"]
    is_candidate: Bool[Array, " items"]
    popularity: Float[Array, "items snapshots scales"]
    snapshot_seconds: Int[Array, " snapshots"]

    def snapshot_at(self, seconds: Int[Array, "*times"]) -> Int[Array, "*times"]:
        """The last snapshot not after each time; the first, of nothing popular, before all."""
        after = jnp.searchsorted(self.snapshot_seconds, seconds, side="right")
        return jnp.maximum(after - 1, 0)


class Moment(NamedTuple):
    """Whom to predict, and when: a history is the events start..end - 1 of the log."""

    start: Int[Array, " batch"]
    end: Int[Array, " batch"]
    seconds: Int[Array, " batch"]

    def newest(self, length: int) -> tuple[Int[Array, "batch length"], Bool[Array, "batch length"]]:
        """Places of the newest events in the log, the newest first, and False for padding."""
        at = self.end[:, None] - 1 - jnp.arange(length)[None, :]
        return jnp.maximum(at, 0), at >= self.start[:, None]


class Steps(NamedTuple):
    """What a Transformer says at each event of a window, when the one after it happens."""

    user: Float[Array, "batch events dim"]  # vectors; the newest event first
    item: Int[Array, "batch events"]  # num_items on padding
    seconds: Int[Array, "batch events"]


class Prediction(NamedTuple):
    """What the model says about a batch of moments, all but the scores of new items."""

    # the user's vector; (batch, vectors, dim) where a user has several
    user: Float[Array, "batch *vectors dim"]
    popularity_weight: Float[Array, "batch signals"]  # how much popularity counts for the user
    repeat: Float[Array, "batch repeats"]  # log-probability among the items of the history
    repeat_items: Int[Array, "batch repeats"]  # their codes; num_items where there is none
    repeat_logit: Float[Array, " batch"]  # log-odds of a repeat
    interests: Float[Array, "batch interests"]  # log-probabilities
    snapshot: Int[Array, " batch"]  # last snapshot of popularity that is not after the moment
    steps: Steps | None = None  # what was said at the events before, where training asks for it


class Summary(NamedTuple):
    """What the tower sees of a batch of histories: sums over events, all 0 for an empty one."""

    # mean item vectors on each time scale; for each more user vector; the last item's
    pooled: Float[Array, "batch sums dim"]
    weight: Float[Array, "batch means"]  # weight of the events behind the means
    sums: Float[Array, "batch scales interests"]  # decayed weight of each interest
    shares: Float[Array, "batch scales interests"]  # the same, of their sum
    totals: Float[Array, "batch scales"]  # decayed weight of all events
    encoded: Float[Array, "batch width"] | None = None  # the last state of a Transformer


class Said(NamedTuple):
    """What follows from a summary alone; `Prediction` says what it means."""

    user: Float[Array, "batch *vectors dim"]
    popularity_weight: Float[Array, "batch signals"]
    repeat_logit: Float[Array, " batch"]
    interests: Float[Array, "batch interests"]
