"""How far probabilities of interests can be believed: temperature, and sets that hold a share."""

from dataclasses import dataclass, replace

import numpy as np
import polars as pl
from jaxtyping import Bool, Float, Int

from interestkit import metrics
from interestkit.comparison import bootstrap_intervals
from interestkit.explanation.telling import Told
from interestkit.features import Features
from interestkit.heldout import HeldOut
from interestkit.histories import Histories
from interestkit.prediction import Predictor
from interestkit.schema import USER

_BINS = 15  # of confidence, as is usual
_HOTTEST = 8.0  # temperatures between 1 / 8 and 8 are searched


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Calibrated(Told):
    """A model whose probabilities of interests have a temperature; a `Ranker` as the model is.

    Args:
        predictor: The model.
        temperature: Log-probabilities are divided by it: above 1 they become less sure.
        error: Expected calibration error of the users that it was chosen on, before and after.
        users: Number of these users.
    """

    predictor: Predictor
    temperature: float
    error: tuple[float, float]
    users: int

    @property
    def _first_line(self) -> str:
        return f"Calibrated({self.predictor!r})"

    @property
    def told(self) -> tuple[str, dict, dict]:
        """As `Told.told`."""
        before, after = self.error
        facts = {
            "temperature": f"{self.temperature:.3f}",
            "ECE": f"{before:.4f} before, {after:.4f} after, of the {self.users:,} users it was "
            "chosen on",
        }
        return "Calibrated", facts, {}

    @property
    def features(self) -> Features:
        """Features of the model."""
        return self.predictor.features

    def interests(self, histories: Histories) -> Float[np.ndarray, "users interests"]:
        """Probability of each interest in what each user does next; a row sums to 1."""
        return _heated(self.predictor.interests(histories), self.temperature)

    def rank(self, histories: Histories, *, k: int = 10, exclude_seen: bool = True):
        """As `Predictor.rank`, which the temperature does not change."""
        return self.predictor.rank(histories, k=k, exclude_seen=exclude_seen)

    def reliability(self, truth: HeldOut) -> pl.DataFrame:
        """Bins of `metrics.reliability` before and after, as in `Evaluation.reliability`."""
        probabilities, shares = _judged(self.predictor, truth)
        edges, tables = np.arange(_BINS + 1) / _BINS, []
        for name, heat in (("before", 1.0), ("after", self.temperature)):
            bins = metrics.reliability(_heated(probabilities, heat), shares, num_bins=_BINS)
            columns = {"low": edges[:-1], "high": edges[1:]}
            columns |= {name: np.asarray(part) for name, part in bins._asdict().items()}
            named = (pl.lit(name).alias("model"), pl.lit(0).alias("seed"), "*")
            tables.append(pl.DataFrame(columns).select(named))
        return pl.concat(tables)

    def of(self, predictor: Predictor) -> "Calibrated":
        """The same temperature for another model, such as one that learned from more events."""
        return replace(self, predictor=predictor)


def calibrate(predictor: Predictor, truth: HeldOut) -> Calibrated:
    """The temperature with which the most probable interest is right as often as is said.

    It has the least log loss of "the most probable interest comes" on held-out users, which counts
    as true in the share of their later events that has it. That of all interests would do too
    where one could be right; of shares it makes the model too unsure of the first.

    Args:
        predictor: A model that has not learned from what these users did.
        truth: The held-out users, such as those of the validation part.

    Raises:
        ValueError: If no user has later events with an interest.

    Example:
        >>> from interestkit import clean, fit, fit_features, held_out, simulate, temporal_split
        >>> log, _ = clean(simulate(num_users=50, num_items=20, num_interests=4, seed=1))
        >>> split = temporal_split(log, min_judged=0)
        >>> features = fit_features(split.train, split.items, until=split.cut("validation"))
        >>> histories = features.histories(split.train)
        >>> model = fit(features, histories, stop_after=1, progress=False, item_dim=8).model
        >>> truth = held_out(features, split, "validation")
        >>> 0.1 < calibrate(Predictor(features=features, model=model), truth).temperature < 8
        True

    Source:
        Guo et al. (2017), On calibration of modern neural networks, ICML, PMLR 70; of the first
        label alone: Gupta and Ramdas (2022), Top-label calibration, ICLR.
    """
    from scipy.optimize import minimize_scalar

    probabilities, shares = _judged(predictor, truth)

    right = np.take_along_axis(shares, probabilities.argmax(axis=1)[:, None], axis=1)[:, 0]

    def loss(log_temperature: float) -> float:
        said = _heated(probabilities, np.exp(log_temperature)).max(axis=1)
        said = np.clip(said, 1e-9, 1 - 1e-9)
        return float(-(right * np.log(said) + (1 - right) * np.log1p(-said)).mean())

    limit = np.log(_HOTTEST)
    found = minimize_scalar(loss, bounds=(-limit, limit), method="bounded", options={"xatol": 1e-4})
    temperature = float(np.exp(found.x))
    pair = (probabilities, _heated(probabilities, temperature))
    error = tuple(float(metrics.expected_calibration_error(p, shares)) for p in pair)
    return Calibrated(
        predictor=predictor, temperature=temperature, error=error, users=len(probabilities)
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class InterestSets:
    """Sets of interests that hold a share of what users do next; `interest_sets` makes them.

    Args:
        model: What gives the probabilities.
        coverage: The share, on average over users.
        edges: Lengths of histories at which another group of users begins, ascending.
        thresholds: Largest score that is in the set, by group.
        users: Users of each group that the thresholds were chosen on.
        seed: Seed of the number in [0, 1) that each user draws.
    """

    model: Calibrated | Predictor
    coverage: float
    edges: Int[np.ndarray, " edges"]
    thresholds: Float[np.ndarray, " groups"]
    users: Int[np.ndarray, " groups"]
    seed: int

    def __repr__(self) -> str:
        groups = len(self.thresholds)
        return (
            f"InterestSets({self.coverage:.0%} of what users do next, {groups} groups by activity, "
            f"chosen on {self.users.sum():,} users)"
        )

    def of(self, model: Calibrated | Predictor) -> "InterestSets":
        """The same thresholds for another model, such as one that learned from more events."""
        return replace(self, model=model)

    def sets(self, histories: Histories) -> pl.DataFrame:
        """Interests in each user's set: user, interest, probability, the most probable first."""
        probabilities = self.model.interests(histories)
        user, interest = np.nonzero(self._inside(probabilities, histories))
        names = np.array(self.model.features.interests, object)[interest]
        return (
            pl.DataFrame(
                {
                    USER: pl.Series(histories.users[user], dtype=pl.String),
                    "interest": pl.Series(names, dtype=pl.String),
                    "probability": probabilities[user, interest],
                    "row": user,
                }
            )
            .sort("row", "probability", descending=[False, True], maintain_order=True)
            .drop("row")
        )

    def check(self, truth: HeldOut, *, groups: int = 10) -> pl.DataFrame:
        """What the sets hold of what users really did, of all and by activity.

        Args:
            truth: Held-out users.
            groups: Groups of users with histories of like length.

        Returns:
            Columns group ("all", then "1" for the shortest histories, "2", …), users, events
            (median length of the history), covered (mean share of later events whose interest is
            in the set), low, high (95 % over users), size (mean number of interests), nominal.
            Users whose later events have no interest are left out.
        """
        has = truth.interest_shares.any(axis=1)
        inside = self._inside(self.model.interests(truth.histories), truth.histories)[has]
        covered = (truth.interest_shares[has] * inside).sum(axis=1)
        lengths, rows = truth.histories.lengths[has], []
        place = np.argsort(np.argsort(lengths, kind="stable"), kind="stable")
        group = place * groups // max(len(place), 1)
        for name in ("all", *map(str, range(1, groups + 1))):
            chosen = np.full(len(group), True) if name == "all" else group == int(name) - 1
            if not chosen.any():
                continue
            low, high = bootstrap_intervals(covered[chosen][:, None].astype(float))
            numbers = (np.median(lengths[chosen]), covered[chosen].mean(), low[0], high[0])
            size = inside[chosen].sum(axis=1).mean()
            rows.append((name, int(chosen.sum()), *map(float, numbers), float(size), self.coverage))
        columns = ["group", "users", "events", "covered", "low", "high", "size", "nominal"]
        return pl.DataFrame(rows, schema=columns, orient="row")

    def _inside(self, probabilities, histories: Histories):
        group = np.searchsorted(self.edges, histories.lengths, side="right")
        return _scores(probabilities, self.seed) <= self.thresholds[group][:, None]


def interest_sets(
    model: Calibrated | Predictor,
    truth: HeldOut,
    *,
    coverage: float = 0.9,
    groups: int = 10,
    seed: int = 0,
) -> InterestSets:
    """Sets of interests that hold, on average over users, a share of what they do next.

    An interest is in the set if those more probable, and a random part of its own probability,
    add up to at most a threshold. The threshold of each group of users of like activity is the
    smallest that keeps the share, with one user more who loses all. The promise holds for the
    average over users like those given (of the same time, of the same model), not for each one.

    Args:
        model: What gives the probabilities; it has not learned from what the users did.
        truth: Held-out users to choose the thresholds on.
        coverage: The share, in (0, 1).
        groups: Groups by the length of the history, each with a threshold of its own, at least 1.
        seed: Seed of the random parts.

    Raises:
        ValueError: If `coverage` or `groups` is out of range, or no user has later events with
            an interest.

    Example:
        >>> from interestkit import clean, fit, fit_features, held_out, simulate, temporal_split
        >>> log, _ = clean(simulate(num_users=50, num_items=20, num_interests=4, seed=1))
        >>> split = temporal_split(log, min_judged=0)
        >>> features = fit_features(split.train, split.items, until=split.cut("validation"))
        >>> histories = features.histories(split.train)
        >>> model = fit(features, histories, stop_after=1, progress=False, item_dim=8).model
        >>> truth = held_out(features, split, "validation")
        >>> interest_sets(Predictor(features=features, model=model), truth, groups=1)
        InterestSets(90% of what users do next, 1 groups by activity, chosen on ... users)

    Source:
        Adaptive prediction sets: Romano, Sesia and Candès (2020), NeurIPS. Shares instead of one
        label: Angelopoulos et al. (2024), Conformal risk control, ICLR.
    """
    if not 0 < coverage < 1:
        raise ValueError(f"coverage must be in (0, 1), got {coverage}")
    if groups < 1:
        raise ValueError(f"groups must be at least 1, got {groups}")
    has = _has_interests(truth)
    shares = truth.interest_shares[has]
    scores = _scores(model.interests(truth.histories), seed)[has]
    lengths = truth.histories.lengths[has]
    edges = np.unique(np.quantile(lengths, np.arange(1, groups) / groups, method="higher"))
    group = np.searchsorted(edges, lengths, side="right")
    own = [group == number for number in range(len(edges) + 1)]
    thresholds = [_threshold(scores[g], shares[g], coverage) for g in own]
    return InterestSets(
        model=model,
        coverage=coverage,
        edges=edges,
        thresholds=np.array(thresholds),
        users=np.array([g.sum() for g in own]),
        seed=seed,
    )


def _threshold(scores, shares, coverage: float) -> float:
    """The smallest threshold that holds the share with one user more who loses all."""
    order = np.argsort(scores, axis=None, kind="stable")
    held = np.cumsum(shares.ravel()[order], dtype=float)
    place = np.searchsorted(held, coverage * (len(scores) + 1) - 1e-9)
    return float(scores.ravel()[order[place]]) if place < len(order) else np.inf


def _scores(probabilities, seed: int) -> Float[np.ndarray, "users interests"]:
    """Probability of all that is more probable, and a random part of an interest's own."""
    order = np.argsort(-probabilities, axis=1, kind="stable")
    ordered = np.take_along_axis(probabilities, order, axis=1).astype(float)
    part = np.random.default_rng(seed).random((len(probabilities), 1))
    before = np.cumsum(ordered, axis=1) - ordered
    scores = np.empty_like(before)
    np.put_along_axis(scores, order, before + part * ordered, axis=1)
    return scores


def _judged(model, truth: HeldOut):
    """Probabilities and shares of the users whose later events have an interest."""
    has = _has_interests(truth)
    return model.interests(truth.histories)[has], truth.interest_shares[has]


def _has_interests(truth: HeldOut) -> Bool[np.ndarray, " users"]:
    """True for users whose later events have an interest; ValueError where there are none."""
    has = truth.interest_shares.any(axis=1)
    if not has.any():
        raise ValueError(f"truth must hold a user with later interests, got none of {len(truth)}")
    return has


def _heated(probabilities, temperature: float) -> Float[np.ndarray, "users interests"]:
    logits = np.log(np.maximum(probabilities, 1e-30)) / temperature
    heated = np.exp(logits - logits.max(axis=1, keepdims=True))
    return heated / heated.sum(axis=1, keepdims=True)
