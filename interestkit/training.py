"""Training: an epoch is one compiled scan over steps that draw their own examples."""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
import optax
import polars as pl
from flax import nnx
from jax.sharding import Mesh
from jaxtyping import Array, Float

from interestkit import reprs
from interestkit.checkpoint import Checkpoint, Progress, identity_of
from interestkit.counting import power_of_two
from interestkit.devices import (
    DATA,
    MODEL,
    first_items,
    on_mesh,
    padded_items,
    place,
    spread,
    stay_placed,
    use_compilation_cache,
    whole,
)
from interestkit.examples import (
    TrainingConfig,
    candidate_widths,
    catalogue_arrays,
    content_shape,
    draw,
    draw_candidates,
    draw_moments,
    draw_parts,
    sampler,
    shuffled,
)
from interestkit.failing import (
    Steps,
    TrainingDiverged,
    advice_on_memory,
    all_finite,
    diverged,
    first_failure,
)
from interestkit.features import Features
from interestkit.feeding import Fed, Source, can_repeat, check_histories, feed, sample, users_at
from interestkit.heldout import HeldOut
from interestkit.histories import Histories
from interestkit.limits import check_counts, check_up_to
from interestkit.losses import LOSSES, total_loss
from interestkit.model import InterestModel, ModelConfig, graphdef
from interestkit.packing import Packed, pack, unpack
from interestkit.progress import progress_bar
from interestkit.shards import Shards
from interestkit.validating import SCORES, VALIDATION_BLOCK, validator


@dataclass(frozen=True, kw_only=True)
class FitResult:
    """A trained model and how it came about.

    Args:
        model: The model with the weights of `best_epoch`.
        curve: One row per epoch: epoch, losses in nats, validation scores, seconds since the
            start, seconds waited for data (of `Shards`).
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

    def _repr_html_(self) -> str:
        return reprs.of_fit(self)


class State(NamedTuple):
    """What an epoch begins with and leaves behind."""

    params: Packed
    optimizer: optax.OptState
    key: Array  # its data, as keys have no type of their own in NumPy


def fit(
    features: Features,
    histories: Histories | Shards,
    *,
    validation: HeldOut | None = None,
    config: TrainingConfig | None = None,
    stop_after: int | None = None,
    seed: int = 0,
    progress: bool = True,
    on_epoch: Callable[[dict], bool | None] | None = None,
    mesh: Mesh | None = None,
    checkpoint: str | Path | None = None,
    **shape: object,
) -> FitResult:
    """A model trained on histories; with `validation`, the weights of its best epoch.

    Args:
        features: Features fitted on the same events.
        histories: Histories of all training users (`features.histories(events)`), or the
            `Shards` of a log that does not fit in memory: then each epoch draws its moments
            from `config.shards_at_once` of them, while the next one is read. All are read in
            `config.epochs`, not where training stops sooner.
        validation: Held-out users; after each epoch the model is scored on them by the mean of
            NDCG@10 of items, NDCG@10 of items new to the user, and NDCG@3 of interests.
        config: Settings of training; None takes the defaults.
        stop_after: Train so many epochs of `config.epochs`, for a second fit on more events.
        seed: Seed of weights, examples and dropout: same seed, same result bit for bit on one
            CPU; a GPU may add up in another order.
        progress: Show a progress bar over epochs.
        on_epoch: Called with the row of the curve after each epoch; True stops training.
        mesh: Devices to spread the work over (`devices.make_mesh`); None takes the first one. Its
            data axis, over which batches are divided, must divide `batch_size` and 128, its model
            axis, for items, `num_sampled`. Losses are those of one device, to rounding.
        checkpoint: A folder to which all that is needed to go on is saved after each epoch. If it
            has a state of the same run (settings, seed, data, versions), training goes on from
            there, with the result that it would have had without a stop, bit for bit on the same
            devices. The state before is kept for where the last one is damaged.
        **shape: Fields of `ModelConfig` that differ from its defaults, such as `hidden`.

    Raises:
        ValueError: If no user has two moments, an event is later than the features, no validation
            user has a later item, `validation` is the test part, a setting is out of range, or
            `checkpoint` holds another run, more epochs, something else or no whole state.
        FloatingPointError: If a loss or weight is no longer a finite number; the error names step
            and users, and its `result` has the epochs before (`failing.TrainingDiverged`).
        MemoryError: If memory is not enough; the message says what takes it.
    """
    began = time.perf_counter()
    config, epochs = _settings(config, stop_after)
    _check_data(features, histories, validation)
    use_compilation_cache()
    shape = {"can_repeat": can_repeat(histories, config.task)} | shape
    shape = model_config(features, sample(features, histories), **shape)
    identity = checkpoint and identity_of(
        features, histories, validation, config=config, shape=shape, seed=seed
    )
    keep = Checkpoint(folder=checkpoint, identity=identity, mesh=mesh, shape=shape)
    source = Source(features, histories, config, mesh, can_repeat=shape.can_repeat)
    with advice_on_memory(config, shape, in_shards=isinstance(histories, Shards)):
        run, train = _prepared(source, validation, keep, seed)
        check_counts(len(run.rows), stop_after=len(epochs))
        began -= run.seconds
        fed = feed(source, seed=seed, first_epoch=len(run.rows) + 1)
        for _ in progress_bar(
            epochs[len(run.rows) :], label=f"training, seed {seed}", unit="epoch", enabled=progress
        ):
            if run.epochs_since_best >= config.patience:
                break
            try:
                run = train(run, next(fed), began)
            except TrainingDiverged as error:
                error.result = _result(run, shape, source, validation, seed, began)
                raise
            keep.save(run)
            if on_epoch and on_epoch(run.rows[-1]):
                break
        return _result(run, shape, source, validation, seed, began)


def _result(run: Progress, shape: ModelConfig, source: Source, validation, seed: int, began: float):
    """What came of training; None before its first epoch has ended."""
    if not run.rows:
        return None
    curve = pl.DataFrame(run.rows)
    return FitResult(
        model=_model(shape, run.best_params, source.mesh),
        curve=curve if validation is not None else curve.drop("score"),
        best_epoch=run.best_epoch,
        config=source.config,
        seed=seed,
        seconds=time.perf_counter() - began,
        device=str(jax.devices()[0].device_kind),
    )


def _prepared(source: Source, validation: HeldOut | None, keep: Checkpoint, seed: int):
    """Where training stands, and a function that trains one epoch more and judges it."""
    (features, _, config, mesh, _), shape = source, keep.shape
    wide = replace(shape, num_items=padded_items(shape.num_items, mesh))
    program, rates = parted(config, mesh, shape)
    key = jax.random.key_data(jax.random.key(seed))
    with on_mesh(mesh):
        begin = place((key, interest_prior_of(features)), mesh)
        state = initialise(shape.num_items, wide, program, *begin)
    catalogue = place(catalogue_arrays(features), mesh, wide.num_items)
    width = candidate_widths(features, config.num_sampled)
    width = place({"width": width}, mesh, wide.num_items)["width"]
    judge = None
    if validation is not None:
        judge = validator(wide, features, catalogue, validation, config, mesh)

    def train(run: Progress, fed: Fed, began: float) -> Progress:
        epoch = len(run.rows) + 1
        given = (wide, program, rates, run.state, fed.log, catalogue, width, fed.examples)
        with on_mesh(mesh):
            state, losses, is_finite = train_epoch(*given)
            scores = judge and judge(state.params)
            if not is_finite:
                found = first_failure(_taken_apart, *given)
                raise diverged(epoch, found, config, partial(users_at, source, fed))
        row = _curve_row(epoch, losses, scores)
        times = {"seconds": time.perf_counter() - began, "waited": fed.waited}
        return run.after(state, row | times)

    return keep.resumed(state), train


def _model(shape: ModelConfig, params: Packed, mesh: Mesh | None) -> InterestModel:
    params = whole(params, mesh, shape.num_items)
    in_numpy = params._replace(others=np.asarray(params.others))  # nothing to compile
    return nnx.merge(graphdef(shape), unpack(shape, in_numpy))


def _settings(config: TrainingConfig | None, stop_after: int | None):
    config = config or TrainingConfig()
    stop_after = config.epochs if stop_after is None else stop_after
    check_up_to(config.epochs, "epochs", stop_after=stop_after)
    return config, range(1, stop_after + 1)


def _check_data(features: Features, histories: object, validation: object) -> None:
    """Raise ValueError unless these are what `fit` takes, and no validation is the test part."""
    if not isinstance(histories, Histories | Shards):
        what = "features.histories(events) or Shards"
        raise ValueError(f"histories must be {what}, got {type(histories).__name__}")
    if isinstance(histories, Histories):
        check_histories(features, histories)
    if validation is None:
        return
    if not isinstance(validation, HeldOut):
        raise ValueError(f"validation must be held_out(...), got {type(validation).__name__}")
    validation.check_may_choose()
    validation.histories.check_coded_by(features)


def _curve_row(epoch: int, losses, scores) -> dict:
    """One row of the curve; "score" is the mean validation score, or else the epoch."""
    row = {"epoch": epoch} | dict(zip(LOSSES, np.asarray(losses).tolist(), strict=True))
    if scores is None:
        return row | {"score": float(epoch)}
    scores = np.asarray(scores).tolist()
    return row | dict(zip(SCORES, scores, strict=True)) | {"score": float(np.nanmean(scores))}


def model_config(features: Features, histories: Histories, **shape: object) -> ModelConfig:
    """The model's shape for these features and histories.

    Args:
        features: Sizes of the catalogue.
        histories: Their lengths: no more newest events are looked at than the next power of two
            above what 99 % of users have, nor than the defaults of `ModelConfig`.
        **shape: Fields of `ModelConfig` to set otherwise.

    Raises:
        ValueError: If `shape` names no field of `ModelConfig`.
    """
    fields = ModelConfig.__dataclass_fields__
    of_features = ("num_items", "num_interests", "content_dim", "content_blocks", "scales_days")
    free = [name for name in fields if name not in of_features]
    if unknown := sorted(set(shape) - set(free)):
        of_training = set(unknown) & set(TrainingConfig.__dataclass_fields__)
        hint = "; that goes into config=TrainingConfig(...)" if of_training else ""
        raise ValueError(f"model settings must be among {', '.join(free)}, got {unknown}{hint}")
    longest = int(np.quantile(histories.lengths, 0.99)) if len(histories) else 1
    limits = {
        name: min(fields[name].default, power_of_two(max(longest, 1) + 1))
        for name in ("history_length", "repeat_length")
    }
    return ModelConfig(
        num_items=features.num_items,
        num_interests=features.num_interests,
        **content_shape(features),
        scales_days=features.scales_days,
        **(limits | shape),
    )


def interest_prior_of(features: Features) -> Float[np.ndarray, " interests"]:
    """Logarithm of each interest's share of the training events."""
    sums = features.items["events"].to_numpy() @ features.item_interests
    return np.log((sums / max(sums.sum(), 1e-12) + 1e-4).astype(np.float32))


class Rates(NamedTuple):
    """Settings that may change without another program being compiled."""

    learning_rate: float
    weight_decay: float


def parted(config: TrainingConfig, mesh: Mesh | None, shape: ModelConfig | None = None):
    """What the compiled program depends on, the rest at its default, and the rates."""
    sizes = {DATA: (config.batch_size, VALIDATION_BLOCK), MODEL: (config.num_sampled,)}
    if shape and shape.has_layers:
        sizes = {DATA: (*sizes[DATA], shape.layer_dim), MODEL: (*sizes[MODEL], shape.num_heads)}
    for axis, divided in sizes.items() if mesh else ():
        if any(size % mesh.shape[axis] for size in divided):
            allowed = f"a number that divides {' and '.join(map(str, divided))}"
            raise ValueError(f"{axis} axis of the mesh must be {allowed}, got {mesh.shape[axis]}")
    rest = {name: getattr(TrainingConfig, name) for name in ("patience", "validation_users")}
    rates = {name: getattr(TrainingConfig, name) for name in Rates._fields}
    return replace(config, **rest, **rates), Rates(config.learning_rate, config.weight_decay)


def optimizer_of(config: TrainingConfig, rates: Rates) -> optax.GradientTransformation:
    """AdamW, its rate falling to zero over all epochs."""
    rate = optax.cosine_decay_schedule(rates.learning_rate, config.epochs * config.steps)
    return optax.adamw(rate, weight_decay=rates.weight_decay)


@partial(jax.jit, static_argnums=(0, 1, 2))
def initialise(num_items: int, wide: ModelConfig, config: TrainingConfig, key, interest_prior):
    """Weights and optimiser state, each part made where it is to be; rows behind the items are 0.

    A random number depends on its place in the table alone, so that those of the items are the
    same on any mesh (`jax_threefry_partitionable`).
    """
    init_key, key = jax.random.split(jax.random.wrap_key_data(key))
    model = InterestModel(wide, rngs=nnx.Rngs(init_key))
    model.interest_prior = nnx.Param(interest_prior)
    # strong types, as after an update, so that all epochs share one program
    params = jax.tree.map(lambda array: array.astype(array.dtype), pack(nnx.split(model)[1]))
    params = first_items(params, num_items)
    optimizer = optimizer_of(config, Rates(1.0, 0.0)).init(params)
    return stay_placed(State(params, optimizer, jax.random.key_data(key)))


@partial(jax.jit, static_argnums=(0, 1))
def train_epoch(shape: ModelConfig, config: TrainingConfig, rates: Rates, state: State, *data):
    """One epoch, compiled as one scan over its steps.

    Returns:
        The state, the mean losses, and whether all their numbers are finite.
    """
    epoch = _taken_apart(shape, config, rates, state, *data)
    state, losses = jax.lax.scan(epoch.step, state, epoch.drawn)
    is_finite = all_finite((state, losses))
    return stay_placed(state._replace(key=epoch.next_key)), losses.mean(axis=0), is_finite


def _taken_apart(
    shape: ModelConfig,
    config: TrainingConfig,
    rates: Rates,
    state: State,
    log,
    catalogue,
    width,
    examples,
) -> Steps:
    optimizer = optimizer_of(config, rates)
    num_items = 0 if width is None else len(width)
    key = jax.random.wrap_key_data(state.key)
    draws = draw(config, key, num_events=len(examples.user), num_items=num_items)
    log, line = shuffled(log, examples, draws.events), sampler(width, draws)
    moments = draw_moments(config, examples, log, draws)
    parts = draw_parts(config, draws, len(shape.content_blocks))

    def inputs(drawn):
        batch, parts, first, key = drawn
        bits = jax.random.bits(jax.random.wrap_key_data(key), (config.batch_size, shape.num_bits))
        return spread(batch, DATA), draw_candidates(config, line, first), parts, spread(bits, DATA)

    def loss(packed: Packed, *drawn):
        return total_loss(unpack(shape, packed), shape, config, log, catalogue, *drawn)

    def step(state: State, drawn):
        gradients, losses = jax.grad(loss, has_aux=True)(state.params, *inputs(drawn))
        updates, moments = optimizer.update(gradients, state.optimizer, state.params)
        return State(optax.apply_updates(state.params, updates), moments, state.key), losses

    drawn = (moments, parts, draws.first, draws.steps)
    return Steps(step, loss, inputs, drawn, draws.key)
