"""What a straight line can read from user vectors, beside what it can learn by heart."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from interestkit.comparison import bootstrap_interval
from interestkit.explanation.asking import Asked, user_vectors
from interestkit.explanation.telling import Told
from interestkit.heldout import HeldOut
from interestkit.histories import Histories
from interestkit.prediction import Predictor

_FOLDS, _RIDGE, _SHUFFLES = 5, 10.0, 5


@dataclass(frozen=True, kw_only=True, repr=False)
class Probe(Told):
    """What `probe` found; all are shares of users in 0..1.

    Args:
        accuracy: Users whose most frequent later interest the probe names.
        interval: Its 95 % interval over users.
        control: The same where the interests are shuffled among users.
        majority: The same for whoever names everybody's most frequent interest.
        users: Number of users.
    """

    accuracy: float
    interval: tuple[float, float]
    control: float
    majority: float
    users: int

    @property
    def told(self) -> tuple[str, dict, dict]:
        """As `Told.told`."""
        low, high = self.interval
        facts = {
            "accuracy": f"{self.accuracy:.3f} [{low:.3f}, {high:.3f}], {self.users:,} users",
            "control": f"{self.control:.3f} on shuffled interests",
            "majority": f"{self.majority:.3f} for the most frequent interest",
        }
        return "Probe", facts, {}


def probe(predictor: Predictor, truth: HeldOut, *, seed: int = 0) -> Probe:
    """How far a linear probe reads from user vectors which interest users have most afterwards.

    A ridge regression from user vectors to interests, each user judged by one that has not seen
    them (five folds). The control task has the interests of users shuffled: what a probe gets
    right there it learned by heart.

    Args:
        predictor: The model.
        truth: Held-out users; those without later interests are left out.
        seed: Seed of folds and shuffles.

    Raises:
        ValueError: If fewer than ten users are left.

    Example:
        >>> from interestkit import clean, fit, fit_features, held_out, simulate, temporal_split
        >>> log, _ = clean(simulate(num_users=50, num_items=20, num_interests=4, seed=1))
        >>> split = temporal_split(log, min_judged=0)
        >>> features = fit_features(split.before("test"), split.items)
        >>> histories = features.histories(split.before("test"))
        >>> model = fit(features, histories, stop_after=1, progress=False, item_dim=8).model
        >>> truth = held_out(features, split)
        >>> probe(Predictor(features=features, model=model), truth).users == len(truth)
        True

    Source:
        Alain and Bengio (2017), ICLR workshop; control tasks: Hewitt and Liang (2019), EMNLP,
        doi:10.18653/v1/D19-1275.
    """
    has = truth.interest_shares.any(axis=1)
    if (came := has.sum()) < 2 * _FOLDS:
        raise ValueError(f"truth must hold {2 * _FOLDS} users with later interests, got {came}")
    vectors = _vectors(predictor, truth.histories)[has]
    labels, rng = truth.interest_shares[has].argmax(axis=1), np.random.default_rng(seed)
    fold = rng.permutation(len(labels)) % _FOLDS
    right = _named(vectors, labels, fold) == labels
    shuffled = [rng.permutation(labels) for _ in range(_SHUFFLES)]
    control = [(_named(vectors, other, fold) == other).mean() for other in shuffled]
    return Probe(
        accuracy=float(right.mean()),
        interval=bootstrap_interval(right.astype(float), seed=seed),
        control=float(np.mean(control)),
        majority=float(np.bincount(labels).max() / len(labels)),
        users=len(labels),
    )


def _vectors(predictor: Predictor, histories: Histories) -> Float[np.ndarray, "users dim"]:
    """The vector of each user."""
    asked, nothing = Asked(predictor), np.zeros((len(histories), 0), np.int32)
    blocks = asked.blocks(histories, nothing, np.zeros(len(histories), np.int32))
    return np.concatenate(
        [np.asarray(asked.ask(user_vectors, at, users))[: len(rows)] for rows, at, users in blocks]
    )


def _named(vectors, labels: Int[np.ndarray, " users"], fold) -> Int[np.ndarray, " users"]:
    """The interest that the probe of the other folds names for each user."""
    x = (vectors - vectors.mean(axis=0)) / np.maximum(vectors.std(axis=0), 1e-6)
    x = np.concatenate([x, np.ones((len(x), 1))], axis=1).astype(float)
    y, named = np.eye(labels.max() + 1)[labels], np.zeros(len(x), int)
    for number in range(_FOLDS):
        own, held = fold != number, fold == number
        gram = x[own].T @ x[own] + _RIDGE * np.eye(x.shape[1])
        named[held] = (x[held] @ np.linalg.solve(gram, x[own].T @ y[own])).argmax(axis=1)
    return named
