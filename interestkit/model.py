"""The interest model: one MLP user tower, with heads for interests, new items and repeats.

A user's history becomes one vector. The probability of the next item is a mixture: with the
probability of a *repeat* it is an item of the history, chosen by how often and how lately the
user had it; otherwise it is a *new* item, chosen by the product of user and item vector, item
bias and recent popularity. This split follows RepeatNet (Ren et al. 2019, AAAI); all parts are
trained together. Interests are a softmax over labels around the user's own shares.
"""

from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, Int

from interestkit.devices import MODEL, spread
from interestkit.devices import rows as rows_of

SECONDS_PER_DAY = 86_400.0
# Which parts of the item vectors count: learned per item, and projected from content.
PARTS = {"hybrid": (1.0, 1.0), "collaborative": (1.0, 0.0), "content": (0.0, 1.0)}
HIDDEN = -1e9  # score of what cannot be; finite, so that gradients stay numbers
_LONG = 8  # histories are long where the catalogue is less than so many times as large
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


class Log(NamedTuple):
    """Events of all users on the device, sorted by user and time."""

    item: Int[Array, " events"]
    seconds: Int[Array, " events"]
    weight: Float[Array, " events"]
    following: Int[Array, " events"]  # position of the user's next event with this item
    counts: Float[Array, "events scales"]  # decayed sum of the user's events with this item


class Catalogue(NamedTuple):
    """What is known of each item, on the device."""

    content: Float[Array, "items content"]
    interest_codes: Int[Array, "items labels"]  # padded with num_interests
    interest_shares: Float[Array, "items labels"]
    is_candidate: Bool[Array, " items"]
    events: Float[Array, " items"]  # number of training events
    popularity: Float[Array, "snapshots items scales"]
    snapshot_seconds: Int[Array, " snapshots"]


class Moment(NamedTuple):
    """Whom to predict, and when: a history is the events start..end - 1 of the log."""

    start: Int[Array, " batch"]
    end: Int[Array, " batch"]
    seconds: Int[Array, " batch"]


class Prediction(NamedTuple):
    """What the model says about a batch of moments, all but the scores of new items."""

    user: Float[Array, "batch dim"]  # user vector
    popularity_weight: Float[Array, "batch signals"]  # how much popularity counts for the user
    repeat: Float[Array, "batch repeats"]  # log-probability among the items of the history
    repeat_items: Int[Array, "batch repeats"]  # their codes; num_items where there is none
    repeat_logit: Float[Array, " batch"]  # log-odds of a repeat
    interests: Float[Array, "batch interests"]  # log-probabilities
    snapshot: Int[Array, " batch"]  # last snapshot of popularity that is not after the moment


class MLP(nnx.Module):
    """Fully connected layers with ReLU between them, and dropout after each ReLU.

    Args:
        num_inputs: Width of the input.
        hidden: Widths of the hidden layers.
        num_outputs: Width of a last linear layer; None ends with the last hidden layer.
        dropout: Share of hidden units dropped in training.
        rngs: Random keys for the weights.
    """

    def __init__(self, num_inputs, hidden, num_outputs=None, *, dropout=0.0, rngs: nnx.Rngs):
        widths = (num_inputs, *hidden)
        self.layers = nnx.List(nnx.Linear(a, b, rngs=rngs) for a, b in pairwise(widths))
        self.last = nnx.Linear(widths[-1], num_outputs, rngs=rngs) if num_outputs else None
        self.dropout = nnx.Dropout(dropout)

    def __call__(self, x, *, rngs: nnx.Rngs | None = None):
        """Outputs for inputs x (batch, inputs); dropout only where `rngs` is given."""
        for layer in self.layers:
            x = self.dropout(nnx.relu(layer(x)), deterministic=rngs is None, rngs=rngs)
        return x if self.last is None else self.last(x)


class InterestModel(nnx.Module):
    """The user tower and its heads; `Prediction` says what comes out.

    Args:
        config: The shape.
        rngs: Random keys for the weights.
    """

    def __init__(self, config: ModelConfig, *, rngs: nnx.Rngs):
        self.config = config
        scales, dim = len(config.scales_days), config.item_dim
        normal = nnx.initializers.normal(0.05)
        self.item_vectors = nnx.Param(normal(rngs.params(), (config.num_items, dim)))
        self.item_bias = nnx.Param(jnp.zeros(config.num_items))
        self.content = nnx.Linear(max(config.content_dim, 1), dim, use_bias=False, rngs=rngs)
        self.trend = MLP(scales, (8,), 1, rngs=rngs)
        self.popularity_weight = nnx.Linear(
            config.hidden[-1],
            scales + 1,
            kernel_init=nnx.initializers.zeros,
            bias_init=nnx.initializers.constant(1 / scales),
            rngs=rngs,
        )
        self.log_decay_days = nnx.Param(jnp.log(jnp.array(config.scales_days)))
        inputs = dim * (scales + 1) + scales * (config.num_interests + 2)
        self.tower = MLP(inputs, config.hidden, dropout=config.dropout, rngs=rngs)
        self.input_dropout = nnx.Dropout(config.dropout)
        self.user_vector = nnx.Linear(config.hidden[-1], dim, use_bias=False, rngs=rngs)
        self.pooled_weight = nnx.Param(jnp.full(scales + 1, 0.5))
        self.repeat_gate = nnx.Linear(config.hidden[-1], 1, rngs=rngs)
        self.repeat_score = MLP(2 * scales + 2, (32,), 1, rngs=rngs)
        self.repeat_count_weight = nnx.Param(jnp.full(scales, 1.2 / scales))
        self.repeat_item_bias = nnx.Param(jnp.zeros(config.num_items))
        self.interest_correction = nnx.Linear(
            config.hidden[-1], config.num_interests, kernel_init=nnx.initializers.zeros, rngs=rngs
        )
        self.interest_prior = nnx.Param(jnp.zeros(config.num_interests))
        self.interest_mixture = nnx.Param(jnp.array([-1.0] * (scales - 1) + [0.0, 2.0]))

    def __call__(
        self,
        log: Log,
        catalogue: Catalogue,
        moment: Moment,
        *,
        parts: Float[Array, " parts"],
        rngs: nnx.Rngs | None = None,
    ) -> Prediction:
        """Predictions for a batch of moments; dropout only where `rngs` is given."""
        vectors = self.vectors(catalogue, parts)
        repeats = self._repeats(log, moment)
        sums, shares, totals = self._interest_shares(catalogue, repeats)
        state, taste = self._state(log, moment, vectors, shares, totals, rngs)
        can_repeat = repeats.is_real & rows_of(catalogue.is_candidate, repeats.item)
        repeats = repeats._replace(is_real=can_repeat)
        snapshot = jnp.searchsorted(catalogue.snapshot_seconds, moment.seconds, side="right") - 1
        snapshot = jnp.maximum(snapshot, 0)  # before the log began nothing was popular
        return Prediction(
            user=self.user_vector(state) + taste,
            popularity_weight=self.popularity_weight(state),
            repeat=self._score_repeats(catalogue, snapshot, repeats, totals),
            repeat_items=jnp.where(can_repeat, repeats.item, self.config.num_items),
            repeat_logit=jnp.where(can_repeat.any(axis=1), self.repeat_gate(state)[:, 0], HIDDEN),
            interests=self._score_interests(state, sums),
            snapshot=snapshot,
        )

    def score_new(
        self, said: Prediction, catalogue: Catalogue, codes: Int[Array, " items"] | None, *, parts
    ) -> Float[Array, "batch items"]:
        """Scores of items as the next new one, before any are hidden; None stands for all items.

        User vector times item vector, plus item bias and weighted log-popularity (both left out
        of content-based scores, which know the user's own history alone).
        """
        vectors, bias = self.vectors(catalogue, parts), self.item_bias[...]
        popularity = catalogue.popularity
        if codes is not None:
            vectors, bias = (spread(rows_of(a, codes), MODEL) for a in (vectors, bias))
            of_all = jnp.arange(len(popularity))[:, None]
            everywhere = jnp.broadcast_to(codes, (len(of_all), len(codes)))
            popularity = rows_of(popularity, everywhere, of_all)
        signals = self.popularity_signals(popularity)
        at = jax.nn.one_hot(said.snapshot, len(signals))  # a product is faster than rows
        weight = jnp.einsum("bn,bs->bns", at, said.popularity_weight).reshape(len(at), -1)
        prior = weight @ jnp.moveaxis(signals, 2, 1).reshape(-1, signals.shape[1])
        return said.user @ vectors.T + parts[0] * (bias[None, :] + prior)

    def score_targets(
        self, said: Prediction, catalogue: Catalogue, codes: Int[Array, "batch targets"], *, parts
    ) -> Float[Array, "batch targets"]:
        """The same scores for some items of each row, such as those that came next."""
        popularity = rows_of(catalogue.popularity, codes, said.snapshot[:, None])
        signals = self.popularity_signals(popularity)
        prior = jnp.einsum("bts,bs->bt", signals, said.popularity_weight)
        vectors = rows_of(self.vectors(catalogue, parts), codes)
        product = jnp.einsum("bd,btd->bt", said.user, vectors)
        return product + parts[0] * (rows_of(self.item_bias[...], codes) + prior)

    def popularity_signals(self, popularity) -> Float[Array, "*places signals"]:
        """Log-popularity on each time scale, and a learned trend: what rises, what fades."""
        return jnp.concatenate([popularity, self.trend(popularity)], axis=-1)

    def vectors(self, catalogue: Catalogue, parts) -> Float[Array, "items dim"]:
        """Item vectors: the learned part and the part projected from content."""
        vectors = parts[0] * self.item_vectors
        if self.config.content_dim:
            vectors = vectors + parts[1] * self.content(catalogue.content)
        return vectors

    def _repeats(self, log: Log, moment: Moment) -> "_Repeats":
        """Distinct items among the newest `repeat_length` events, with decayed counts."""
        at = moment.end[:, None] - 1 - jnp.arange(self.config.repeat_length)[None, :]
        is_real = at >= moment.start[:, None]
        at = jnp.maximum(at, 0)
        is_real &= log.following[at] >= moment.end[:, None]  # the last event with its item
        age = _days(moment.seconds[:, None] - log.seconds[at])
        decay = jnp.exp(-age[..., None] / jnp.array(self.config.scales_days)[None, None, :])
        counts = log.counts[at] * decay * is_real[..., None]
        return _Repeats(log.item[at], is_real, age, counts)

    def _interest_shares(self, catalogue: Catalogue, repeats: "_Repeats"):
        """Decayed share of each interest in the history, and the decayed sums of weights."""
        codes = rows_of(catalogue.interest_codes, repeats.item).reshape(len(repeats.item), -1)
        rows = jnp.arange(len(codes))[:, None]
        parts = rows_of(catalogue.interest_shares, repeats.item)
        sums = jnp.stack(
            [
                jnp.zeros((len(codes), self.config.num_interests))
                .at[rows, codes]
                .add((repeats.counts[..., scale, None] * parts).reshape(codes.shape), mode="drop")
                for scale in range(repeats.counts.shape[-1])
            ],
            axis=1,
        )
        shares = sums / jnp.maximum(sums.sum(axis=2, keepdims=True), 1e-6)
        return sums, shares, repeats.counts.sum(axis=1)

    def _state(self, log, moment, vectors, shares, totals, rngs):
        """The last hidden layer, and the taste: a weighted sum of the pooled item vectors.

        The taste goes straight into the user vector, so that items like those of the history
        score high from the first step on, and the tower learns what to change (a residual).
        """
        at = moment.end[:, None] - 1 - jnp.arange(self.config.history_length)[None, :]
        is_real = at >= moment.start[:, None]
        at = jnp.maximum(at, 0)
        last = jnp.where(is_real[:, :1], rows_of(vectors, log.item[at[:, 0]]), 0.0)
        if rngs is not None and self.config.event_dropout:
            kept = 1 - self.config.event_dropout
            is_real &= jax.random.bernoulli(rngs.dropout(), kept, is_real.shape)
        age = _days(moment.seconds[:, None] - log.seconds[at])
        decay = jnp.exp(-age[..., None] / jnp.exp(self.log_decay_days[...])[None, None, :])
        weight = decay * (is_real * log.weight[at])[..., None]
        total = weight.sum(axis=1, keepdims=True) + 1e-3
        share = weight / total**self.config.pool_power
        pooled = _pool(share, log.item[at], vectors)
        pooled = jnp.concatenate([pooled, last[:, None, :]], axis=1)
        flat = [part.reshape(len(at), -1) for part in (pooled, jnp.sqrt(shares + 1e-6))]
        amounts = [jnp.log1p(totals), jnp.log1p(weight.sum(axis=1))]
        x = jnp.concatenate([*flat, *amounts], axis=1)
        x = self.input_dropout(x, deterministic=rngs is None, rngs=rngs)
        return self.tower(x, rngs=rngs), jnp.einsum("bsd,s->bd", pooled, self.pooled_weight[...])

    def _score_repeats(self, catalogue: Catalogue, snapshot, repeats: "_Repeats", totals):
        """Log-probability of each repeatable item, given that the next event is a repeat."""
        counts = jnp.log(repeats.counts + _UNSEEN_COUNT)
        total = jnp.broadcast_to(jnp.log1p(totals[:, None, -1:]), (*repeats.age.shape, 1))
        features = [
            counts,
            jnp.log1p(repeats.age)[..., None] / 3,
            total / 3,
            rows_of(catalogue.popularity, repeats.item, snapshot[:, None]) / 3,
        ]
        score = self.repeat_score(jnp.concatenate(features, axis=-1))[..., 0]
        score += counts @ self.repeat_count_weight[...]
        score += rows_of(self.repeat_item_bias[...], repeats.item)
        return jax.nn.log_softmax(jnp.where(repeats.is_real, score, HIDDEN), axis=1)

    def _score_interests(self, state, sums) -> Float[Array, "batch interests"]:
        """Softmax around the user's own decayed counts, smoothed by everybody's shares.

        The smoothing is that of a Dirichlet prior: the more a user has done, the less it counts.
        """
        mixture = jnp.exp(self.interest_mixture[...])
        prior = jax.nn.softmax(self.interest_prior[...])
        own = jnp.einsum("bsk,s->bk", sums, mixture[:-1]) + mixture[-1] * prior[None, :]
        logits = jnp.log(own + 1e-6) + self.interest_correction(state)
        return jax.nn.log_softmax(logits, axis=1)


@lru_cache(maxsize=16)
def graphdef(shape: ModelConfig) -> nnx.GraphDef:
    """The static half of the model: one object per shape, so that programs are found again."""
    return nnx.split(nnx.eval_shape(lambda: InterestModel(shape, rngs=nnx.Rngs(0))))[0]


class _Repeats(NamedTuple):
    item: Int[Array, "batch repeats"]
    is_real: Bool[Array, "batch repeats"]
    age: Float[Array, "batch repeats"]  # days since the user last had it
    counts: Float[Array, "batch repeats scales"]  # decayed to the moment; 0 on padding


def _pool(share, items, vectors) -> Float[Array, "batch scales dim"]:
    """Sums of item vectors with weights: gathered, or as one product where histories are long."""
    batch, length, scales = share.shape
    if len(vectors) > _LONG * length:
        return jnp.einsum("bls,bld->bsd", share, rows_of(vectors, items))
    rows = jnp.arange(batch)[:, None]
    table = jnp.zeros((batch, len(vectors), scales)).at[rows, items].add(share)
    return jnp.einsum("bis,id->bsd", table, vectors)


def _days(seconds: Int[Array, "batch events"]) -> Float[Array, "batch events"]:
    return jnp.maximum(seconds, 0) / SECONDS_PER_DAY


def hide(scores: Float[Array, "batch items"], codes: Int[Array, "batch codes"]):
    """Scores with those of some items set to `HIDDEN`; codes past the last item hide nothing."""
    return scores.at[jnp.arange(len(scores))[:, None], codes].set(HIDDEN, mode="drop")


def seen_items(log: Log, moment: Moment, length: int) -> Int[Array, "batch length"]:
    """Items of the newest `length` events before the moment; -1 before the first."""
    at = moment.end[:, None] - 1 - jnp.arange(length)[None, :]
    return jnp.where(at >= moment.start[:, None], log.item[jnp.maximum(at, 0)], -1)


def hide_seen(
    new: Float[Array, "batch items"], log: Log, moment: Moment, *, length: int
) -> Float[Array, "batch items"]:
    """Scores with items of the newest `length` events hidden."""
    seen = seen_items(log, moment, length)
    return hide(new, jnp.where(seen < 0, new.shape[1], seen))


def mix_repeats(
    new: Float[Array, "batch items"], said: Prediction
) -> tuple[Float[Array, "batch items"], Float[Array, " batch"]]:
    """Score of each item to be next, new or again; less the second array, its log-probability.

    The mixture of new and repeated items: log P(new) + log P(item | new) for items that the
    user has not had, log P(repeat) + log P(item | repeat) for those that they have.

    Args:
        new: What `InterestModel.score_new` says of all items; those `HIDDEN` come out as -inf.
        said: The prediction for the same moments.
    """
    rows = jnp.arange(len(new))[:, None]
    new = hide(new, said.repeat_items)
    new = jnp.where(new > HIDDEN / 2, new, -jnp.inf)
    total = jax.nn.logsumexp(new, axis=1)
    is_new = total > -jnp.inf
    odds, total = (jnp.where(is_new, part, 0.0) for part in (said.repeat_logit, total))
    new = new.at[rows, said.repeat_items].set(said.repeat + (odds + total)[:, None], mode="drop")
    return new, total + jnp.where(is_new, jax.nn.softplus(odds), 0.0)  # none new: a repeat
