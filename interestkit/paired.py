"""A model against all others in one call: the table of paired differences, and its figure."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import polars as pl
from matplotlib.axes import Axes

from interestkit import plots, reprs
from interestkit.evaluation import Evaluation
from interestkit.plots.compared import LEVEL


@dataclass(frozen=True, kw_only=True, eq=False)
class Comparison:
    """What `compare` found.

    Args:
        model: The model that is compared.
        table: `Evaluation.gains` of it: a row for each target, metric and other model.
        users: Judged users.
        part: The part of the split that was judged.
    """

    model: str
    table: pl.DataFrame
    users: int
    part: str

    def __repr__(self) -> str:
        family = self.table["p"].is_not_nan().sum()
        first = f"Comparison({self.model!r}, {self.users:,} {self.part} users): p corrected over "
        return "\n".join([f"{first}{family} comparisons (Holm)", *self._lines()])

    def _repr_html_(self) -> str:
        return reprs.of_comparison(self)

    def _lines(self) -> Iterator[str]:
        for row in self.table.iter_rows(named=True):
            if row["metric"].startswith("NDCG"):
                what = f"{row['target']} {row['metric']} over {row['over']}"
                ends = f"[{row['low']:+.3f}, {row['high']:+.3f}]"
                sides = f"better for {row['better']:.0%}, worse for {row['worse']:.0%} of users"
                verdict = f"p {row['p_holm']:.2g}, d {row['effect']:.2f}"
                yield f"  {what}: {row['gain']:+.3f} {ends}, {verdict}, {sides}"

    def found(self) -> pl.DataFrame:
        """Rows of `table` whose difference stays below 5 % after Holm's correction."""
        return self.table.filter(pl.col("p_holm") < LEVEL)

    def plot(
        self,
        *,
        target: str | Sequence[str] | None = None,
        metric: str | Sequence[str] | None = None,
        ax: Axes | None = None,
    ) -> Axes:
        """`plots.gains` of the table, with its options."""
        return plots.gains(self.table, target=target, metric=metric, ax=ax)


def compare(
    evaluation: Evaluation, *, model: str | None = None, flips: int = 9_999, seed: int = 0
) -> Comparison:
    """A model against every other one on the same users: shown as text, `.table`, `.plot()`.

    Args:
        evaluation: What `evaluate` returned, with two models or more.
        model: Name of the model; None takes the first that was evaluated.
        flips: As in `Evaluation.gains`.
        seed: As in `Evaluation.gains`.

    Raises:
        ValueError: If there is no such model, or none beside it.

    Example:
        >>> from interestkit import clean, evaluate, fit_features, held_out, simulate
        >>> from interestkit import MostFrequent, Popular, temporal_split
        >>> log, _ = clean(simulate(num_users=50, num_items=20, num_interests=4, seed=1))
        >>> split = temporal_split(log, min_judged=0)
        >>> features = fit_features(split.before("test"), split.items)
        >>> known = features.histories(split.before("test"))
        >>> rankers = {"own": MostFrequent(features=features, log=known)}
        >>> rankers["popular"] = Popular(features=features, log=known)
        >>> truth = held_out(features, split, "test")
        >>> compare(evaluate(rankers, truth, features, k=5, progress=False))
        Comparison('own', 39 test users): p corrected over 29 comparisons (Holm)
          items NDCG@5 over popular: ...
    """
    model = evaluation.models[0] if model is None else model
    table = evaluation.gains(model, flips=flips, seed=seed)
    if table.is_empty():
        raise ValueError(f"evaluation must hold a model beside {model!r}, got none")
    users = len(evaluation.per_user["user"].unique())
    return Comparison(model=model, table=table, users=users, part=evaluation.part)
