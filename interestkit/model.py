"""The interest model: one MLP user tower, with heads for interests, new items and repeats.

A user's history becomes one vector. The probability of the next item is a mixture: with the
probability of a *repeat* it is an item of the history, chosen by how often and how lately the
user had it; otherwise it is a *new* item, chosen by the product of user and item vector, item
bias and recent popularity. This split follows RepeatNet (Ren et al. 2019, AAAI); all parts are
trained together. Interests are a softmax over labels around the user's own shares.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Bool, Float, Int

from interestkit.devices import MODEL, spread
from interestkit.devices import rows as rows_of
from interestkit.layers import MLP, Bits, draw_weights, drop, is_kept, linear
from interestkit.records import Catalogue, Log, Moment, Prediction, Said, Summary

SECONDS_PER_DAY = 86_400.0
# Which parts of the item vectors count: learned per item, and projected from content.
PARTS = {"hybrid": (1.0, 1.0), "collaborative": (1.0, 0.0), "content": (0.0, 1.0)}
HIDDEN = -1e9  # score of what cannot be; finite, so that gradients stay numbers
_LONG = 8  # histories are long where the catalogue is less than so many times as large
LEAST_WEIGHT, LEAST_SUM = 1e-3, 1e-6  # in place of sums that are 0, which nothing can be divided by
_UNSEEN_COUNT = 0.02  # stands for "no event" inside logarithms of decayed counts


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """Shape of the model; saved beside its weights.

    Args:
        num_items: Size of the catalogue.
        num_interests: Number of interests.
        content_dim: Columns of the content vectors; 0 where there are none.
        scales_days: Time scales of decay, in days.
        item_dim: Length of user and item vectors.
        hidden: Widths of the hidden layers.
        dropout: Share of tower inputs and hidden units dropped in training.
        event_dropout: Share of history events hidden from the tower in training.
        history_length: Newest events that are pooled into the user vector.
        repeat_length: Newest events whose items can be repeated, and that are counted.
        pool_power: Pooled sums are divided by (total weight) ** `pool_power`, in [0, 1]: 1 makes
            them means, less gives long histories more say.
        can_repeat: Whether a user can have an item again; False leaves out the repeats, which
            saves a third of the work where nobody in training did.
    """

    num_items: int
    num_interests: int
    content_dim: int
    scales_days: tuple[float, ...]
    item_dim: int = 64
    hidden: tuple[int, ...] = (100, 100)
    dropout: float = 0.5
    event_dropout: float = 0.1
    history_length: int = 64
    repeat_length: int = 512
    pool_power: float = 1.0
    can_repeat: bool = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "hidden", tuple(self.hidden))  # a list has no hash
        for name in ("num_items", "num_interests", "item_dim", "history_length", "repeat_length"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        for name in ("dropout", "event_dropout"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} must be in [0, 1), got {getattr(self, name)}")
        if not 0 <= self.pool_power <= 1:
            raise ValueError(f"pool_power must be in [0, 1], got {self.pool_power}")
        if not self.hidden or min(self.hidden) < 1:
            raise ValueError(f"hidden must name at least one width >= 1, got {self.hidden}")

    @property
    def num_inputs(self) -> int:
        """Width of the tower's input."""
        scales = len(self.scales_days)
        return self.item_dim * (scales + 1) + scales * (self.num_interests + 2)

    @property
    def num_bits(self) -> int:
        """Random numbers that dropout takes for one moment."""
        return self.history_length + self.num_inputs + sum(self.hidden)


class InterestModel(nnx.Module):
    """The user tower and its heads; `Prediction` says what comes out.

    Args:
        config: The shape.
        rngs: Random keys for the weights.
    """

    def __init__(self, config: ModelConfig, *, rngs: nnx.Rngs):
        self.config = config
        scales, dim, width = len(config.scales_days), config.item_dim, config.hidden[-1]
        normal = nnx.initializers.normal(0.05)
        self.item_vectors = nnx.Param(normal(rngs.params(), (config.num_items, dim)))
        self.item_bias = nnx.Param(jnp.zeros(config.num_items))
        self.content = linear(max(config.content_dim, 1), dim, use_bias=False)
        self.trend = MLP(scales, (8,), 1)
        even = nnx.initializers.constant(1 / scales)
        self.popularity_weight = linear(width, scales + 1, bias_init=even)
        self.log_decay_days = nnx.Param(jnp.log(jnp.array(config.scales_days)))
        self.tower = MLP(config.num_inputs, config.hidden, dropout=config.dropout)
        self.user_vector = linear(width, dim, use_bias=False)
        self.pooled_weight = nnx.Param(jnp.full(scales + 1, 0.5))
        self.repeat_gate = linear(width, 1)
        self.repeat_score = MLP(2 * scales + 2, (32,), 1)
        self.repeat_count_weight = nnx.Param(jnp.full(scales, 1.2 / scales))
        self.repeat_item_bias = nnx.Param(jnp.zeros(config.num_items))
        self.interest_correction = linear(width, config.num_interests)
        self.interest_prior = nnx.Param(jnp.zeros(config.num_interests))
        self.interest_mixture = nnx.Param(jnp.array([-1.0] * (scales - 1) + [0.0, 2.0]))
        mlps = (self.trend, self.tower, self.repeat_score)
        layers = [layer for mlp in mlps for layer in mlp.all_layers]
        # the weights of popularity and of the correction begin at 0
        draw_weights([self.content, self.user_vector, self.repeat_gate, *layers], rngs.params())

    def __call__(
        self,
        log: Log,
        catalogue: Catalogue,
        moment: Moment,
        *,
        parts: Float[Array, " parts"],
        bits: Bits | None = None,
    ) -> Prediction:
        """Predictions for a batch of moments.

        Args:
            log: Events of all users.
            catalogue: All items.
            moment: Whom to predict, and when.
            parts: Which parts of the item vectors count.
            bits: Random bits (batch, `ModelConfig.num_bits`) for dropout; None drops nothing.
        """
        config, repeats = self.config, self._repeats(log, moment)
        ends = np.cumsum([config.history_length, config.num_inputs, *config.hidden])
        bits = [None] * len(ends) if bits is None else jnp.split(bits, ends[:-1], axis=1)
        summary = self._summary(log, catalogue, moment, parts, repeats, bits[0])
        said = self.say(summary, bits[1:])
        can_repeat = repeats.is_real & rows_of(catalogue.is_candidate, repeats.item)
        repeats = repeats._replace(is_real=can_repeat)
        snapshot = jnp.searchsorted(catalogue.snapshot_seconds, moment.seconds, side="right") - 1
        snapshot = jnp.maximum(snapshot, 0)  # before the log began nothing was popular
        score, odds = jnp.zeros(can_repeat.shape), jnp.full(len(can_repeat), HIDDEN)
        if self.config.can_repeat:
            score = self._score_repeats(catalogue, snapshot, repeats, summary.totals)
            odds = jnp.where(can_repeat.any(axis=1), said.repeat_logit, HIDDEN)
        return Prediction(
            user=said.user,
            popularity_weight=said.popularity_weight,
            repeat=jax.nn.log_softmax(jnp.where(can_repeat, score, HIDDEN), axis=1),
            repeat_items=jnp.where(can_repeat, repeats.item, self.config.num_items),
            repeat_logit=odds,
            interests=said.interests,
            snapshot=snapshot,
        )

    def summarise(self, log: Log, catalogue: Catalogue, moment: Moment, *, parts) -> Summary:
        """What the tower sees of a batch of histories."""
        return self._summary(log, catalogue, moment, parts, self._repeats(log, moment), None)

    def tower_input(self, summary: Summary) -> Float[Array, "batch inputs"]:
        """Summaries side by side, as the tower reads them."""
        parts = (summary.pooled, jnp.sqrt(summary.shares + 1e-6))
        flat = [part.reshape(len(part), -1) for part in parts]
        return jnp.concatenate(
            [*flat, jnp.log1p(summary.totals), jnp.log1p(summary.weight)], axis=1
        )

    def say(self, summary: Summary, bits: Sequence[Bits | None] | None = None) -> Said:
        """What follows from summaries alone.

        The taste, a weighted sum of the pooled item vectors, goes straight into the user vector,
        so that items like those of the history score high from the first step on, and the tower
        learns what to change (a residual).
        """
        x = drop(self.tower_input(summary), self.config.dropout, bits and bits[0])
        state = self.tower(x, bits and bits[1:])
        taste = jnp.einsum("bsd,s->bd", summary.pooled, self.pooled_weight[...])
        return Said(
            user=self.user_vector(state) + taste,
            popularity_weight=self.popularity_weight(state),
            repeat_logit=self.repeat_gate(state)[:, 0],
            interests=self._score_interests(state, summary.sums),
        )

    def score_new(
        self, said: Prediction, catalogue: Catalogue, codes: Int[Array, " items"] | None, *, parts
    ) -> Float[Array, "batch items"]:
        """Scores of items as the next new one, before any are hidden; None stands for all items.

        User vector times item vector, plus item bias and weighted log-popularity (both left out
        of content-based scores, which know the user's own history alone).
        """
        vectors = self.vectors(catalogue, parts, codes)
        popularity, bias = catalogue.popularity, self.item_bias[...]
        if codes is not None:
            popularity, bias = (spread(rows_of(a, codes), MODEL) for a in (popularity, bias))
        known, trend = self.popularity_signals(popularity)
        at = jax.nn.one_hot(said.snapshot, known.shape[1])  # products are faster than rows
        *weights, of_trend = said.popularity_weight.T
        weight = jnp.stack([at * w[:, None] for w in weights], axis=2).reshape(len(at), -1)
        prior = weight @ known.reshape(len(known), -1).T + (at * of_trend[:, None]) @ trend.T
        return said.user @ vectors.T + parts[0] * (bias[None, :] + prior)

    def score_targets(
        self, said: Prediction, catalogue: Catalogue, codes: Int[Array, "batch targets"], *, parts
    ) -> Float[Array, "batch targets"]:
        """The same scores for some items of each row, such as those that came next."""
        known, trend = self.popularity_signals(_popularity(catalogue, codes, said.snapshot))
        signals = jnp.concatenate([known, trend[..., None]], axis=-1)
        prior = jnp.einsum("bts,bs->bt", signals, said.popularity_weight)
        vectors = self.vectors(catalogue, parts, codes)
        product = jnp.einsum("bd,btd->bt", said.user, vectors)
        return product + parts[0] * (rows_of(self.item_bias[...], codes) + prior)

    def popularity_signals(self, popularity: Float[Array, "*places scales"]):
        """Log-popularity on each time scale, and a learned trend: what rises, what fades."""
        return popularity, self.trend(popularity)[..., 0]

    def vectors(
        self, catalogue: Catalogue, parts, codes: Int[Array, "*places"] | None = None
    ) -> Float[Array, "*places dim"]:
        """Item vectors: the learned part and the part projected from content; None: of all."""
        if codes is not None and codes.size >= self.config.num_items:
            return rows_of(self.vectors(catalogue, parts), codes)
        both = (self.item_vectors[...], catalogue.content)
        if codes is not None:
            both = (rows_of(table, codes) for table in both)
        return self._sum_of_parts(*both, parts)

    def _sum_of_parts(self, own, content, parts) -> Float[Array, "*places dim"]:
        vectors = parts[0] * own
        return vectors + parts[1] * self.content(content) if self.config.content_dim else vectors

    def _pooled(self, share, items, catalogue, parts) -> Float[Array, "batch sums dim"]:
        """Sums of the item vectors of histories, with weights: the cheapest of three ways."""
        num_items = self.config.num_items
        if items.size < num_items:  # content is projected after the sums, which are fewer
            tables = (self.item_vectors[...], catalogue.content)
            sums = (jnp.einsum("bls,bld->bsd", share, rows_of(t, items)) for t in tables)
            return self._sum_of_parts(*sums, parts)
        vectors = self.vectors(catalogue, parts)
        if num_items > _LONG * items.shape[1]:
            return jnp.einsum("bls,bld->bsd", share, rows_of(vectors, items))
        rows, sums = jnp.arange(len(items))[:, None], share.shape[2]
        table = jnp.zeros((len(items), num_items, sums)).at[rows, items].add(share)
        return jnp.einsum("bis,id->bsd", table, vectors)

    def _repeats(self, log: Log, moment: Moment) -> "_Repeats":
        """Distinct items among the newest `repeat_length` events, with decayed counts.

        Without repeats all of these events, with their decayed weights.
        """
        at = moment.end[:, None] - 1 - jnp.arange(self.config.repeat_length)[None, :]
        is_real = at >= moment.start[:, None]
        at = jnp.maximum(at, 0)
        counts = log.weight[at][..., None]
        if self.config.can_repeat:
            is_real &= log.following[at] >= moment.end[:, None]  # the last event with its item
            counts = log.counts[at]
        age = _days(moment.seconds[:, None] - log.seconds[at])
        decay = jnp.exp(-age[..., None] / jnp.array(self.config.scales_days)[None, None, :])
        return _Repeats(log.item[at], is_real, age, counts * decay * is_real[..., None])

    def _summary(self, log, catalogue, moment, parts, repeats, bits) -> Summary:
        """Decayed sums over the events of histories, and their shares of the whole."""
        codes = rows_of(catalogue.interest_codes, repeats.item).reshape(len(repeats.item), -1)
        rows = jnp.arange(len(codes))[:, None]
        labels = rows_of(catalogue.interest_shares, repeats.item)
        sums = jnp.stack(
            [
                jnp.zeros((len(codes), self.config.num_interests))
                .at[rows, codes]
                .add((repeats.counts[..., scale, None] * labels).reshape(codes.shape), mode="drop")
                for scale in range(repeats.counts.shape[-1])
            ],
            axis=1,
        )
        pooled, weight = self._pool(log, catalogue, moment, parts, bits)
        shares = sums / jnp.maximum(sums.sum(axis=2, keepdims=True), LEAST_SUM)
        return Summary(pooled, weight, sums, shares, repeats.counts.sum(axis=1))

    def _pool(self, log, catalogue, moment, parts, bits):
        """Mean item vectors of the newest events on each time scale, the last one, and weights."""
        at = moment.end[:, None] - 1 - jnp.arange(self.config.history_length)[None, :]
        is_real = at >= moment.start[:, None]
        is_last = is_real & (jnp.arange(self.config.history_length) == 0)[None, :]
        at = jnp.maximum(at, 0)
        if bits is not None:
            is_real &= is_kept(self.config.event_dropout, bits)
        age = _days(moment.seconds[:, None] - log.seconds[at])
        decay = jnp.exp(-age[..., None] / jnp.exp(self.log_decay_days[...])[None, None, :])
        weight = decay * (is_real * log.weight[at])[..., None]
        total = weight.sum(axis=1)
        share = weight / (total + LEAST_WEIGHT)[:, None] ** self.config.pool_power
        share = jnp.concatenate([share, is_last[..., None].astype(share.dtype)], axis=2)
        return self._pooled(share, log.item[at], catalogue, parts), total

    def _score_repeats(self, catalogue: Catalogue, snapshot, repeats: "_Repeats", totals):
        """Score of each repeatable item, given that the next event is a repeat."""
        counts = jnp.log(repeats.counts + _UNSEEN_COUNT)
        total = jnp.broadcast_to(jnp.log1p(totals[:, None, -1:]), (*repeats.age.shape, 1))
        features = [
            counts,
            jnp.log1p(repeats.age)[..., None] / 3,
            total / 3,
            _popularity(catalogue, repeats.item, snapshot) / 3,
        ]
        score = self.repeat_score(jnp.concatenate(features, axis=-1))[..., 0]
        score += counts @ self.repeat_count_weight[...]
        return score + rows_of(self.repeat_item_bias[...], repeats.item)

    def _score_interests(self, state, sums) -> Float[Array, "batch interests"]:
        """Softmax around the user's own decayed counts, smoothed by everybody's shares.

        The smoothing is that of a Dirichlet prior: the more a user has done, the less it counts.
        """
        mixture = jnp.exp(self.interest_mixture[...])
        prior = jax.nn.softmax(self.interest_prior[...])
        own = jnp.einsum("bsk,s->bk", sums, mixture[:-1]) + mixture[-1] * prior[None, :]
        logits = jnp.log(own + 1e-6) + self.interest_correction(state)
        return jax.nn.log_softmax(logits, axis=1)


def graphdef(shape: ModelConfig) -> nnx.GraphDef:
    """The static half of the model: one object per shape, so that programs are found again."""
    return _halves(shape)[0]


def abstract_params(shape: ModelConfig) -> nnx.State:
    """The other half, with shapes and types for arrays."""
    return _halves(shape)[1]


@lru_cache(maxsize=16)
def _halves(shape: ModelConfig) -> tuple[nnx.GraphDef, nnx.State]:
    return nnx.split(nnx.eval_shape(lambda: InterestModel(shape, rngs=nnx.Rngs(0))))


class _Repeats(NamedTuple):
    item: Int[Array, "batch repeats"]
    is_real: Bool[Array, "batch repeats"]
    age: Float[Array, "batch repeats"]  # days since the user last had it
    counts: Float[Array, "batch repeats scales"]  # decayed to the moment; 0 on padding


def _popularity(catalogue: Catalogue, codes, snapshot) -> Float[Array, "batch places scales"]:
    """Popularity of some items of each row in its snapshot."""
    places = jnp.broadcast_to(snapshot[:, None], codes.shape)
    return rows_of(catalogue.popularity, codes, places)


def _days(seconds: Int[Array, "batch events"]) -> Float[Array, "batch events"]:
    return jnp.maximum(seconds, 0) / SECONDS_PER_DAY
