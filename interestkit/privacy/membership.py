"""Who was in the training data? Attacks on models, by shadow models trained on half of the users.

LiRA (Carlini et al. 2022) trains many models, each on a random half of the users. For one model and
one user it asks how likely the user's loss is among the models that had the user, and among those
that had not. It shows what an attacker who knows everything but the one user can find out.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import polars as pl
from jax.flatten_util import ravel_pytree
from jax_privacy.auditing import CanaryScoreAuditor
from jaxtyping import Bool, Float
from scipy.stats import rankdata

from interestkit import training
from interestkit.examples import Examples, TrainingConfig
from interestkit.features import Features
from interestkit.histories import Histories
from interestkit.limits import check_counts, check_within
from interestkit.losses import total_loss
from interestkit.model import PARTS
from interestkit.packing import unpack
from interestkit.privacy import learning
from interestkit.privacy.audits import lower_bound
from interestkit.privacy.learning import Setting, World
from interestkit.privacy.stepping import Parts
from interestkit.privacy.training import PrivateFit

FALSE_POSITIVES = (0.001, 0.01)
_MOMENTS = 16  # of each user, at which the loss is taken
_LEAST_SPREAD = 1e-6
_UNKNOWN = 1e-3  # variance of what an attacker cannot know of a gradient, in squared clip norms


@dataclass(frozen=True, kw_only=True)
class MembershipAttack:
    """What an attack on many models found.

    Args:
        scores: How much more likely each user was in than out, natural logarithm, by model.
        is_in: Whether they were.
        losses: Loss of each user under each model, in nats.
    """

    scores: Float[np.ndarray, "models users"]
    is_in: Bool[np.ndarray, "models users"]
    losses: Float[np.ndarray, "models users"]

    @property
    def _auditor(self) -> CanaryScoreAuditor:
        return CanaryScoreAuditor(self.scores[self.is_in], self.scores[~self.is_in])

    @property
    def auc(self) -> float:
        """Probability that a user who was in scores above one who was not: 0.5 is a guess.

        Equal scores count half (Mann and Whitney).
        """
        scores, count = rankdata(self.scores), int(self.is_in.sum())
        above = scores.reshape(self.is_in.shape)[self.is_in].sum() - count * (count + 1) / 2
        return float(above / (count * (self.is_in.size - count)))

    def found_at(self, false_positives: float) -> float:
        """Share of members found when so large a share of the others is taken for members.

        At the best threshold, or the best draw between two of them.
        """
        return float(self._auditor.tpr_at_given_fpr(false_positives))

    def table(self) -> pl.DataFrame:
        """Columns measure, value, guess: what a blind guess would have."""
        rows = [("AUC", self.auc, 0.5)]
        rows += [(f"found at {f:.1%} false alarms", self.found_at(f), f) for f in FALSE_POSITIVES]
        return pl.DataFrame(rows, schema=["measure", "value", "guess"], orient="row")

    def roc(self, *, points: int = 200) -> pl.DataFrame:
        """Columns false_positives and found, at even steps of the logarithm of the first."""
        shares = np.logspace(-3.5, 0, points)
        found = self._auditor.tpr_at_given_fpr(shares)
        return pl.DataFrame({"false_positives": shares, "found": found})

    def __repr__(self) -> str:
        models, users = self.is_in.shape
        return f"MembershipAttack({models} models, {users:,} users, AUC {self.auc:.3f})"


def attack(losses: Float[np.ndarray, "models users"], is_in: Bool[np.ndarray, "models users"]):
    """LiRA on each model in turn, with all others as shadow models.

    Losses of a user are taken as normal among models with and among models without the user, with
    means of their own and one spread for both.

    Args:
        losses: Loss of each user under each model.
        is_in: Whether the model was trained on the user.

    Raises:
        ValueError: If a user is not among three models at least with, and three without, or a loss
            is not finite.

    Example:
        >>> is_in = np.random.default_rng(0).random((20, 50)) < 0.5
        >>> attack(np.where(is_in, 1.0, 2.0), is_in).auc
        1.0

    Source:
        Carlini et al. (2022), arXiv:2112.03570, the attack with global variance.
    """
    if np.minimum(is_in.sum(axis=0), (~is_in).sum(axis=0)).min() < 3:
        raise ValueError("each user must be in three models and out of three; train more of them")
    if not np.isfinite(losses).all():
        model, user = np.argwhere(~np.isfinite(losses))[0]
        raise ValueError(f"losses must be finite, got {losses[model, user]} at [{model}, {user}]")
    means, squares = {}, 0.0
    for name, group in {"in": is_in, "out": ~is_in}.items():
        others = group.sum(axis=0)[None, :] - group  # the model that is attacked does not count
        total = np.where(group, losses, 0.0)
        means[name] = (total.sum(axis=0)[None, :] - total) / others
        centred = np.where(group, losses - total.sum(axis=0) / group.sum(axis=0), 0.0)
        squares = squares + (centred**2).sum(axis=0)
    spread = np.maximum(np.sqrt(squares / (len(losses) - 2)), _LEAST_SPREAD)[None, :]
    near = {name: ((losses - mean) / spread) ** 2 for name, mean in means.items()}
    return MembershipAttack(scores=(near["out"] - near["in"]) / 2, is_in=is_in, losses=losses)


def attack_plain(
    features: Features,
    histories: Histories,
    *,
    config: TrainingConfig,
    num_models: int = 64,
    seed: int = 0,
    **shape: object,
) -> MembershipAttack:
    """LiRA against models of plain `fit`, each trained on a random half of the users.

    The models are trained one after the other, by one program, without validation.
    Features are those given: what they tell of a user is not part of the attack.

    Args:
        features: Features.
        histories: Histories of all users.
        config: Settings of training.
        num_models: Models, an even number of at least 8.
        seed: Seed of the halves and of training.
        **shape: Fields of `ModelConfig`.
    """
    shape_config = training.model_config(features, histories, **shape)
    world = learning.make_world(features, histories, shape_config, config.num_sampled)
    halves = _halves(len(world.examples.start), num_models, seed)
    program, rates = training.parted(config, None)
    prior = training.interest_prior_of(features)
    start = partial(training.initialise, shape_config.num_items, shape_config, program)
    run = partial(training.train_epoch, shape_config, program, rates)
    losses = _losses_of(world, partial(_plain_loss, shape_config, config, world))
    found = []
    for key, half in zip(jax.random.split(jax.random.key(seed), num_models), halves, strict=True):
        state, examples = start(jax.random.key_data(key), prior), _of_users(world.examples, half)
        for _ in range(config.epochs):
            state, _, _ = run(state, world.log, world.catalogue, world.width, examples)
        found.append(losses(state.params))
    return attack(np.stack(found), halves)


def attack_private(
    fit: PrivateFit, histories: Histories, *, num_models: int = 64, seed: int = 0
) -> MembershipAttack:
    """LiRA against models trained as `fit` was, each on a random half of the users.

    Rate, noise and steps are those of the fit, so that a model on half of the users sees half as
    many of them in a step.

    Args:
        fit: The private model whose training is attacked.
        histories: Histories of its users.
        num_models: Models, an even number of at least 8.
        seed: Seed of the halves and of training.
    """
    halves = _halves(fit.card.num_users, num_models, seed)
    setting = fit.setting
    world = learning.make_world(fit.features, histories, setting.shape, setting.config.num_sampled)
    losses = _losses_of(world, partial(_private_loss, setting, world))
    run = partial(learning.epoch, Parts(), setting, fit.card.plan, fit.config.learning_rate)
    found = []
    for key, half in zip(jax.random.split(jax.random.key(seed), num_models), halves, strict=True):
        state = learning.begin(setting, key)
        for _ in range(fit.config.epochs):  # by the program of the fit: nothing is compiled again
            state = run(state, world, half)
        found.append(losses(state.params))
    return attack(np.stack(found), halves)


def bound_in_one_run(
    fit: PrivateFit,
    histories: Histories,
    *,
    num_canaries: int = 256,
    delta: float = 1e-5,
    confidence: float = 0.95,
    seed: int = 0,
) -> float:
    """Epsilon at the least, from one more training as `fit`, with some users as canaries.

    A fair coin decides which canaries are there; all other users are. The attacker knows
    everything but the coins and who was drawn: they see the released gradient of each step, and
    find by ridge regression how much of each canary's gradient is in it. Who was there is guessed
    from the sum over steps. (What a canary loses less at the end than at the beginning tells next
    to nothing: all users learn from all others.)

    Args:
        fit: The private model whose training is tested.
        histories: Histories of its users.
        num_canaries: Canaries, at least 16: users with the fewest moments, as a step sees few of
            those that a user has, so that of others less is known of what they add. Made-up users
            with two events are the best ones. With their number grows what can be found: 200 can
            show 3.
        delta: Delta of the promise that is tested, far below 1 / canaries: with that of a card of
            few users nothing can be found, as half of the canaries may be given away by delta.
        confidence: With which the bound holds.
        seed: Seed of the coins and of training.

    Returns:
        A bound of at least 0. It must not exceed the epsilon of the card's noise at the same delta,
        `epsilon_of(dataclasses.replace(fit.card, delta=delta, overflow_delta=0))`.

    Raises:
        ValueError: If a number is outside its limits.

    Source:
        Steinke, Nasr and Jagielski (2023), arXiv:2305.08846.
    """
    check_counts(16, num_canaries=num_canaries)
    check_within("(0, 1)", delta=delta, confidence=confidence)
    setting = fit.setting
    world = learning.make_world(fit.features, histories, setting.shape, setting.config.num_sampled)
    moments = np.asarray(world.examples.num_moments)
    canaries = np.sort(np.argsort(moments, kind="stable")[:num_canaries])
    is_in = np.ones(len(moments), bool)
    is_in[canaries] = np.random.default_rng(seed).random(len(canaries)) < 0.5
    state, scores = learning.begin(setting, jax.random.key(seed)), np.zeros(len(canaries))
    for _ in range(fit.config.epochs):
        given = (fit.card.plan, fit.config.learning_rate, state, world, is_in, canaries)
        state, found = _watched_epoch(setting, *given)
        scores += np.asarray(found, float)
    known = is_in[canaries]
    return lower_bound(scores[known], scores[~known], delta=delta, confidence=confidence)


@partial(jax.jit, static_argnums=0)
def _watched_epoch(setting: Setting, plan, learning_rate, state, world: World, included, canaries):
    """The state after one more epoch, and how often each canary seems to have taken part in it."""
    step = learning.stepping(Parts(), setting, plan, learning_rate, world, included)
    bits = jax.random.bits(jax.random.key(0), (len(canaries), _MOMENTS))
    loss = partial(_private_loss, setting, world)

    def gradient(params, user, bits):
        own = jax.grad(loss)(params, learning.draw_moments(world, user, bits))
        flat = jnp.nan_to_num(ravel_pytree(own)[0])
        return flat * jnp.minimum(1.0, plan.clip_norm / jnp.maximum(jnp.linalg.norm(flat), 1e-12))

    def watched(state, _):
        own = (canaries, bits)
        each = jax.lax.map(lambda one: gradient(state.params, *one), own, batch_size=32)
        state, released = step(state)
        seen = each @ ravel_pytree(released)[0] * plan.expected_users
        ridge = (plan.noise_multiplier**2 + _UNKNOWN) * plan.clip_norm**2
        return state, jnp.linalg.solve(each @ each.T + ridge * jnp.eye(len(each)), seen)

    state, found = jax.lax.scan(watched, state, length=setting.config.steps)
    return state, found.sum(axis=0)


def _private_loss(setting: Setting, world: World, params, batch):
    return learning.loss_of(setting, world, params, batch, None)


def _plain_loss(shape, config, world: World, packed, batch):
    hybrid = jnp.array(PARTS["hybrid"])
    of = (shape, config, world.log, world.catalogue, batch, None, hybrid)
    return total_loss(unpack(shape, packed), *of)[0]


def _losses_of(world: World, loss: Callable) -> Callable:
    """A function from the parameters of a model to the mean loss of each user, without dropout.

    The moments of a user are the same each time.
    """
    users = len(world.examples.start)
    bits = np.random.default_rng(0).integers(0, 2**32, (users, _MOMENTS), np.uint32)

    @jax.jit
    def of_users(params):
        def of_user(own):
            return loss(params, learning.draw_moments(world, *own))

        return jax.lax.map(of_user, (jnp.arange(users), bits), batch_size=64)

    return lambda params: np.asarray(of_users(params), float)


def _halves(users: int, models: int, seed: int) -> Bool[np.ndarray, "models users"]:
    """A random half of the users for each model; the next model has the other half.

    Of an odd number one user is in neither, so that halves are of one size: another one each time.
    """
    if models < 8 or models % 2:
        raise ValueError(f"num_models must be an even number of at least 8, got {models}")
    order = np.random.default_rng(seed).random((models // 2, users)).argsort(axis=1)
    half = users // 2
    if users % 2:
        rows, nobody = np.arange(len(order)), np.arange(len(order)) % users
        middle = (order == half).argmax(axis=1)
        order[rows, middle], order[rows, nobody] = order[rows, nobody], half
    return np.stack([order < half, order >= users - half], axis=1).reshape(models, users)


def _of_users(examples: Examples, is_in: Bool[np.ndarray, " users"]) -> Examples:
    """The examples of some users."""
    names = ("start", "stop", "first_moment", "num_moments", "moment")
    own = {name: getattr(examples, name)[np.flatnonzero(is_in)] for name in names}
    return examples._replace(**own, num_users=jnp.array([is_in.sum()], jnp.int32))
