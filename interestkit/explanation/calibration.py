"""How far probabilities of interests can be believed: temperature, and sets that hold a share."""

from dataclasses import dataclass, replace

import numpy as np
import polars as pl
from jaxtyping import Bool, Float
from scipy.special import softmax

from interestkit import metrics
from interestkit.comparison import bootstrap_interval
from interestkit.explanation.telling import Told
from interestkit.features import Features
from interestkit.heldout import HeldOut
from interestkit.histories import Histories
from interestkit.limits import check_counts, check_within
from interestkit.prediction import Predictor
from interestkit.schema import USER

_BINS = 15  # of confidence, as is usual
_HOTTEST = 8.0  # temperatures between 1 / 8 and 8 are searched
_DRAWS = 1_000  # of what chance alone gives
_ENDS = (0.01, 0.99)  # quantiles of activity beyond which a threshold bends no more


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

    def check(self, truth: HeldOut, *, seed: int = 0) -> pl.DataFrame:
        """Expected calibration error of held-out users, beside what chance alone would give.

        Args:
            truth: Held-out users; those without later interests are left out.
            seed: Seed of the chance: in each bin, what is said and what comes differ by as much
                as they do, but in a random direction, so that only the number of users counts.

        Returns:
            Columns model ("before", "after"), users, error, chance (mean error of a model that is
            right), chance_high (19 of 20 such models stay below it).

        Source:
            Wild bootstrap: Liu (1988), Annals of Statistics 16(4), doi:10.1214/aos/1176351062.
        """
        probabilities, shares = _judged(self.predictor, truth)
        rng, rows = np.random.default_rng(seed), []
        for name, heat in (("before", 1.0), ("after", self.temperature)):
            said = _heated(probabilities, heat)
            error = float(metrics.expected_calibration_error(said, shares))
            chance = _by_chance(said, shares, rng)
            numbers = (error, float(chance.mean()), float(np.quantile(chance, 0.95)))
            rows.append((name, len(said), *numbers))
        columns = ["model", "users", "error", "chance", "chance_high"]
        return pl.DataFrame(rows, schema=columns, orient="row")

    def of(self, predictor: Predictor) -> "Calibrated":
        """The same temperature for another model, such as one that learned from more events."""
        return replace(self, predictor=predictor)


def calibrate(predictor: Predictor, truth: HeldOut) -> Calibrated:
    """The temperature with which the most probable interest is right as often as is said.

    It has the least log loss of "the most probable interest comes" on held-out users, which counts
    as true in the share of their later events that has it. That of all interests would do too
    where one could be right; of shares it makes the model too unsure of the first. Where no other
    is better, as with one interest, it is 1.

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
    temperature = float(np.exp(found.x)) if found.fun < loss(0.0) else 1.0
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
        ends: Logarithms of activity (1 + events) between which the threshold bends.
        bend: By how much it rises with each power of activity, which goes from -1 to 1.
        threshold: Largest score that is in the set, where activity is in the middle.
        users: Users that the threshold was chosen on.
        seed: Seed of the number in [0, 1) that each user draws.
    """

    model: Calibrated | Predictor
    coverage: float
    ends: tuple[float, float]
    bend: Float[np.ndarray, " powers"]
    threshold: float
    users: int
    seed: int

    def __repr__(self) -> str:
        share = f"{self.coverage:.0%} of what users do next"
        return f"InterestSets({share}, chosen on {self.users:,} users)"

    def of(self, model: Calibrated | Predictor) -> "InterestSets":
        """The same threshold for another model, such as one that learned from more events."""
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

        Raises:
            ValueError: If `groups` is below 1.
        """
        check_counts(1, groups=groups)
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
            own = covered[chosen]
            numbers = (np.median(lengths[chosen]), own.mean(), *bootstrap_interval(own))
            size = inside[chosen].sum(axis=1).mean()
            rows.append((name, len(own), *map(float, numbers), float(size), self.coverage))
        columns = ["group", "users", "events", "covered", "low", "high", "size", "nominal"]
        return pl.DataFrame(rows, schema=columns, orient="row")

    def _inside(self, probabilities, histories: Histories):
        most = self.threshold + _powers(histories.lengths, self.ends, len(self.bend)) @ self.bend
        return _scores(probabilities, histories.chances(self.seed)) <= most[:, None]


def interest_sets(
    model: Calibrated | Predictor,
    truth: HeldOut,
    *,
    coverage: float = 0.9,
    degree: int = 2,
    seed: int = 0,
) -> InterestSets:
    """Sets of interests that hold, on average over users, a share of what they do next.

    An interest is in the set if those more probable, and a random part of its own probability,
    add up to at most a threshold. The threshold bends with the activity of users, by a quantile
    regression on its powers, so that the share is held for the busy and the others alike; then
    it is moved to the smallest that keeps the share, with one user more who loses all. The
    promise holds for the average over users like those given (of the same time, of the same
    model), not for each one, and but for the few numbers of the bend, which the same users chose.

    Args:
        model: What gives the probabilities; it has not learned from what the users did.
        truth: Held-out users to choose the threshold on.
        coverage: The share, in (0, 1).
        degree: Powers of the logarithm of activity, 0..4; 0 is one threshold for all.
        seed: Seed of the random parts.

    Raises:
        ValueError: If `coverage` or `degree` is out of range, or no user has later events with
            an interest.

    Example:
        >>> from interestkit import clean, fit, fit_features, held_out, simulate, temporal_split
        >>> log, _ = clean(simulate(num_users=50, num_items=20, num_interests=4, seed=1))
        >>> split = temporal_split(log, min_judged=0)
        >>> features = fit_features(split.train, split.items, until=split.cut("validation"))
        >>> histories = features.histories(split.train)
        >>> model = fit(features, histories, stop_after=1, progress=False, item_dim=8).model
        >>> truth = held_out(features, split, "validation")
        >>> interest_sets(Predictor(features=features, model=model), truth)
        InterestSets(90% of what users do next, chosen on ... users)

    Source:
        Adaptive prediction sets: Romano, Sesia and Candès (2020), NeurIPS. Shares instead of one
        label: Angelopoulos et al. (2024), Conformal risk control, ICLR. The bend: Gibbs, Cherian
        and Candès (2025), Conformal prediction with conditional guarantees, JRSS B.
    """
    check_within("(0, 1)", coverage=coverage)
    if not 0 <= degree <= 4:
        raise ValueError(f"degree must be in 0..4, got {degree}")
    has = _has_interests(truth)
    shares = truth.interest_shares[has]
    scores = _scores(model.interests(truth.histories), truth.histories.chances(seed))[has]
    lengths = truth.histories.lengths[has]
    ends = tuple(map(float, np.quantile(np.log1p(lengths), _ENDS)))
    powers = _powers(lengths, ends, degree)
    bend = _bend(scores, shares, powers, coverage)
    return InterestSets(
        model=model,
        coverage=coverage,
        ends=ends,
        bend=bend,
        threshold=_threshold(scores - (powers @ bend)[:, None], shares, coverage),
        users=len(scores),
        seed=seed,
    )


def _powers(lengths, ends: tuple[float, float], degree: int) -> Float[np.ndarray, "users powers"]:
    """Powers 1 to `degree` of the logarithm of activity, which goes from -1 to 1."""
    low, high = ends
    place = 2 * (np.clip(np.log1p(lengths), low, high) - low) / max(high - low, 1e-9) - 1
    return place[:, None] ** np.arange(1, degree + 1)


def _bend(scores, shares, powers, coverage: float) -> Float[np.ndarray, " powers"]:
    """Slopes of the quantile regression of the scores of what came, which has the least loss."""
    from scipy.optimize import minimize

    user, interest = np.nonzero(shares)
    weight, score = shares[user, interest] / len(shares), scores[user, interest]
    if not powers.size:
        return np.zeros(0)

    def loss(line) -> float:
        gap = score - (line[0] + powers @ line[1:])[user]
        return float((weight * np.maximum(coverage * gap, (coverage - 1) * gap)).sum())

    start = np.append(np.quantile(score, coverage), np.zeros(powers.shape[1]))
    settings = {"xatol": 1e-4, "fatol": 1e-9, "maxiter": 2_000}
    return minimize(loss, start, method="Nelder-Mead", options=settings).x[1:]


def _threshold(scores, shares, coverage: float) -> float:
    """The smallest threshold that holds the share with one user more who loses all."""
    order = np.argsort(scores, axis=None, kind="stable")
    held = np.cumsum(shares.ravel()[order], dtype=float)
    place = np.searchsorted(held, coverage * (len(scores) + 1) - 1e-9)
    return float(scores.ravel()[order[place]]) if place < len(order) else np.inf


def _scores(probabilities, part) -> Float[np.ndarray, "users interests"]:
    """Probability of all that is more probable, and of each interest's own a user's random part."""
    order = np.argsort(-probabilities, axis=1, kind="stable")
    ordered = np.take_along_axis(probabilities, order, axis=1).astype(float)
    before = np.cumsum(ordered, axis=1) - ordered
    scores = np.empty_like(before)
    np.put_along_axis(scores, order, before + part[:, None] * ordered, axis=1)
    return scores


def _by_chance(said, shares, rng: np.random.Generator) -> Float[np.ndarray, " draws"]:
    """Calibration errors where what is said comes true but for chance."""
    first, user = said.argmax(axis=1), np.arange(len(said))
    gap = (shares[user, first] - said[user, first]).astype(float)
    place = np.ceil(said[user, first] * _BINS).astype(int).clip(1, _BINS) - 1
    is_inside = (place[:, None] == np.arange(_BINS)[None, :]).astype(float)
    number = np.maximum(is_inside.sum(axis=0), 1)
    rest = gap - (gap @ is_inside / number)[place]
    rest *= np.sqrt(number / np.maximum(number - 1, 1))[place]  # a mean fits those it is of
    rest = np.where(number[place] == 1, gap, rest)  # and one alone fully, who has no other chance
    signs = rng.choice([-1.0, 1.0], size=(_DRAWS, len(gap)))
    return np.abs((signs * rest[None, :]) @ is_inside).sum(axis=1) / max(len(gap), 1)


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
    return softmax(np.log(np.maximum(probabilities, 1e-30)) / temperature, axis=1)
