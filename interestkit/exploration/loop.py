"""The feedback loop, closed: lists are shown, choices go to the log, the model learns from it."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import polars as pl
from jaxtyping import Float, Int
from scipy.special import stdtrit

from interestkit import metrics
from interestkit.baselines import Ranker
from interestkit.counting import SECONDS_PER_DAY
from interestkit.exploration.bandits import Ensemble, Fit, RandomPlaces, bootstrap, draws
from interestkit.exploration.counting import SimilarUsers
from interestkit.exploration.planning import Exploring, LearnedPlanner, Plan, Planner, transitions
from interestkit.exploration.world import Audience, World
from interestkit.features import Features
from interestkit.histories import Histories
from interestkit.limits import check_counts, check_one_of
from interestkit.neighbours import EASE
from interestkit.progress import progress_bar
from interestkit.reranking import Reranked

Policy = Callable[[Features, Histories, int], Ranker]
MEASURES = {  # name -> what it is; those of lists are of what one round shows
    "utility": "chance that a visit ends with a choice",
    "utility, first interests": "the same, had interests stayed as they were",
    "interests found": "share of a user's first interests that are in the log",
    "entropy of lists": "bits, over the interests of a user's list",
    "entropy of interests": "bits, over a user's weights",
    "Gini": "of how often each item is shown",
}


@dataclass(frozen=True, kw_only=True, eq=False)
class Rounds:
    """What `simulate_rounds` measured.

    Args:
        table: Columns policy, seed, round (from 1), metric (of `MEASURES`), value: means over
            users. A round is measured with the lists it shows, before choices change anything.
        shown: All places of the first seed: policy, round, user and item (codes), rank (from 1),
            propensity (NaN where the policy does not know it), chosen (number of visits).
    """

    table: pl.DataFrame
    shown: pl.DataFrame

    def curve(self) -> pl.DataFrame:
        """Mean over seeds with its 95 % interval (Student's t; NaN with a single seed).

        Returns:
            Columns policy, round, metric, value, low, high, seeds.
        """
        return _over_seeds(self.table, ["policy", "round", "metric"], "value")

    def against(self, base: str = "greedy", *, first: int = 5, last: int = 10) -> pl.DataFrame:
        """How far each policy is above another one, on the same users: first and last rounds.

        Args:
            base: The policy compared with.
            first: Rounds at the start, whose mean is taken.
            last: Rounds at the end.

        Returns:
            Columns policy, metric, rounds ("first" or "last"), gain, low, high, seeds: means over
            seeds of the differences within a seed, with intervals as in `curve`.

        Raises:
            ValueError: If there is no such policy.
        """
        policies = self.table["policy"].unique(maintain_order=True).to_list()
        check_one_of(policies, base=base)
        total, now = self.table["round"].max(), pl.col("round")
        parts = {"first": now <= first, "last": now > total - last}
        keys = ["policy", "seed", "metric", "rounds"]
        rows = pl.concat(
            self.table.filter(part)
            .group_by("policy", "seed", "metric", maintain_order=True)
            .agg(pl.col("value").mean())
            .with_columns(rounds=pl.lit(name))
            for name, part in parts.items()
        )
        theirs = rows.filter(policy=base).select(*keys[1:], base="value")
        rows = rows.filter(pl.col("policy") != base)
        rows = rows.join(theirs, on=keys[1:], maintain_order="left")
        rows = rows.with_columns(gain=pl.col("value") - pl.col("base"))
        return _over_seeds(rows, ["policy", "metric", "rounds"], "gain")


def simulate_rounds(
    policies: Mapping[str, Policy] | None = None,
    *,
    world: World | None = None,
    rounds: int = 50,
    k: int = 10,
    refit_every: int = 5,
    seeds: Iterable[int] = range(3),
    progress: bool = True,
) -> Rounds:
    """Policies in the feedback loop, each with the same simulated users.

    In each round, a day, every user is shown a list of k items, which may be ones they had; what
    they choose goes to the log, and what they look at moves their interests (`World`). A policy
    is made from the log again every few rounds; in between it sees the newest histories.

    Args:
        policies: Name -> a function of features, the log so far and a seed that makes a ranker,
            such as `lambda features, log, seed: ik.EASE(features=features, log=log)`. None takes
            all of `default_policies`.
        world: Settings of the users; None takes the defaults.
        rounds: Number of rounds, at least 1.
        k: Length of the lists, at least 1.
        refit_every: Rounds from one fit to the next, at least 1.
        seeds: Seeds of users, choices and policies, at least one.
        progress: Show a progress bar.

    Raises:
        ValueError: If a number is below 1, or there is no policy or no seed.

    Example:
        >>> greedy = {"greedy": lambda features, log, _: EASE(features=features, log=log)}
        >>> world = World(num_users=20, num_items=24)
        >>> found = simulate_rounds(greedy, world=world, rounds=2, k=3, seeds=[1], progress=False)
        >>> found.table.shape  # 2 rounds, 6 metrics
        (12, 5)

    Source:
        Jiang et al. (2019), AIES, arXiv:1902.10730 (degenerate feedback loops); Chaney, Stewart
        and Engelhardt (2018), RecSys, arXiv:1710.11214 (the simulated loop).
    """
    policies = default_policies() if policies is None else policies
    world, seeds = world or World(), list(seeds)
    check_counts(1, rounds=rounds, k=k, refit_every=refit_every)
    if not policies or not seeds:
        raise ValueError("policies and seeds must hold at least one each")
    steps = [(s, name, n) for s in seeds for name in policies for n in range(rounds)]
    tables, shown = [], []
    for seed, name, number in progress_bar(steps, label="rounds", unit="round", enabled=progress):
        if number == 0:
            loop = _Loop(Audience(world, seed=seed), policies[name], k, seed)
        values, places = loop.step(number, fit=number % refit_every == 0)
        keys = {"policy": name, "seed": seed, "round": number + 1}
        tables += [keys | {"metric": metric, "value": value} for metric, value in values.items()]
        if seed == seeds[0]:
            own = [pl.lit(name).alias("policy"), pl.lit(number + 1).alias("round"), pl.all()]
            shown.append(places.select(own))
    return Rounds(table=pl.DataFrame(tables), shown=pl.concat(shown))


def default_policies(fit: Fit | None = None, *, share: float = 0.1) -> dict[str, Policy]:
    """Two policies that do not explore, and three that do.

    Args:
        fit: Makes the recommender from features and a log; None takes EASE.
        share: Share of the places that "random places" and "novel interests" leave to them.

    Returns:
        "greedy": the recommender as it is. "calibrated": its lists, re-ranked to the interests
        in the user's history (`Reranked`). The others start from these lists: "random places"
        leaves some to chance, "novel interests" gives them to interests that are new to the user
        (`Exploring`; some on average, at the end of the list), drawn from all that a planner
        names, and "Thompson" draws one of three fits on resampled users.
    """
    fit = fit or (lambda features, log: EASE(features=features, log=log, regularisation=50.0))

    def calibrated(features: Features, log: Histories) -> Ranker:
        return Reranked(ranker=fit(features, log), features=features)

    def random_places(features: Features, log: Histories, seed: int) -> Ranker:
        lists = calibrated(features, log)
        return RandomPlaces(ranker=lists, features=features, share=share, seed=seed)

    def thompson(features: Features, log: Histories, seed: int) -> Ranker:
        members = bootstrap(calibrated, features, log, members=3, seed=seed)
        return Ensemble(members=members, features=features, seed=seed)

    return {
        "greedy": lambda features, log, _: fit(features, log),
        "calibrated": lambda features, log, _: calibrated(features, log),
        "random places": random_places,
        "novel interests": novel_places(
            calibrated, similar_planner, places=max(1, int(10 * share))
        ),
        "Thompson": thompson,
    }


def novel_places(
    fit: Fit, planner: Callable[[Features, Histories], Planner], *, places: int = 1
) -> Policy:
    """A policy that gives the last places to new interests, drawn anew each time.

    Args:
        fit: Makes the recommender of the other places.
        planner: Makes a planner from features and a log, such as `similar_planner`. Its plans are
            drawn by their order, the n-th (from 1) with weight 1 / n: somebody who did not take
            a proposal gets another one.
        places: Places at the end of a list.
    """

    def policy(features: Features, log: Histories, seed: int) -> Ranker:
        plans, ranker = _drawn(planner(features, log), seed), fit(features, log)
        return Exploring(ranker=ranker, planner=plans, features=features, places=places)

    return policy


def _drawn(planner: Planner, seed: int) -> Planner:
    """The plans of a planner in an order that is drawn."""

    def plans(histories: Histories) -> list[list[Plan]]:
        return [
            [own[n] for n in np.argsort(rng.exponential(size=len(own)) * (1 + np.arange(len(own))))]
            for own, rng in zip(planner(histories), draws(histories, seed), strict=True)
        ]

    return plans


def similar_planner(features: Features, log: Histories) -> Planner:
    """A planner that names what users most like somebody touched (`SimilarUsers`)."""
    return LearnedPlanner(
        model=SimilarUsers(features=features, log=log),
        features=features,
        steps=transitions(features, log),
        number=features.num_interests,
    )


class _Loop:
    """One policy with one audience."""

    def __init__(self, audience: Audience, policy: Policy, k: int, seed: int) -> None:
        self.audience, self.policy, self.k, self.seed = audience, policy, k, seed
        self.first = audience.weights

    def step(self, number: int, *, fit: bool) -> tuple[dict[str, float], pl.DataFrame]:
        """One round: its metrics and its places."""
        audience = self.audience
        moment = audience.end + SECONDS_PER_DAY
        known = audience.at(moment)
        if fit:
            self.ranker = self.policy(audience.features, known, self.seed * 1_000_003 + number)
        codes, chances = _lists(self.ranker, known, min(self.k, audience.features.num_items))
        values = self._measured(codes)
        rank = audience.choose(codes, moment=moment)
        audience.expose(codes)
        return values, _places(codes, chances, rank)

    def _measured(self, codes: Int[np.ndarray, "users k"]) -> dict[str, float]:
        audience = self.audience
        items = audience.features.num_items
        shares = audience.shares(codes)
        counts = np.bincount(codes[codes >= 0], minlength=items)[audience.features.is_candidate]
        values = (
            audience.utility(codes).mean(),
            audience.utility(codes, self.first).mean(),
            np.nanmean(audience.found()),
            _entropy(shares).mean(),
            _entropy(audience.weights).mean(),
            metrics.gini(counts),
        )
        return dict(zip(MEASURES, map(float, values), strict=True))


def _lists(ranker: Ranker, known: Histories, k: int):
    """Lists with items that a user may have had, and propensities where the ranker knows them."""
    settings = {"k": k, "exclude_seen": False}
    if isinstance(ranker, RandomPlaces):
        codes, _, chances = ranker.draw(known, **settings)
        return codes, chances
    codes = np.asarray(ranker.rank(known, **settings)[0])
    return codes, np.full(codes.shape, np.nan)


def _places(codes, chances, rank) -> pl.DataFrame:
    """A row for each place that was shown."""
    chosen = np.zeros(codes.shape, np.int32)
    user, visit = np.nonzero(rank >= 0)
    np.add.at(chosen, (user, rank[user, visit]), 1)
    user, place = np.nonzero(codes >= 0)
    columns = {"user": user, "rank": place + 1, "item": codes[user, place]}
    columns = {name: values.astype(np.int32) for name, values in columns.items()}
    columns |= {"propensity": chances[user, place], "chosen": chosen[user, place]}
    return pl.DataFrame(columns)


def _entropy(shares: Float[np.ndarray, "users interests"]) -> Float[np.ndarray, " users"]:
    """In bits."""
    return -(shares * np.log2(np.where(shares > 0, shares, 1))).sum(axis=1)


def _over_seeds(rows: pl.DataFrame, keys: list[str], value: str) -> pl.DataFrame:
    number = pl.col(value).count()
    rows = rows.group_by(keys, maintain_order=True).agg(
        pl.col(value).mean().alias("mean"),
        (pl.col(value).std() / number.sqrt()).fill_null(np.nan).alias("error"),
        number.cast(pl.Int64).alias("seeds"),
    )
    with np.errstate(invalid="ignore"):
        times = stdtrit(np.maximum(rows["seeds"].to_numpy() - 1, 1), 0.975)
    half = pl.col("error") * pl.Series(times)
    ends = {"low": pl.col("mean") - half, "high": pl.col("mean") + half}
    return rows.select(*keys, pl.col("mean").alias(value), **ends, seeds="seeds")
