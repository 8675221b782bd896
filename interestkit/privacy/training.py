"""Differentially private training: nobody can tell from the model whether a user was there."""

import math
import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

import jax
import numpy as np
import polars as pl

from interestkit.checkpoint import digest_of
from interestkit.devices import use_compilation_cache
from interestkit.examples import TrainingConfig, find_examples
from interestkit.features import Features, fit_features
from interestkit.feeding import check_histories
from interestkit.histories import Histories
from interestkit.limits import check_above_0, check_counts
from interestkit.model import InterestModel, ModelConfig
from interestkit.privacy.accounting import GaussianMechanism, PrivacyCard, make_card
from interestkit.privacy.learning import Setting, begin, epoch, finished, make_world
from interestkit.privacy.stepping import Parts
from interestkit.progress import progress_bar
from interestkit.schema import (
    ITEM,
    KIND,
    KIND_WEIGHTS,
    SEARCH_PREFIX,
    TIME,
    USER,
    check_has_zone,
)
from interestkit.splitting import check_whole
from interestkit.training import model_config

# 256 users and four moments of each in a step, 100 steps
PRIVATE = TrainingConfig(
    epochs=5,
    examples_per_epoch=5_120,
    batch_size=256,
    learning_rate=3e-3,
    weight_decay=0.0,
    single_part_share=0.0,
)
# sizes that do not look at anybody's history, as those of `training.model_config` do
SHAPE = {"item_dim": 32, "hidden": (32,), "dropout": 0.1, "repeat_length": 128}
_LENGTHS = {name: getattr(ModelConfig, name) for name in ("history_length", "can_repeat")}
_PUBLIC_USER = "public"
_ALWAYS = (
    "what the model is given when it predicts: a user's history goes into their own predictions",
    "settings that were chosen by looking at other runs on the same users",
    "the number of users, from which the rate, the delta and the room follow",
    "the table of items (names, titles, labels) and the period, both taken as public: a table that "
    "was made from the log tells what somebody had, whatever noise is on its counts",
    "randomness: noise is float32 from a pseudo-random generator (Threefry), so the promise holds "
    "against those who cannot break it, and not against attacks on rounding",
    "anything else made from the same log: plain features, baselines, evaluations, figures",
)


@dataclass(frozen=True, kw_only=True)
class PrivateFit:
    """A privately trained model; of its training nothing else is kept, as losses tell of users.

    Args:
        model: The model after the last step.
        features: What it was trained on; `Predictor(features=..., model=...)` takes both.
        card: What is promised.
        setting: Sizes of model and steps.
        config: Settings of training.
        steps: Steps that were taken.
        seconds: Wall time, compilation included.
        device: Where it ran.
    """

    model: InterestModel
    features: Features
    card: PrivacyCard
    setting: Setting
    config: TrainingConfig
    steps: int
    seconds: float
    device: str

    def __repr__(self) -> str:
        return (
            f"PrivateFit(epsilon {self.card.epsilon:.3g}, delta {self.card.delta:.2g}, "
            f"{self.steps:,} steps, {self.seconds:.1f} s on {self.device})"
        )


def private_features(
    events: pl.DataFrame,
    items: pl.DataFrame,
    *,
    since: datetime,
    until: datetime,
    noise_multiplier: float = 5.0,
    items_per_user: int = 64,
    max_items: int = 16_384,
    kind_weights: Mapping[str, float] | None = None,
    content_dim: int = 32,
    seed: int | None = None,
) -> tuple[Features, GaussianMechanism]:
    """Features of which only noisy counts know the users, and what the counts cost.

    The catalogue is the `max_items` of the table of items with the largest noisy counts, in the
    order of their names; labels, content and time scales come from the table and the period. A
    user counts once for each item, and with at most `items_per_user` in Euclidean norm: somebody
    with four times as many distinct items counts half for each.

    Args:
        events: Training events; those outside the period are left out.
        items: The table of items, taken as public: it must not have been made from the events, as
            those of `read_log` and `load` are. Searches in it, which people typed, are left out.
        since: First instant of the period, public.
        until: The first instant after it, public.
        noise_multiplier: Standard deviation of the noise on a count over sqrt(items_per_user). Too
            much of it costs more than what training has left: of many items the one with the
            largest noise is then the most popular.
        items_per_user: Distinct items of a user that count in full.
        max_items: Largest size of the catalogue. Events on other items are lost to histories, which
            costs more than the noise on rare items does.
        kind_weights: Weight of an event of each kind; None weighs all kinds the same.
        content_dim: Largest number of content dimensions.
        seed: Seed of the noise; None takes it from the operating system, which is what a release
            needs: whoever knows the seed can take the noise away.

    Returns:
        The features, whose `items` have noisy counts as `events`; and what was released, for
        `fit_private(..., released=[...])`.

    Raises:
        ValueError: If a number is not above 0 or infinite, the period is empty or without a time
            zone, an event lacks user, item or time, or items have neither labels nor titles to
            take interests from.

    Example:
        >>> from datetime import UTC
        >>> from interestkit import simulate
        >>> log = simulate(num_users=50, num_items=30, num_bots=0, faults=0)
        >>> until = datetime(2024, 5, 1, tzinfo=UTC)
        >>> period = {"since": datetime(2024, 1, 1, tzinfo=UTC), "until": until}
        >>> features, counts = private_features(log.events, log.items, **period, max_items=20)
        >>> features.num_items, counts.noise_multiplier
        (20, 5.0)
    """
    check_above_0(noise_multiplier=noise_multiplier, items_per_user=items_per_user)
    check_counts(1, max_items=max_items)
    check_whole(events, before="users are counted")
    since, until = _period(since, until)
    items = _named_by_nobody(items)
    names = items[ITEM].unique().sort()
    own = (
        events.filter(pl.col(TIME).is_between(since, until, closed="left"))
        .select(USER, ITEM)
        .unique()
        .join(names.to_frame().with_row_index("code"), on=ITEM)
    )
    distinct = own.select(pl.len().over(USER)).to_series().to_numpy()
    parts = np.minimum(1.0, np.sqrt(items_per_user / np.maximum(distinct, 1)))
    counts = np.bincount(own["code"].to_numpy(), parts, minlength=len(names)).astype(float)
    noise = np.asarray(jax.random.normal(secret_key(seed), len(names)))
    counts += noise_multiplier * math.sqrt(items_per_user) * noise
    kept = np.sort(np.argsort(-counts, kind="stable")[:max_items])
    noisy = pl.DataFrame({ITEM: names.gather(kept), "noisy": counts[kept]})
    table = items.join(noisy.select(ITEM), on=ITEM, how="semi")
    public = {"kind_weights": kind_weights, "content_dim": content_dim}
    features = public_features(table, since=since, until=until, **public)
    features = _with_counts(features, noisy)
    released = GaussianMechanism(
        what=f"counts of {len(names):,} items",
        noise_multiplier=noise_multiplier,
        seed=seed,
        features=digest_of(features),
    )
    return features, released


def public_features(
    items: pl.DataFrame,
    *,
    since: datetime,
    until: datetime,
    kind_weights: Mapping[str, float] | None = None,
    content_dim: int = 32,
) -> Features:
    """Features that know no user: the table of items, nothing popular, no event counted.

    They are those of made-up events in which one user has each item twice. Arguments and errors
    are those of `private_features`.
    """
    since, until = _period(since, until)
    items = _named_by_nobody(items)
    if items.is_empty():
        raise ValueError("items must hold at least one item, got none")
    weights = dict.fromkeys(KIND_WEIGHTS, 1.0) if kind_weights is None else dict(kind_weights)
    names, last = items[ITEM].unique().sort(), until - timedelta(seconds=1)
    once = pl.DataFrame({ITEM: names}).select(pl.lit(_PUBLIC_USER).alias(USER), ITEM)
    utc = pl.Datetime("us", "UTC")
    made_up = pl.concat([once.with_columns(pl.lit(t).cast(utc).alias(TIME)) for t in (since, last)])
    made_up = made_up.with_columns(pl.lit(max(weights, key=weights.get)).alias(KIND))
    plain = {"min_item_events": 1, "num_snapshots": 0, "content_dim": content_dim}
    features = fit_features(made_up, items, until=until, kind_weights=weights, **plain)
    if features.interest_source == "behaviour":
        raise ValueError("items must have labels or titles: interests from behaviour are private")
    nothing = features.items.with_columns(pl.lit(0, pl.Int32).alias("events"))
    return replace(features, items=nothing, kind_weights=weights)


def _named_by_nobody(items: pl.DataFrame) -> pl.DataFrame:
    """The table without searches: their names are what people typed."""
    return items.filter(~pl.col(ITEM).str.starts_with(SEARCH_PREFIX))


def _period(since: datetime, until: datetime) -> tuple[datetime, datetime]:
    """Both in UTC, as times of events are."""
    check_has_zone(since=since, until=until)
    if not since < until:
        raise ValueError(f"until must be after since, {since}, got {until}")
    return since.astimezone(UTC), until.astimezone(UTC)


def _with_counts(features: Features, noisy: pl.DataFrame) -> Features:
    """The features with noisy counts as numbers of events and as the one snapshot of popularity."""
    counts = features.items.join(noisy, on=ITEM, how="left", maintain_order="left")["noisy"]
    counts = np.maximum(counts.to_numpy(), 0.0)
    items = features.items.with_columns(pl.Series("events", np.round(counts), dtype=pl.Int32))
    scales = len(features.scales_days)
    popularity = np.tile(np.log1p(counts).astype(np.float32), (1, scales, 1))
    return replace(features, items=items, popularity=popularity)


def fit_private(
    features: Features,
    histories: Histories,
    *,
    epsilon: float = 8.0,
    delta: float | None = None,
    released: Sequence[GaussianMechanism] = (),
    clip_norm: float = 0.5,
    moments_per_user: int = 4,
    config: TrainingConfig = PRIVATE,
    seed: int | None = None,
    progress: bool = True,
    parts: Parts = Parts(),  # noqa: B008 a tuple of functions
    **shape: object,
) -> PrivateFit:
    """A model trained with differential privacy of whole users.

    In each step every user takes part with the same small probability; the mean gradient of some
    of their moments is scaled down to `clip_norm` where it is longer, and Gaussian noise hides any
    one of them in the sum. It begins at what costs nothing more: new items rank by the noisy counts
    and their likeness to the history, interests by the user's own. Given up for it, beside plain
    `fit`: learned vectors and biases of items (content gives items their vectors), learned hidden
    layers (they are random features), popularity that changes with time and its trend,
    validation and early stopping, losses of epochs, and predictions by parts ("collaborative" and
    "content" of `Predictor` are not trained apart). A user's own history still says what they will
    repeat: it is not a weight of the model.

    Args:
        features: `private_features`; others are taken as they are, and the card says that the
            promise does not cover them.
        histories: Histories of all training users, `features.histories(events)`.
        epsilon: What is promised, everything in `released` included; infinite for training without
            noise, to see what it costs.
        delta: As `accounting.make_card`.
        released: What was computed from the same users with noise.
        clip_norm: Largest norm of a user's gradient in a step.
        moments_per_user: Moments of each user in a step. More of them cost time and no privacy.
        config: Settings of training; `batch_size` is the expected number of *users* in a step,
            and `examples_per_epoch` counts users. All epochs are trained.
        seed: Seed of everything that is drawn; None takes it from the operating system, which is
            what a release needs: whoever knows the seed can take the noise away.
        progress: Show a progress bar over epochs.
        parts: How a step is made.
        **shape: Fields of `ModelConfig` that differ from `SHAPE` and its defaults.

    Raises:
        ValueError: If a setting is out of range, the histories are not those of the features, or
            nobody has two moments.

    Source:
        Abadi et al. (2016), doi:10.1145/2976749.2978318; McMahan et al. (2018), arXiv:1710.06963.
    """
    began = time.perf_counter()
    _check_settings(histories, config, moments_per_user)
    check_histories(features, histories)
    use_compilation_cache()
    nobody = histories.rows(0, 0)  # of which sizes are the same whoever is there
    shape_config = model_config(features, nobody, **(_LENGTHS | SHAPE | shape))
    card = make_card(
        num_users=len(find_examples(histories).start),
        users_per_step=config.batch_size,
        steps=config.epochs * config.steps,
        clip_norm=clip_norm,
        epsilon=epsilon,
        delta=delta,
        released=released,
        not_covered=_not_covered(features, released, seed),
    )
    world = make_world(features, histories, shape_config, config.num_sampled)
    setting = Setting(shape_config, replace(config, learning_rate=1.0), moments_per_user, card.room)
    state = begin(setting, secret_key(seed))
    included = np.ones(card.num_users, bool)
    for _ in progress_bar(
        range(config.epochs), label="private training", unit="epoch", enabled=progress
    ):
        state = epoch(parts, setting, card.plan, config.learning_rate, state, world, included)
        jax.block_until_ready(state.step)
    return PrivateFit(
        model=finished(setting, state.params, world),
        features=features,
        card=card,
        setting=setting,
        config=config,
        steps=int(state.step),
        seconds=time.perf_counter() - began,
        device=str(jax.devices()[0].device_kind),
    )


def secret_key(seed: int | None) -> jax.Array:
    """A random key: of a seed, or of 64 bits from the operating system, which nobody can guess."""
    if seed is not None:
        return jax.random.key(seed)
    return jax.random.wrap_key_data(np.frombuffer(secrets.token_bytes(8), np.uint32))


def _not_covered(features: Features, released: Sequence[GaussianMechanism], seed: int | None):
    own = []
    if digest_of(features) not in [each.features for each in released]:
        own.append(
            "the features: catalogue, counts, popularity and labels as they were given, as nothing "
            "that was said to be released with noise made them (private_features)"
        )
    seeds = {seed, *(each.seed for each in released)} - {None}
    if seeds:
        named = ", ".join(map(str, sorted(seeds)))
        own.append(f"those who know the seed, {named}: they can take the noise away")
    return (*own, *_ALWAYS)


def _check_settings(histories: Histories, config: TrainingConfig, moments: int) -> None:
    if not isinstance(histories, Histories):
        came = type(histories).__name__
        raise ValueError(f"histories must be features.histories(events), got {came}")
    wanted = {"task": "next", "draw": "users", "single_part_share": 0.0, "weight_decay": 0.0}
    for name, value in wanted.items():
        if (came := getattr(config, name)) != value:
            raise ValueError(f"{name} must be {value!r} in private training, got {came!r}")
    check_counts(1, moments_per_user=moments)
