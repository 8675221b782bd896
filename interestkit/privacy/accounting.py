"""What a private run gives away at most: noise for an epsilon, an epsilon for a noise, the card."""

import contextlib
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from scipy.stats import binom

from interestkit import reprs
from interestkit.limits import check_above_0
from interestkit.privacy.stepping import Plan  # first, as it says what to install

# isort: split
import dp_accounting
from dp_accounting.mechanism_calibration import NoBracketIntervalFoundError
from dp_accounting.pld import PLDAccountant
from dp_accounting.rdp import RdpAccountant

RELATION = dp_accounting.NeighboringRelation.ADD_OR_REMOVE_ONE
OVERFLOW_SHARE = 0.01  # of delta, kept for steps that draw more users than there is room for
_INTERVAL = 1e-3  # losses are rounded up to it; a tenth of it gives the same three digits
_ORDERS = (*range(2, 64), 80, 128, 256, 512)
_ROOMS = 32
_LARGEST = 100  # epsilon of which e^epsilon is still a number
_GRID = 2**16  # rates are whole multiples of 1 / _GRID, so that random numbers have them exactly


@dataclass(frozen=True, kw_only=True)
class GaussianMechanism:
    """Something computed from users with Gaussian noise, besides training.

    Args:
        what: What was released.
        noise_multiplier: Standard deviation of its noise over the most that one user changes it
            by, in Euclidean norm.
        seed: Seed of its noise, None where nobody knows it.
        features: `checkpoint.digest_of` the features made of it; "" where none were.
    """

    what: str
    noise_multiplier: float
    seed: int | None = None
    features: str = ""


@dataclass(frozen=True, kw_only=True)
class PrivacyCard:
    """What is promised of a private run, from what it follows, and what is not promised.

    Args:
        num_users: Users with something to learn from; taken as public.
        rate: Probability with which each takes part in a step (Poisson sampling).
        room: Places of a step; more users than that are drawn with `overflow_delta` in delta.
        steps: Steps of training.
        clip_norm: Largest norm of what one user adds to a step.
        noise_multiplier: Standard deviation of the noise of a step, in clip norms.
        released: What was computed with noise besides.
        delta: The probability part of the promise, `overflow_delta` included.
        overflow_delta: The part of delta that pays for steps with more users than room.
        epsilon: Upper bound by privacy loss distributions; infinite without noise.
        epsilon_rdp: The same by Rényi divergences, a looser bound by another method.
        not_covered: What the promise does not cover, in words.
    """

    num_users: int
    rate: float
    room: int
    steps: int
    clip_norm: float
    noise_multiplier: float
    released: tuple[GaussianMechanism, ...]
    delta: float
    overflow_delta: float
    epsilon: float
    epsilon_rdp: float
    not_covered: tuple[str, ...] = ()

    def __repr__(self) -> str:
        lines = [f"  {name:<11}{text}" for name, text in self.facts.items()]
        return "\n".join(
            ["PrivacyCard", *lines, *(f"  not covered: {text}" for text in self.not_covered)]
        )

    def _repr_html_(self) -> str:
        return reprs.of_privacy_card(self)

    @property
    def facts(self) -> dict[str, str]:
        """What is promised, and the numbers that it follows from, in words."""
        released = [f"{p.what} (sigma {p.noise_multiplier:.3g})" for p in self.released]
        return {
            "promise": f"({self.epsilon:.3g}, {self.delta:.2g})-differential privacy",
            "unit": "user: all events of one user together",
            "neighbours": "one user more or less",
            "sampler": "Poisson: each user by themselves in each step, "
            f"rate {self.rate:.4g} of {self.num_users:,} users",
            "room": f"{self.room} places, more are needed with probability in delta of "
            f"{self.overflow_delta:.1g}",
            "noise": f"sigma {self.noise_multiplier:.3g} x clip norm {self.clip_norm:.3g}",
            "steps": f"{self.steps:,}",
            "released": ", ".join(released) or "nothing else",
            "epsilon": f"{self.epsilon:.3g} by PLD, {self.epsilon_rdp:.3g} by RDP",
        }

    @property
    def plan(self) -> Plan:
        """The numbers that a run needs."""
        return Plan(self.rate, self.clip_norm, self.noise_multiplier, self.rate * self.num_users)


def make_card(
    *,
    num_users: int,
    users_per_step: int,
    steps: int,
    clip_norm: float,
    epsilon: float,
    delta: float | None = None,
    released: Sequence[GaussianMechanism] = (),
    not_covered: Sequence[str] = (),
) -> PrivacyCard:
    """The least noise with which a run keeps its promise, and what follows from it.

    Args:
        num_users: Users.
        users_per_step: Expected number of users in a step, at most `num_users`.
        steps: Steps of training, at least 1.
        clip_norm: Clip norm, above 0.
        epsilon: What is promised, above 0 and at most 100, everything in `released` included;
            infinite for no noise at all.
        delta: Below 1 / users; None takes users^-1.1.
        released: What was computed with noise from the same users.
        not_covered: Goes to the card.

    Raises:
        ValueError: If a number is outside its limits, what was released gives more away than
            `epsilon`, or no noise is found for the promise.

    Example:
        >>> card = make_card(
        ...     num_users=2000, users_per_step=200, steps=100, clip_norm=1.0, epsilon=3.0
        ... )
        >>> round(card.epsilon, 1), card.epsilon < card.epsilon_rdp, card.rate
        (3.0, True, 0.1000061035...)

    Source:
        Privacy loss distributions: Koskela et al. (2020), arXiv:1906.03049; Rényi: Mironov et al.
        (2019), arXiv:1908.10530; both as computed by dp-accounting.
    """
    delta = num_users**-1.1 if delta is None else delta
    _check(num_users, users_per_step, steps, clip_norm, epsilon, delta)
    rate = math.ceil(users_per_step / num_users * _GRID) / _GRID
    spare = OVERFLOW_SHARE * delta / (1 + math.exp(8 if math.isinf(epsilon) else epsilon))
    enough = int(binom.isf(spare / steps, num_users + 1, rate)) + 1
    # few sizes, so few programs; a place for each user and one more is always enough
    room = min(-(-enough // _ROOMS) * _ROOMS, num_users + 1)
    card = PrivacyCard(
        num_users=num_users,
        rate=rate,
        room=room,
        steps=steps,
        clip_norm=clip_norm,
        noise_multiplier=0.0,
        released=tuple(released),
        delta=delta,
        overflow_delta=0.0,
        epsilon=math.inf,
        epsilon_rdp=math.inf,
        not_covered=tuple(not_covered),
    )
    if math.isinf(epsilon):
        return card
    return with_epsilon(replace(card, noise_multiplier=_noise_for(card, epsilon)), epsilon)


def with_epsilon(card: PrivacyCard, target: float) -> PrivacyCard:
    """The card with epsilon and the part of delta that follow from its other numbers.

    The price of an overflow is counted by `target`, an epsilon that is not exceeded.
    """
    card = replace(card, overflow_delta=overflow_delta(card, target))
    return replace(card, epsilon=epsilon_of(card), epsilon_rdp=epsilon_of(card, method="rdp"))


def overflow_delta(card: PrivacyCard, epsilon: float) -> float:
    """What steps that draw more users than there is room for add to delta.

    A run that leaves users out is another one than the run that was accounted for, but only where
    a step overflows, with probability p, that of the neighbour with a user more: both are off by at
    most p, which costs (1 + e^epsilon) p.
    """
    p = card.steps * binom.sf(card.room, card.num_users + 1, card.rate)
    return float((1 + math.exp(epsilon)) * p)


def epsilon_of(card: PrivacyCard, *, method: str = "pld") -> float:
    """Upper bound on epsilon of everything on the card, by "pld" or "rdp"."""
    if not card.noise_multiplier:
        return math.inf
    accountant = _accountant(method)
    accountant.compose(_event(card, card.noise_multiplier))
    return float(accountant.get_epsilon(card.delta - card.overflow_delta))


def _accountant(method: str):
    if method == "rdp":
        return RdpAccountant(_ORDERS, RELATION)
    return PLDAccountant(RELATION, value_discretization_interval=_INTERVAL)


def _event(card: PrivacyCard, noise_multiplier: float) -> dp_accounting.DpEvent:
    others = [dp_accounting.GaussianDpEvent(part.noise_multiplier) for part in card.released]
    step = dp_accounting.PoissonSampledDpEvent(
        card.rate, dp_accounting.GaussianDpEvent(noise_multiplier)
    )
    training = dp_accounting.SelfComposedDpEvent(step, card.steps)
    return dp_accounting.ComposedDpEvent([training, *others])


def _noise_for(card: PrivacyCard, epsilon: float) -> float:
    """The least noise of a step with which the whole stays within epsilon."""
    target = card.delta * (1 - OVERFLOW_SHARE)
    if card.released:
        before = _accountant("pld")
        for part in card.released:
            before.compose(dp_accounting.GaussianDpEvent(part.noise_multiplier))
        if (spent := before.get_epsilon(target)) >= epsilon:
            raise ValueError(
                f"epsilon must be above {spent:.3g}, which {card.released[0].what} has spent "
                f"already, got {epsilon}"
            )

    def search(method: str, bracket) -> float:
        return dp_accounting.calibrate_dp_mechanism(
            lambda: _accountant(method),
            lambda noise: _event(card, noise),
            epsilon,
            target,
            bracket,
            tol=1e-3,
        )

    with contextlib.suppress(ValueError, NoBracketIntervalFoundError):  # the quick way
        enough = search("rdp", dp_accounting.LowerEndpointAndGuess(0.3, 1.0))
        return search("pld", dp_accounting.ExplicitBracketInterval(enough / 2, enough))
    try:
        return search("pld", dp_accounting.LowerEndpointAndGuess(0.1, 1.0))
    except NoBracketIntervalFoundError as error:
        came = f"epsilon {epsilon} and delta {card.delta}"
        raise ValueError(f"no noise was found that just keeps what is promised: {came}") from error


def _check(num_users, users_per_step, steps, clip_norm, epsilon, delta) -> None:
    if not 1 <= users_per_step <= num_users:
        raise ValueError(
            f"users_per_step (batch_size) must be in 1..{num_users} (users with something to "
            f"learn from), got {users_per_step}"
        )
    check_above_0(steps=steps, clip_norm=clip_norm)
    if not (0 < epsilon <= _LARGEST or epsilon == math.inf):
        raise ValueError(
            f"epsilon must be above 0 and at most {_LARGEST}, or infinite, got {epsilon}"
        )
    if not 0 < delta < 1 / num_users:
        raise ValueError(f"delta must be above 0 and below 1 / {num_users} users, got {delta}")
