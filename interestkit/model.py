"""The interest model: a user tower, with heads for interests, new items and repeats.

A user's history becomes one vector. The probability of the next item is a mixture: with the
probability of a *repeat* it is an item of the history, chosen by how often and how lately the
user had it; otherwise it is a *new* item, chosen by the product of user and item vector, item
bias and recent popularity. This split follows RepeatNet (Ren et al. 2019, AAAI); all parts are
trained together. Interests are a softmax over labels around the user's own shares.

The tower is an MLP on sums over events; a Transformer that reads them in their order may stand
before it (`ModelConfig.encoder`), and a user may have several vectors (`num_user_vectors`).
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Bool, Float, Int

from interestkit.counting import SECONDS_PER_DAY
from interestkit.devices import MODEL, spread
from interestkit.devices import rows as rows_of
from interestkit.layers import MLP, Bits, draw_weights, drop, fused, is_kept, linear
from interestkit.records import Catalogue, Log, Moment, Prediction, Said, Steps, Summary
from interestkit.sequence import SequenceEncoder, Window, draw_layers, tastes
from interestkit.shapes import ModelConfig

# Which parts of the item vectors count: learned per item, and projected from content.
PARTS = {"hybrid": (1.0, 1.0), "collaborative": (1.0, 0.0), "content": (0.0, 1.0)}
HIDDEN = -1e9  # score of what cannot be; finite, so that gradients stay numbers
_LONG = 8  # histories are long where the catalogue is less than so many times as large
LEAST_WEIGHT, LEAST_SUM = 1e-3, 1e-6  # in place of sums that are 0, which nothing can be divided by
_STEEP = 4.0  # an item counts up to exp(4) times as much as one that says nothing
_UNSEEN_COUNT = 0.02  # stands for "no event" inside logarithms of decayed counts


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
        mix = [0.5] * scales + [0.0] * (config.num_sums - scales) + [0.5]
        self.pooled_weight = nnx.Param(jnp.array(mix))
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
        self._add_parts(config, rngs)

    def _add_parts(self, config: ModelConfig, rngs: nnx.Rngs) -> None:
        """What only some shapes have, drawn last: the weights of others do not depend on it."""
        if config.num_user_vectors > 1:
            self.leaning = linear(config.item_dim, config.num_user_vectors - 1, use_bias=False)
            self.leaning_weight = nnx.Param(jnp.ones(config.num_user_vectors - 1))
            draw_weights([self.leaning], rngs.params())
        if config.has_layers:
            self.sequence = SequenceEncoder(config)
            draw_layers(self.sequence, rngs.params())

    def __call__(
        self,
        log: Log,
        catalogue: Catalogue,
        moment: Moment,
        *,
        parts: Float[Array, " parts"],
        bits: Bits | None = None,
        steps: bool = False,
    ) -> Prediction:
        """Predictions for a batch of moments.

        Args:
            log: Events of all users.
            catalogue: All items.
            moment: Whom to predict, and when.
            parts: Which parts of the item vectors count, and perhaps which blocks of the content.
            bits: Random bits (batch, `ModelConfig.num_bits`) for dropout; None drops nothing.
            steps: Whether to say what a Transformer says at the events before, too.
        """
        config, repeats = self.config, self._repeats(log, moment)
        ends = np.cumsum([config.history_length, config.num_inputs, *config.hidden])
        ends = ends if config.has_layers else ends[:-1]
        bits = [None] * (len(ends) + 1) if bits is None else jnp.split(bits, ends, axis=1)
        summary = self._summary(log, catalogue, moment, parts, repeats, bits[0])
        found = None
        if config.has_layers:
            window = self._window(log, catalogue, moment, parts, bits[0])
            states = self.sequence(window, bits[-1])
            summary = summary._replace(encoded=states[:, 0])
            found = self._steps(log, moment, window, states) if steps else None
        said = self.say(summary, bits[1 : len(config.hidden) + 2])
        can_repeat = repeats.is_real & rows_of(catalogue.is_candidate, repeats.item)
        repeats = repeats._replace(is_real=can_repeat)
        snapshot = catalogue.snapshot_at(moment.seconds)
        score, odds = jnp.zeros(can_repeat.shape), jnp.full(len(can_repeat), HIDDEN)
        if config.can_repeat:
            score = self._score_repeats(catalogue, snapshot, repeats, summary.totals)
            odds = jnp.where(can_repeat.any(axis=1), said.repeat_logit, HIDDEN)
        return Prediction(
            user=said.user,
            popularity_weight=said.popularity_weight,
            repeat=jax.nn.log_softmax(jnp.where(can_repeat, score, HIDDEN), axis=1),
            repeat_items=jnp.where(can_repeat, repeats.item, config.num_items),
            repeat_logit=odds,
            interests=said.interests,
            snapshot=snapshot,
            steps=found,
        )

    def summarise(self, log: Log, catalogue: Catalogue, moment: Moment, *, parts) -> Summary:
        """What the tower sees of a batch of histories."""
        found = self._summary(log, catalogue, moment, parts, self._repeats(log, moment), None)
        if not self.config.has_layers:
            return found
        window = self._window(log, catalogue, moment, parts, None)
        return found._replace(encoded=self.sequence(window)[:, 0])

    def tower_input(self, summary: Summary) -> Float[Array, "batch inputs"]:
        """Summaries side by side, as the tower reads them."""
        parts = (summary.pooled, jnp.sqrt(summary.shares + 1e-6))
        flat = [part.reshape(len(part), -1) for part in parts]
        flat += [jnp.log1p(summary.totals), jnp.log1p(summary.weight)]
        flat += [] if summary.encoded is None else [summary.encoded]
        return jnp.concatenate(flat, axis=1)

    def say(self, summary: Summary, bits: Sequence[Bits | None] | None = None) -> Said:
        """What follows from summaries alone.

        The taste, a weighted sum of the pooled item vectors, goes straight into the user vector,
        so that items like those of the history score high from the first step on, and the tower
        learns what to change (a residual).
        """
        x = drop(self.tower_input(summary), self.config.dropout, bits and bits[0])
        state = self.tower(x, bits and bits[1:])
        taste = jnp.einsum("bsd,s->bd", summary.pooled, self.pooled_weight[...])
        user = self.user_vector(state) + taste
        if summary.encoded is not None:
            user += self.sequence.say(summary.encoded)
        if self.config.num_user_vectors > 1:  # each of the others leans to what it chose
            chosen = summary.pooled[:, len(self.config.scales_days) : -1]
            others = user[:, None] + self.leaning_weight[...][None, :, None] * chosen
            user = jnp.concatenate([user[:, None], others], axis=1)
        return Said(
            user=user,
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
        return nearest(said.user, vectors) + parts[0] * (bias[None, :] + prior)

    def score_targets(
        self, said: Prediction, catalogue: Catalogue, codes: Int[Array, "batch targets"], *, parts
    ) -> Float[Array, "batch targets"]:
        """The same scores for some items of each row, such as those that came next."""
        known, trend = self.popularity_signals(_popularity(catalogue, codes, said.snapshot))
        signals = jnp.concatenate([known, trend[..., None]], axis=-1)
        prior = jnp.einsum("bts,bs->bt", signals, said.popularity_weight)
        vectors = self.vectors(catalogue, parts, codes)
        if said.user.ndim == 2:
            product = jnp.einsum("bd,btd->bt", said.user, vectors)
        else:
            product = jnp.einsum("bkd,btd->bkt", said.user, vectors).max(axis=1)
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
        own, content = both
        return self._sum_of_parts(own, self._fused(content, parts), parts)

    def _sum_of_parts(self, own, content, parts) -> Float[Array, "*places dim"]:
        vectors = parts[0] * own
        return vectors + parts[1] * self.content(content) if self.config.content_dim else vectors

    def _fused(self, content, parts) -> Float[Array, "*places content"]:
        widths = self.config.content_blocks
        return fused(content, widths, parts[2:]) if widths else content

    def _pooled(self, share, items, catalogue, parts) -> Float[Array, "batch sums dim"]:
        """Sums of the item vectors of histories, with weights: the cheapest of three ways."""
        num_items = self.config.num_items
        if items.size < num_items:  # content is projected after the sums, which are fewer
            own, content = rows_of(self.item_vectors[...], items), rows_of(catalogue.content, items)
            both = (own, self._fused(content, parts))
            sums = (jnp.einsum("bls,bld->bsd", share, rows) for rows in both)
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
        at, is_real = moment.newest(self.config.repeat_length)
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
        at, is_real = moment.newest(self.config.history_length)
        is_last = is_real & (jnp.arange(self.config.history_length) == 0)[None, :]
        if bits is not None:
            is_real &= is_kept(self.config.event_dropout, bits)
        age = _days(moment.seconds[:, None] - log.seconds[at])
        decay = jnp.exp(-age[..., None] / jnp.exp(self.log_decay_days[...])[None, None, :])
        weight = decay * (is_real * log.weight[at])[..., None]
        if self.config.num_user_vectors > 1:
            chosen = jnp.tanh(self.leaning(self.vectors(catalogue, parts, log.item[at])))
            chosen = jnp.exp(_STEEP * chosen) * is_real[..., None]
            weight = jnp.concatenate([weight, chosen], axis=2)
        total = weight.sum(axis=1)
        share = weight / (total + LEAST_WEIGHT)[:, None] ** self.config.pool_power
        share = jnp.concatenate([share, is_last[..., None].astype(share.dtype)], axis=2)
        return self._pooled(share, log.item[at], catalogue, parts), total

    def _window(self, log, catalogue, moment, parts, bits) -> Window:
        """The newest events as a Transformer reads them."""
        at, is_real = moment.newest(self.config.num_window)
        is_seen = is_real
        if bits is not None:
            is_seen &= is_kept(self.config.event_dropout, bits[:, : at.shape[1]])
        days = _days(moment.seconds[:, None] - log.seconds[at])
        vectors = self.vectors(catalogue, parts, log.item[at])
        after = jnp.pad(days[:, :-1], ((0, 0), (1, 0)))
        return Window(vectors, is_real, is_seen, log.weight[at], days, after)

    def _steps(self, log, moment, window: Window, states) -> Steps:
        """User vectors at the events of the window, from it alone and without the tower."""
        scales = len(self.config.scales_days)
        mix = jnp.append(self.pooled_weight[:scales], self.pooled_weight[-1])
        how = {"power": self.config.pool_power, "least": LEAST_WEIGHT}
        taste = tastes(window, jnp.exp(self.log_decay_days[...]), mix, **how)
        at, _ = moment.newest(self.config.num_window)
        item = jnp.where(window.is_real, log.item[at], self.config.num_items)
        return Steps(self.sequence.say(states) + taste, item, log.seconds[at])

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


def nearest(user: Float[Array, "batch *vectors dim"], items: Float[Array, "items dim"]):
    """The product of each item with the vector of each user that is nearest to it.

    Example:
        >>> two = jnp.array([[[1.0, 0.0], [0.0, 1.0]]])
        >>> print(nearest(two, jnp.array([[3.0, 1.0], [1.0, 2.0]])))
        [[3. 2.]]
    """
    if user.ndim == 2:
        return user @ items.T
    flat = user.reshape(-1, user.shape[-1]) @ items.T
    return flat.reshape(*user.shape[:2], -1).max(axis=1)


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
