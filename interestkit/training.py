"""Training: an epoch is one compiled scan over steps that draw their own examples."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import polars as pl
from flax import nnx
from jaxtyping import Array, Float, Int

from interestkit.features import Features
from interestkit.heldout import HeldOut
from interestkit.histories import Histories
from interestkit.metrics import graded_ndcg_at_k, ndcg_at_k
from interestkit.model import (
    HIDDEN,
    PARTS,
    Catalogue,
    InterestModel,
    Log,
    ModelConfig,
    Moment,
    hide,
    item_log_probabilities,
)
from interestkit.ranking import top_k

VALIDATION_BLOCK = 128  # users scored at a time
LOSSES = ("loss_new", "loss_repeat", "loss_gate", "loss_interests")
SCORES = ("ndcg@10", "ndcg@10_new", "interest_ndcg@3")


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """How the model is trained; saved beside its weights.

    An example is a moment in a user's life: the history before it, and the events from it on.
    Each step draws `batch_size` users evenly and one moment of each.

    Args:
        epochs: Largest number of epochs; the learning rate falls to zero over them (cosine).
        examples_per_epoch: Moments drawn in one epoch.
        batch_size: Moments in one step.
        learning_rate: Start of the learning rate.
        weight_decay: Decoupled weight decay; 0 makes AdamW plain Adam.
        num_sampled: Items that the softmax over new items runs over in one step; a smaller
            catalogue is taken whole.
        num_targets: The next so many events of the user are what is to be predicted.
        interest_weight: Weight of the interest loss beside the item losses.
        single_part_share: Share of steps with item vectors of ids only, and again of content
            only, so that collaborative and content-based scores are trained too.
        patience: Stop after so many epochs without a better validation score.
        validation_users: Largest number of users in the validation score.
    """

    epochs: int = 12
    examples_per_epoch: int = 25_600
    batch_size: int = 256
    learning_rate: float = 3e-3
    weight_decay: float = 1e-2
    num_sampled: int = 4096
    num_targets: int = 32
    interest_weight: float = 1.0
    single_part_share: float = 0.1
    patience: int = 3
    validation_users: int = 2_000

    def __post_init__(self) -> None:
        for name in (
            "epochs",
            "examples_per_epoch",
            "batch_size",
            "num_sampled",
            "num_targets",
            "patience",
        ):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.learning_rate <= 0:
            raise ValueError(f"learning_rate must be above 0, got {self.learning_rate}")
        if not 0 <= self.single_part_share <= 0.5:
            raise ValueError(f"single_part_share must be in 0..0.5, got {self.single_part_share}")

    @property
    def steps(self) -> int:
        """Steps in one epoch."""
        return -(-self.examples_per_epoch // self.batch_size)


@dataclass(frozen=True, kw_only=True)
class FitResult:
    """A trained model and how it came about.

    Args:
        model: The model with the weights of `best_epoch`.
        curve: One row per epoch: epoch, seconds, losses in nats, validation scores.
        best_epoch: Epoch with the best validation score (the last one without validation).
        config: The settings.
        seed: The seed.
        seconds: Wall time of the whole fit, compilation included.
        device: Where it ran.
    """

    model: InterestModel
    curve: pl.DataFrame
    best_epoch: int
    config: TrainingConfig
    seed: int
    seconds: float
    device: str

    def __repr__(self) -> str:
        return (
            f"FitResult(best epoch {self.best_epoch} of {len(self.curve)}, seed {self.seed}, "
            f"{self.seconds:.1f} s on {self.device})"
        )


class Examples(NamedTuple):
    """Moments that training draws from, on the device."""

    position: Int[Array, " moments"]  # of the first event of each moment in the log
    start: Int[Array, " users"]  # first event of each user
    stop: Int[Array, " users"]  # one past the last event of each user
    first_moment: Int[Array, " users"]
    num_moments: Int[Array, " users"]


class _State(NamedTuple):
    params: nnx.State
    optimizer: optax.OptState
    key: Array


def device_log(histories: Histories, scales_days: tuple[float, ...]) -> Log:
    """Histories as arrays on the device, with the counts that the model reads."""
    following, counts = histories.running_counts(scales_days)
    arrays = (histories.item, histories.seconds, histories.weight, following, counts)
    return Log(*(jnp.asarray(_at_least_one(array)) for array in arrays))


def device_catalogue(features: Features) -> Catalogue:
    """What is known of each item, as arrays on the device."""
    shares = features.item_interests
    width = max(int((shares > 0).sum(axis=1).max(initial=0)), 1)
    codes = np.argsort(-shares, axis=1, kind="stable")[:, :width].astype(np.int32)
    parts = np.take_along_axis(shares, codes, axis=1)
    codes[parts == 0] = features.num_interests
    content = features.content if features.content.shape[1] else np.zeros((len(shares), 1))
    arrays = (content, codes, parts, features.is_candidate)
    return Catalogue(
        *(jnp.asarray(array) for array in arrays),
        popularity=jnp.asarray(features.popularity),
        snapshot_seconds=jnp.asarray(features.snapshot_seconds),
    )


def _at_least_one(array: np.ndarray) -> np.ndarray:
    """Room for padding to point at, even where nobody has a history."""
    return array if len(array) else np.zeros((1, *array.shape[1:]), array.dtype)


def fit(
    features: Features,
    histories: Histories,
    *,
    validation: HeldOut | None = None,
    config: TrainingConfig | None = None,
    stop_after: int | None = None,
    seed: int = 0,
    progress: bool = True,
    on_epoch: Callable[[dict], bool | None] | None = None,
    **shape: object,
) -> FitResult:
    """A model trained on histories; with `validation`, the weights of its best epoch.

    Args:
        features: Features fitted on the same events.
        histories: Histories of all training users (`features.histories(events)`).
        validation: Held-out users; after each epoch the model is scored on them by the mean of
            NDCG@10 of items, NDCG@10 of items new to the user, and NDCG@3 of interests.
        config: Settings of training; None takes the defaults.
        stop_after: Train so many epochs of `config.epochs`, for a second fit on more events.
        seed: Seed of weights, examples and dropout: same seed, same result bit for bit.
        progress: Show a progress bar over epochs.
        on_epoch: Called with the row of the curve after each epoch; True stops training.
        **shape: Fields of `ModelConfig` that differ from its defaults, such as `hidden`.

    Raises:
        ValueError: If no user has two moments, or a setting is out of range.
    """
    began = time.perf_counter()
    config = config or TrainingConfig()
    use_compilation_cache()
    shape_config = model_config(features, **shape)
    log, catalogue = device_log(histories, features.scales_days), device_catalogue(features)
    examples = _examples(histories)
    judge = _judge(shape_config, features, catalogue, validation, config) if validation else None
    state = _initialise(shape_config, config, jax.random.key(seed), _interest_prior(features))
    rows, best, best_params = [], -np.inf, state.params
    epochs = min(stop_after or config.epochs, config.epochs)
    for epoch in _bar(epochs, enabled=progress):
        state, losses = _train_epoch(shape_config, config, state, log, catalogue, examples)
        row = {"epoch": epoch, "seconds": time.perf_counter() - began}
        row |= dict(zip(LOSSES, np.asarray(losses).tolist(), strict=True))
        scores = np.asarray(judge(state.params)).tolist() if judge else []
        row |= dict(zip(SCORES, scores, strict=False))
        rows.append(row | {"score": float(np.nanmean(scores)) if scores else float(epoch)})
        if rows[-1]["score"] > best:
            best, best_params = rows[-1]["score"], state.params
        waited = epoch - max(rows, key=lambda r: r["score"])["epoch"]
        if waited >= config.patience or (on_epoch and on_epoch(rows[-1])):
            break
    curve = pl.DataFrame(rows)
    return FitResult(
        model=nnx.merge(_graphdef(shape_config), best_params),
        curve=curve if judge else curve.drop("score"),
        best_epoch=max(rows, key=lambda r: r["score"])["epoch"],
        config=config,
        seed=seed,
        seconds=time.perf_counter() - began,
        device=str(jax.devices()[0].device_kind),
    )


def model_config(features: Features, **shape: object) -> ModelConfig:
    """The model's shape for these features; `shape` overrides defaults of `ModelConfig`."""
    unknown = sorted(set(shape) - set(ModelConfig.__dataclass_fields__))
    if unknown:
        allowed = ", ".join(ModelConfig.__dataclass_fields__)
        raise ValueError(f"model settings must be among {allowed}, got {unknown}")
    return ModelConfig(
        num_items=features.num_items,
        num_interests=features.num_interests,
        content_dim=features.content.shape[1],
        scales_days=features.scales_days,
        **shape,
    )


def use_compilation_cache() -> None:
    """Keep compiled programs on disk between processes, unless JAX is already told where."""
    if jax.config.jax_compilation_cache_dir is None:
        from platformdirs import user_cache_path

        jax.config.update("jax_compilation_cache_dir", str(user_cache_path("interestkit") / "xla"))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)


def _bar(epochs: int, *, enabled: bool):
    from tqdm.auto import tqdm

    return tqdm(range(1, epochs + 1), desc="training", unit="epoch", disable=not enabled)


def _examples(histories: Histories) -> Examples:
    """All moments with a history, grouped by user."""
    position = np.flatnonzero(histories.starts_moment)
    user = histories.user[position]
    position = position[position > histories.offsets[user]]
    user = histories.user[position]
    if not len(user):
        raise ValueError("histories must hold a user with events at two moments, got none")
    users, first, count = np.unique(user, return_index=True, return_counts=True)
    arrays = (position, histories.offsets[users], histories.offsets[users + 1], first, count)
    return Examples(*(jnp.asarray(array, dtype=jnp.int32) for array in arrays))


def _interest_prior(features: Features) -> Float[Array, " interests"]:
    """Logarithm of each interest's share of the training events."""
    sums = features.items["events"].to_numpy() @ features.item_interests
    return jnp.log(jnp.asarray(sums / max(sums.sum(), 1e-12) + 1e-4, dtype=jnp.float32))


@lru_cache(maxsize=16)
def _graphdef(shape: ModelConfig) -> nnx.GraphDef:
    """The static half of the model: one object per shape, so that programs are found again."""
    return nnx.split(nnx.eval_shape(lambda: InterestModel(shape, rngs=nnx.Rngs(0))))[0]


def _optimizer(config: TrainingConfig) -> optax.GradientTransformation:
    rate = optax.cosine_decay_schedule(config.learning_rate, config.epochs * config.steps)
    return optax.adamw(rate, weight_decay=config.weight_decay)


@partial(jax.jit, static_argnums=(0, 1))
def _initialise(shape: ModelConfig, config: TrainingConfig, key, interest_prior) -> _State:
    init_key, key = jax.random.split(key)
    model = InterestModel(shape, rngs=nnx.Rngs(init_key))
    model.interest_prior = nnx.Param(interest_prior)
    params = nnx.split(model)[1]
    return _State(params, _optimizer(config).init(params), key)


@partial(jax.jit, static_argnums=(0, 1))
def _train_epoch(
    shape: ModelConfig, config: TrainingConfig, state: _State, log, catalogue, examples
):
    """One epoch, compiled as one scan over its steps; returns the state and the mean losses."""
    optimizer = _optimizer(config)

    def step(state: _State, _):
        key, draw_key, sample_key, part_key, dropout_key = jax.random.split(state.key, 5)
        moment, stop = _draw(config, examples, log, draw_key)
        parts = _draw_parts(config, part_key)
        candidates = _draw_candidates(config, catalogue, sample_key)
        gradients, losses = jax.grad(_loss, has_aux=True)(
            state.params,
            shape,
            config,
            log,
            catalogue,
            (moment, stop),
            candidates,
            parts,
            dropout_key,
        )
        updates, optimizer_state = optimizer.update(gradients, state.optimizer, state.params)
        params = optax.apply_updates(state.params, updates)
        return _State(params, optimizer_state, key), losses

    state, losses = jax.lax.scan(step, state, length=config.steps)
    return state, losses.mean(axis=0)


def _draw(config: TrainingConfig, examples: Examples, log: Log, key):
    """A batch of moments, users drawn evenly, and where the events of each user stop."""
    user_key, moment_key = jax.random.split(key)
    user = jax.random.randint(user_key, (config.batch_size,), 0, len(examples.start))
    share = jax.random.uniform(moment_key, (config.batch_size,))
    nth = jnp.floor(share * examples.num_moments[user]).astype(jnp.int32)
    position = examples.position[examples.first_moment[user] + nth]
    return Moment(examples.start[user], position, log.seconds[position]), examples.stop[user]


def _draw_parts(config: TrainingConfig, key) -> Float[Array, " parts"]:
    choices = jnp.array([PARTS["hybrid"], PARTS["collaborative"], PARTS["content"]])
    share = config.single_part_share
    return jax.random.choice(key, choices, p=jnp.array([1 - 2 * share, share, share]))


def _draw_candidates(config: TrainingConfig, catalogue: Catalogue, key):
    """Items that the softmax runs over, and the log-probability that each was drawn.

    All items where the catalogue is small. Else `num_sampled` of them without replacement,
    drawn by popularity^0.75 in an exponential race (Efraimidis and Spirakis 2006): items with
    the smallest times win, and the time of the first loser gives each one's probability.
    """
    num_items = len(catalogue.is_candidate)
    if num_items <= config.num_sampled:
        return jnp.arange(num_items), jnp.zeros(num_items)
    rate = jnp.exp(0.75 * catalogue.popularity[-1, -1]) - 1 + 1e-3
    rate = jnp.where(catalogue.is_candidate, rate / rate.mean(), 0.0)
    times = jax.random.exponential(key, (num_items,)) / rate
    first, codes = jax.lax.top_k(-times, config.num_sampled + 1)
    return codes[:-1], jnp.log(-jnp.expm1(first[-1] * rate[codes[:-1]]))


def _loss(params, shape, config, log: Log, catalogue: Catalogue, batch, candidates, parts, key):
    """Mean cross-entropy per target, in nats: new item, repeated item, which of them, interests."""
    moment, stop = batch
    model = nnx.merge(_graphdef(shape), params)
    said = model(log, catalogue, moment, parts=parts, rngs=nnx.Rngs(dropout=key))
    at = moment.end[:, None] + jnp.arange(config.num_targets)[None, :]
    is_real = at < stop[:, None]
    target = log.item[jnp.minimum(at, len(log.item) - 1)]
    is_real &= catalogue.is_candidate[target]
    same = target[:, :, None] == said.repeat_items[:, None, :]
    is_repeat = same.any(axis=2) & is_real
    is_new = is_real & ~is_repeat
    repeat = -jnp.where(same, said.repeat[:, None, :], 0.0).sum(axis=2)
    gate = -jnp.where(
        is_repeat,
        jax.nn.log_sigmoid(said.repeat_logit)[:, None],
        jax.nn.log_sigmoid(-said.repeat_logit)[:, None],
    )
    new = _new_item_loss(model, said, catalogue, target, is_new, candidates, parts)
    shares = _target_shares(shape, catalogue, target, is_real)
    has_target = jnp.maximum(is_real.sum(axis=1), 1)
    losses = jnp.stack(
        [
            ((new * is_new).sum(axis=1) / has_target).mean(),
            ((repeat * is_repeat).sum(axis=1) / has_target).mean(),
            ((gate * is_real).sum(axis=1) / has_target).mean(),
            -(shares * said.interests).sum(axis=1).mean(),
        ]
    )
    return losses @ jnp.array([1.0, 1.0, 1.0, config.interest_weight]), losses


def _new_item_loss(model, said, catalogue, target, is_new, candidates, parts):
    """Cross-entropy of each new target among candidates and the other targets, in nats."""
    codes, log_drawn = candidates
    num_items = len(catalogue.is_candidate)
    slot = jnp.full(num_items + 1, len(codes), jnp.int32).at[codes].set(jnp.arange(len(codes)))
    others = model.score_new(said, catalogue, codes, parts=parts) - log_drawn[None, :]
    others = jnp.where(catalogue.is_candidate[codes][None, :], others, HIDDEN)
    others = hide(hide(others, slot[said.repeat_items]), slot[target])
    popularity = jnp.moveaxis(catalogue.popularity, 1, 2)[said.snapshot[:, None], target]
    vectors = model.vectors(catalogue, parts)[target]
    prior = model.item_bias[...][target] + popularity @ model.popularity_weight[...]
    own = jnp.einsum("bd,btd->bt", said.user, vectors) + parts[0] * prior
    earlier = jnp.tril(target[:, :, None] == target[:, None, :], k=-1) & is_new[:, None, :]
    distinct = jnp.where(is_new & ~earlier.any(axis=2), own, HIDDEN)
    total = jax.nn.logsumexp(jnp.concatenate([others, distinct], axis=1), axis=1)
    return jnp.where(is_new, total[:, None] - own, 0.0)


def _target_shares(shape, catalogue: Catalogue, target, is_real) -> Float[Array, "batch interests"]:
    """Share of each interest in the target events; zeros where none has a label."""
    codes = catalogue.interest_codes[target].reshape(len(target), -1)
    parts = (catalogue.interest_shares[target] * is_real[..., None]).reshape(codes.shape)
    rows = jnp.arange(len(target))[:, None]
    sums = jnp.zeros((len(target), shape.num_interests)).at[rows, codes].add(parts, mode="drop")
    return sums / jnp.maximum(sums.sum(axis=1, keepdims=True), 1e-6)


def _judge(shape: ModelConfig, features: Features, catalogue, validation: HeldOut, config):
    """A function from weights to the mean validation scores, named in `SCORES`."""
    log = device_log(validation.histories, features.scales_days)
    users = np.arange(len(validation))
    if len(users) > config.validation_users:
        users = np.sort(np.random.default_rng(0).choice(users, config.validation_users, False))
    blocks = -(-len(users) // VALIDATION_BLOCK)
    is_real = np.arange(blocks * VALIDATION_BLOCK) < len(users)
    users = np.resize(users, blocks * VALIDATION_BLOCK)
    histories, pairs = validation.histories, validation.relevant.filter(pl.col("code") >= 0)
    moment = Moment(histories.offsets[users], histories.offsets[users + 1], histories.moment[users])
    codes = _padded(pairs["user_code"], pairs["code"], len(validation))[users]
    truth = {
        "codes": codes,
        "num": validation.num_relevant()[users],
        "num_new": validation.num_relevant(new_only=True)[users],
        "shares": validation.interest_shares[users],
    }
    in_blocks = jax.tree.map(
        lambda array: jnp.asarray(array).reshape(blocks, VALIDATION_BLOCK, *array.shape[1:]),
        (moment, truth, is_real),
    )
    return lambda params: _validate(shape, params, log, catalogue, in_blocks)


def _padded(row: pl.Series, code: pl.Series, num_rows: int) -> Int[np.ndarray, "rows codes"]:
    """Codes of each row side by side, padded with -2."""
    row, code = row.to_numpy(), code.to_numpy()
    order = np.argsort(row, kind="stable")
    row, code = row[order], code[order]
    count = np.bincount(row, minlength=num_rows)
    place = np.arange(len(row)) - np.repeat(np.cumsum(count) - count, count)
    table = np.full((num_rows, max(count.max(initial=0), 1)), -2, np.int32)
    table[row, place] = code
    return table


@partial(jax.jit, static_argnums=0)
def _validate(shape: ModelConfig, params, log, catalogue, in_blocks) -> Float[Array, " scores"]:
    model = nnx.merge(_graphdef(shape), params)

    def block(inputs):
        moment, truth, is_real = inputs
        parts = jnp.array(PARTS["hybrid"])
        said = model(log, catalogue, moment, parts=parts)
        new = model.score_new(said, catalogue, None, parts=parts)
        unseen = hide(jnp.where(catalogue.is_candidate[None, :], new, HIDDEN), said.repeat_items)
        k = min(10, shape.num_items)
        values = []
        for scores, num in (
            (item_log_probabilities(new, said, catalogue), truth["num"]),
            (unseen, truth["num_new"]),
        ):
            codes = top_k(scores, k)[1]
            hits = (codes[:, :, None] == truth["codes"][:, None, :]).any(axis=2)
            values.append(ndcg_at_k(hits, num, k=k))
        _, labels = top_k(said.interests, min(3, shape.num_interests))
        gains = jnp.take_along_axis(truth["shares"], labels, axis=1)
        values.append(graded_ndcg_at_k(gains, truth["shares"], k=labels.shape[1]))
        return jnp.stack([jnp.where(is_real, value, jnp.nan) for value in values], axis=1)

    values = jax.lax.map(block, in_blocks)
    return jnp.nanmean(values.reshape(-1, len(SCORES)), axis=0)
