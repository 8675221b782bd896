"""The interest model as a private run trains it: what is learnt, what stays, one compiled epoch."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jaxtyping import Array, Bool

from interestkit.examples import (
    Examples,
    Sampler,
    TrainingConfig,
    candidate_widths,
    catalogue_arrays,
    draw_candidates,
    find_examples,
    log_arrays,
)
from interestkit.features import Features
from interestkit.histories import Histories
from interestkit.losses import total_loss
from interestkit.model import PARTS, Catalogue, InterestModel, Log, ModelConfig, Moment, graphdef
from interestkit.packing import from_leaves, leaves_of
from interestkit.privacy.stepping import Parts, Plan, Problem, private_gradient
from interestkit.training import interest_prior_of

# Weights that a private run leaves as they began. Noise on a table with a row per item is larger
# than what anybody's gradient says of it; content gives each item its vector instead. The hidden
# layers, three quarters of all other weights, stay random features, as noise grows with the number
# of weights: what is learnt are the linear heads above them.
FROZEN = ("item_vectors", "item_bias", "repeat_item_bias", "content.", "trend.", "tower.")
FROZEN += ("interest_prior",)
# Those that begin at 0: before the first step new items rank by noisy counts, and by how like they
# are to those of the history, and items of the history by how often and how lately they were had.
# Noise moves little away from there.
_FROM_ZERO = ("user_vector", "repeat_score.last", "repeat_gate")


class World(NamedTuple):
    """What a private run draws from, on the device."""

    log: Log
    examples: Examples
    catalogue: Catalogue
    width: Array | None  # `examples.candidate_widths`
    frozen: dict[str, Array]


class State(NamedTuple):
    """How far a run has come: all of it may be known, but for the key."""

    params: dict[str, Array]
    optimizer: optax.OptState
    root: Array  # data of the secret key
    step: Array


class Setting(NamedTuple):
    """What the compiled program depends on."""

    shape: ModelConfig
    config: TrainingConfig
    moments: int
    room: int


def make_world(
    features: Features, histories: Histories, shape: ModelConfig, num_sampled: int
) -> World:
    """The arrays of a run; its weights that stay are drawn from a fixed key, as anybody can."""
    weights = _first_weights(shape).items()
    frozen = {name: np.asarray(leaf) for name, leaf in weights if name.startswith(FROZEN)}
    for name in frozen:
        if name.startswith(("item_vectors", "trend.")):
            frozen[name] = np.zeros_like(frozen[name])
    frozen["interest_prior"] = interest_prior_of(features)
    arrays = (
        log_arrays(histories, features.scales_days, can_repeat=shape.can_repeat),
        find_examples(histories),
        catalogue_arrays(features),
        candidate_widths(features, num_sampled),
        frozen,
    )
    return World(*jax.device_put(arrays))


def begin(setting: Setting, root: Array) -> State:
    """The state before the first step: weights from a fixed key, which say nothing of anybody."""
    weights = _first_weights(setting.shape).items()
    params = {name: leaf for name, leaf in weights if not name.startswith(FROZEN)}
    params |= {name: 0 * leaf for name, leaf in params.items() if name.startswith(_FROM_ZERO)}
    params = jax.tree.map(lambda leaf: leaf.astype(leaf.dtype), params)
    optimizer = _optimizer(setting.config, 1.0).init(params)
    return State(params, optimizer, jax.random.key_data(root), jnp.int32(0))


def finished(setting: Setting, params: Mapping[str, Array], world: World) -> InterestModel:
    """The model with the weights of a run, in NumPy."""
    weights = jax.tree.map(np.asarray, {**world.frozen, **params})
    return nnx.merge(graphdef(setting.shape), from_leaves(setting.shape, weights))


@partial(jax.jit, static_argnums=(0, 1))
def epoch(
    parts: Parts,
    setting: Setting,
    plan: Plan,
    learning_rate: float,
    state: State,
    world: World,
    included: Bool[Array, " users"],
) -> State:
    """The state after one more epoch, compiled as one scan over its steps.

    Of the users those `included` are there at all: shadow models leave some out.
    """
    step = stepping(parts, setting, plan, learning_rate, world, included)
    return jax.lax.scan(lambda at, _: (step(at)[0], None), state, length=setting.config.steps)[0]


def stepping(
    parts: Parts, setting: Setting, plan: Plan, learning_rate: float, world: World, included
) -> Callable:
    """A function from a state to the next one and the released gradient between them."""
    problem = problem_of(setting, world)
    optimizer = _optimizer(setting.config, learning_rate)

    def step(state: State):
        root = jax.random.wrap_key_data(state.root)
        gradient = private_gradient(
            parts, problem, setting.room, plan, state.params, included, root, state.step
        )
        updates, moments = optimizer.update(gradient, state.optimizer, state.params)
        params = optax.apply_updates(state.params, updates)
        return State(params, moments, state.root, state.step + 1), gradient

    return step


def problem_of(setting: Setting, world: World) -> Problem:
    """The losses of the interest model, one user at a time."""
    shape, config = setting.shape, setting.config

    def shared(key):
        """Candidates of the softmax, for all users of a step."""
        if world.width is None:
            return None
        order_key, point_key = jax.random.split(key)
        order = jax.random.permutation(order_key, len(world.width))
        line = Sampler(world.width, order, jnp.cumsum(world.width[order]))
        return draw_candidates(config, line, jax.random.bits(point_key))

    def loss(params, user, bits, candidates):
        batch = draw_moments(world, user, bits[:, 0])
        return loss_of(setting, world, params, batch, candidates, bits[:, 1:])

    return Problem(setting.moments, 1 + shape.num_bits, shared, loss)


def draw_moments(world: World, user, bits):
    """Random moments of one user, each as likely, and where the user's events stop."""
    examples, log = world.examples, world.log
    nth = bits % examples.num_moments[user].astype(bits.dtype)
    position = examples.position[examples.first_moment[user] + nth.astype(jnp.int32)]
    start, stop = (jnp.broadcast_to(of[user], nth.shape) for of in (examples.start, examples.stop))
    return Moment(start, position, log.seconds[position]), stop


def loss_of(setting: Setting, world: World, params, batch, candidates, bits=None):
    """The mean loss of moments; dropout only with random bits."""
    tree = from_leaves(setting.shape, world.frozen | params)
    hybrid = jnp.array(PARTS["hybrid"])
    of = (setting.shape, setting.config, world.log, world.catalogue, batch, candidates, hybrid)
    return total_loss(tree, *of, bits)[0]


def _optimizer(config: TrainingConfig, learning_rate: float) -> optax.GradientTransformation:
    return optax.adam(optax.cosine_decay_schedule(learning_rate, config.epochs * config.steps))


def _first_weights(shape: ModelConfig) -> dict[str, Array]:
    return leaves_of(nnx.split(InterestModel(shape, rngs=nnx.Rngs(0)))[1])
