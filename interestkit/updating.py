"""A trained model goes on with new events: tables grow, few steps follow, old moments are replayed.

What programs depend on is padded, so that most updates find the program of the one before:
compiling would take longer than the update itself.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime

import jax
import numpy as np
import polars as pl
from flax import nnx
from jaxtyping import Bool

from interestkit.counting import pad, power_of_two
from interestkit.devices import ITEM_TABLES, place, use_compilation_cache
from interestkit.enlarging import (
    Weights,
    end_of_labels,
    grown_weights,
    narrowed,
    widened,
    with_room,
)
from interestkit.examples import (
    TrainingConfig,
    candidate_widths,
    catalogue_arrays,
    content_shape,
    find_examples,
    log_arrays,
    padded,
)
from interestkit.features import Features
from interestkit.growing import checked, grow_features
from interestkit.histories import Histories
from interestkit.limits import check_within
from interestkit.losses import LOSSES
from interestkit.modalities import Modality
from interestkit.model import ModelConfig, graphdef
from interestkit.packing import from_leaves
from interestkit.prediction import Predictor
from interestkit.progress import progress_bar
from interestkit.training import Rates, State, optimizer_of, parted, train_epoch

# few and long steps: a weight of a new item moves no further than the sum of the rates
UPDATE = TrainingConfig(epochs=1, examples_per_epoch=1_600, learning_rate=1e-2)
REPLAY = 0.3
_POWER = 0.5  # of the share of new events: how far a weight goes


@dataclass(frozen=True, kw_only=True, eq=False)
class Update:
    """What `update` made.

    Args:
        predictor: The model with what is new, on features that have grown.
        curve: One row per epoch: epoch, and the mean losses in nats. No rows where no user with
            a history did anything new.
        new_items: Names of the items that are new in the catalogue.
        new_interests: Names of the new interests.
        num_moments: Moments of new events that were trained on.
        num_replayed: Older moments among which they were.
        seed: The seed.
        seconds: Wall time, compilation included.
    """

    predictor: Predictor
    curve: pl.DataFrame
    new_items: tuple[str, ...]
    new_interests: tuple[str, ...]
    num_moments: int
    num_replayed: int
    seed: int
    seconds: float

    def __repr__(self) -> str:
        until = self.predictor.features.fitted_until
        interests = f"new interest{'' if len(self.new_interests) == 1 else 's'}"
        return (
            f"Update(until {until:%Y-%m-%d %H:%M}: {len(self.new_items):,} new items, "
            f"{len(self.new_interests)} {interests}, {self.num_moments:,} new moments beside "
            f"{self.num_replayed:,} old ones, {self.seconds:.1f} s)"
        )


def update(
    predictor: Predictor,
    new_events: pl.DataFrame,
    items: pl.DataFrame,
    *,
    past: pl.DataFrame | None = None,
    until: datetime | None = None,
    min_item_events: int = 5,
    modalities: Sequence[Modality] = (),
    config: TrainingConfig | None = None,
    replay: float = REPLAY,
    seed: int = 0,
    progress: bool = True,
) -> Update:
    """The model after new events: grown by new items and interests, and trained a little further.

    Weights of new items begin at what content and frequency say of the known ones (ridge
    regression), those of new interests at the mean of the known ones. Then come
    `config.epochs` with a fresh optimiser, on the moments of new events and on some old ones
    (experience replay). The weights that come out are between those before and after: a weight
    goes as far as the root of the share of events that are new, those of the item for weights of
    an item, of all for weights that all share. So what is new is learnt and what is known stays.

    Args:
        predictor: The model; it stays as it is.
        new_events: Events after those that its features were fitted on, of a day or of a month.
        items: Items table that holds the new items.
        past: The events before: histories of the users of new events, and what is replayed.
            Without them a user begins anew, and nothing is replayed.
        until: As in `fit_features`.
        min_item_events: As in `fit_features`, counted over `past` and new events together.
        modalities: Vectors of the new items, as in `with_new_items`.
        config: Settings of training; None takes `UPDATE`. `patience` counts for nothing.
        replay: Share of old moments among those drawn from, in [0, 1).
        seed: Seed of what is replayed, of examples and of dropout: same seed, same result.
        progress: Show a progress bar over epochs.

    Returns:
        The new model and how it came about. Its linear part, if it has one, has zeros for new
        items; `add_linear_part` makes it anew.

    Raises:
        ValueError: If an event is not on its side of `features.fitted_until`, `replay` is outside
            [0, 1), the task of the settings is not "next", or as `grow_features`.
        FloatingPointError: If a loss or weight is no longer a finite number.

    Example:
        >>> from interestkit import TrainingConfig, fit, fit_features, simulate
        >>> log = simulate(num_users=60, num_items=40, num_interests=4, num_bots=0, faults=0)
        >>> old, new = log.events[:2000], log.events[2000:]
        >>> features = fit_features(old, log.items)
        >>> quick = TrainingConfig(epochs=1, examples_per_epoch=64, batch_size=32)
        >>> options = {"config": quick, "progress": False}
        >>> known = features.histories(old)
        >>> model = fit(features, known, item_dim=4, hidden=(8,), **options).model
        >>> before = Predictor(features=features, model=model)
        >>> after = update(before, new, log.items, past=old, **options)
        >>> after.predictor.features.fitted_until == new["time"].max()
        True

    Source:
        Experience replay: Rolnick et al. (2019), NeurIPS, arXiv:1811.11682. Weights between two
        models: Wortsman et al. (2022), CVPR, arXiv:2109.01903; the root is our own choice.
    """
    began = time.perf_counter()
    config = UPDATE if config is None else config
    check_within("[0, 1)", replay=replay)
    if config.task != "next":
        raise ValueError(f"task must be 'next': new events come after old, got {config.task!r}")
    old = predictor.features
    new, past = checked(old, new_events, past)
    options = {"until": until, "min_item_events": min_item_events, "modalities": modalities}
    features = grow_features(old, new, items, past=past, **options)
    shape = replace(
        predictor.model.config,
        num_items=features.num_items,
        num_interests=features.num_interests,
        **content_shape(features),
    )
    weights = grown_weights(predictor, features)
    known = features.histories(pl.concat([past, new]))
    kept, counts = _moments(known, old.second(old.fitted_until), replay, seed)
    rows = []
    if any(counts):
        trained, rows = _train(features, known, kept, shape, weights, config, seed, progress)
        weights = _between(weights, trained, _steps(old, features))
    linear, num_new = predictor.linear, features.num_items - old.num_items
    linear = None if linear is None else np.pad(linear, (0, num_new))
    model = nnx.merge(graphdef(shape), from_leaves(shape, weights))
    return Update(
        predictor=replace(predictor, features=features, model=model, linear=linear),
        curve=pl.DataFrame(rows, schema={"epoch": pl.Int64, **dict.fromkeys(LOSSES, pl.Float64)}),
        new_items=tuple(features.items["item"][old.num_items :]),
        new_interests=features.interests[old.num_interests :],
        num_moments=counts[0],
        num_replayed=counts[1],
        seed=seed,
        seconds=time.perf_counter() - began,
    )


def _moments(
    known: Histories, last: int, replay: float, seed: int
) -> tuple[Bool[np.ndarray, " events"], tuple[int, int]]:
    """Events that begin a moment to train on, and how many of them are new and how many old."""
    begins = known.starts_moment.copy()
    begins[known.begins] = False
    new, old = (
        np.flatnonzero(begins & side) for side in (known.seconds > last, known.seconds <= last)
    )
    wanted = min(len(old), round(len(new) * replay / (1 - replay)))
    chosen = np.random.default_rng(seed).choice(old, wanted, replace=False)
    kept = np.zeros(len(begins), bool)
    kept[new], kept[chosen] = True, True
    return kept, (len(new), wanted)


def _train(features, known, kept, shape, weights, config, seed: int, progress: bool):
    """Weights after some epochs, and a row of losses for each."""
    use_compilation_cache()
    wide = with_room(shape, features)
    data = place(_data(features, known, kept, wide, config))
    program, rates = parted(config, None, shape)
    params = widened(weights, shape, wide, features)
    optimizer = jax.eval_shape(optimizer_of(program, Rates(1.0, 0.0)).init, params)
    optimizer = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), optimizer)
    key = np.asarray(jax.random.key_data(jax.random.key(seed)))
    state, rows = place(State(params, optimizer, key)), []
    epochs = range(1, config.epochs + 1)
    for epoch in progress_bar(epochs, label="update", unit="epoch", enabled=progress):
        state, losses, is_finite = train_epoch(wide, program, rates, state, *data)
        if not is_finite:
            what = f"a loss or weight is no finite number in epoch {epoch} of the update"
            raise FloatingPointError(f"{what}; a lower learning_rate may help")
        rows.append({"epoch": epoch} | dict(zip(LOSSES, losses.tolist(), strict=True)))
    return narrowed(jax.tree.map(np.asarray, state.params), shape, wide, features), rows


def _steps(old: Features, features: Features) -> tuple[float, np.ndarray, np.ndarray]:
    """How far weights go to where training led: those of all, of each item, of each interest.

    The root of the share of events that are new: what much is known of keeps its place, what is
    new goes all the way. An item that nobody has touched yet (`with_new_items`) stays where it is.
    """
    events = features.items["events"].to_numpy().astype(float)
    before = np.append(old.items["events"].to_numpy(), np.zeros(len(events) - old.num_items))
    of_items = np.where(events > 0, 1 - before / np.maximum(events, 1), 0) ** _POWER
    of_all = (1 - before.sum() / events.sum()) ** _POWER
    of_interests = np.where(np.arange(features.num_interests) < old.num_interests, of_all, 1.0)
    return of_all, of_items, of_interests


def _between(before: Weights, after: Weights, steps) -> Weights:
    """Weights between those before and after training."""
    of_all, of_items, of_interests = steps
    found = {}
    for name, start in before.items():
        step = of_all
        if name in ITEM_TABLES:
            step = of_items.reshape(-1, *[1] * (start.ndim - 1))
        elif name.startswith(("interest_correction", "interest_prior")):
            step = of_interests
        found[name] = (start + step * (after[name] - start)).astype(np.float32)
    return found


def _data(features, known, kept, wide: ModelConfig, config: TrainingConfig):
    """Log, catalogue, widths of candidates and examples, with room behind all of them."""
    room = {"num_users": max(len(known), 4_096), "num_events": max(len(known.item), 65_536)}
    users = np.unique(known.user[kept])  # of the others nothing is drawn
    known, kept = known.take(users), kept[np.isin(known.user, users)]
    log = log_arrays(known, features.scales_days, can_repeat=wide.can_repeat)
    examples = find_examples(known, kept=kept)
    log, examples = padded(log, examples, **{k: power_of_two(n) for k, n in room.items()})
    catalogue, width = catalogue_arrays(features), candidate_widths(features, config.num_sampled)
    codes = catalogue.interest_codes
    codes = np.where(codes < features.num_interests, codes, wide.num_interests)
    more = ((0, 0), (0, power_of_two(codes.shape[1]) - codes.shape[1]))
    content = catalogue.content
    labels = [end_of_labels(features)] * (wide.content_dim - content.shape[1])
    catalogue = catalogue._replace(
        content=np.insert(content, labels, 0, axis=1) if labels else content,
        interest_codes=np.pad(codes, more, constant_values=wide.num_interests),
        interest_shares=np.pad(catalogue.interest_shares, more),
    )
    rows = {name: pad(getattr(catalogue, name), wide.num_items) for name in catalogue._fields[:-1]}
    width = None if width is None else pad(width, wide.num_items)
    return log, catalogue._replace(**rows), width, examples
