"""Models side by side for groups of users, with intervals, and the users behind a group."""

from collections.abc import Mapping
from pathlib import Path

import anywidget
import ipywidgets as w
import numpy as np
import polars as pl
import traitlets
from matplotlib.figure import Figure

from interestkit.comparison import bootstrap_intervals, is_lower_better
from interestkit.evaluation import Evaluation
from interestkit.features import Features
from interestkit.heldout import HeldOut, label_sums
from interestkit.markup import words
from interestkit.plots import user_groups
from interestkit.schema import USER
from interestkit.widgets.parts import Panel, labelled, main_interest, picture, side_by_side, table

EVERYBODY = "everybody"
_USERS = 20  # of a group that are listed
_INTERESTS = 8  # groups by main interest; all others share one
_SHARES = (0, 0.25, 0.5, 0.75, 1)  # where groups by length of history are cut


class _Bands(anywidget.AnyWidget):
    """The figure, on which each group is a button."""

    _esm = Path(__file__).with_name("bands.js")
    _css = """
.ik-bands { position: relative; display: inline-block; max-width: 100%; }
.ik-bands img { display: block; }
.ik-bands button { position: absolute; left: 0; width: 100%; padding: 0; cursor: pointer;
  border: solid transparent; border-width: 0 0 0 4px; background: none; }
.ik-bands button:hover, .ik-bands [aria-pressed=true] { background: #0072B21A; }
.ik-bands [aria-pressed=true] { border-color: #0072B2; }
.ik-live .ik-bands button:focus-visible { outline-offset: -2px !important; }
"""
    value = traitlets.Unicode().tag(sync=True)  # the image as HTML
    options = traitlets.List().tag(sync=True)  # names of the groups
    places = traitlets.List().tag(sync=True)  # top and bottom of each, as shares of the height
    chosen = traitlets.Int(0).tag(sync=True)


class ModelComparison(Panel):
    """Models, a metric and groups to choose, and the users of a group; `compare_models` makes it.

    Each group in the figure is a button.

    Args:
        evaluation: What is compared.
        groups: Name of a division -> group of each user, in the order of `users`.
        users: The judged users.

    Attributes:
        table: What is drawn, as `plots.user_groups` takes it.
    """

    def __init__(
        self, evaluation: Evaluation, groups: Mapping[str, pl.Series], users: pl.Series
    ) -> None:
        super().__init__("Which model is better, and for whom?")
        self.evaluation, self.users = evaluation, users
        self.groups = {EVERYBODY: pl.Series([EVERYBODY] * len(users)), **groups}
        self._means: dict[tuple, pl.DataFrame] = {}
        kinds = evaluation.per_user.select("target", "metric").unique(maintain_order=True)
        self._metrics = dict(kinds.group_by("target", maintain_order=True).agg("metric").rows())
        self._make_controls()
        self._choose_target()

    def _make_controls(self) -> None:
        models = self.evaluation.models
        self.models = w.SelectMultiple(
            options=[(words(name, 40), name) for name in models],
            value=tuple(models),
            rows=min(len(models), 7),
            **labelled("Models", width=24),
        )
        self.target = w.Dropdown(options=list(self._metrics), **labelled("Target", width=24))
        self.metric = w.Dropdown(**labelled("Metric", width=24))
        divisions = [(words(name, 40), name) for name in self.groups]
        self.by = w.Dropdown(options=divisions, **labelled("Groups by", width=24))
        self.figure, self._names = _Bands(), []
        self.values, self.listed = self.tables = w.HTML(), w.HTML()
        self._is_filling = False
        self.target.observe(lambda _: self._choose_target(), "value")
        for control in (self.models, self.metric, self.by):
            control.observe(lambda _: self._show(), "value")
        self.figure.observe(lambda _: self._show_users(), "chosen")
        hint = w.HTML("<p>Click a group in the figure, or go there by Tab and press Enter.</p>")
        choices = w.VBox([self.models, self.target, self.metric, self.by, hint])
        self.parts = (side_by_side(choices, self.values), self.figure, self.listed)

    def _choose_target(self) -> None:
        before = self.metric.value
        metrics = self._metrics[self.target.value]
        self._is_filling = True
        self.metric.options = metrics
        self.metric.value = before if before in metrics else metrics[0]
        self._is_filling = False
        self._show()

    def _show(self) -> None:
        if self._is_filling or not self.models.value:
            return
        chosen = self.group if self._names else None
        names = self.groups[self.by.value].drop_nulls().unique().sort().to_list()
        self._names = names
        self.table = rows = self._rows()
        metric, places = f"{self.target.value}: {self.metric.value}", []

        def paint(figure: Figure) -> None:
            ax = user_groups(rows, what=metric, ax=figure.subplots())
            figure.draw_without_rendering()  # which lays it out
            edges = [(0, place - 0.5) for place in range(len(names) + 1)]
            shares = 1 - ax.transData.transform(edges)[:, 1] / figure.bbox.height
            places.extend(zip(shares.tolist(), shares[1:].tolist(), strict=False))

        height = 1.5 + 0.3 * len(names) + 0.14 * len(rows)
        png = picture(paint, size=(8, min(max(height, 2.6), 9)))
        self._is_filling = True
        with self.figure.hold_sync():
            self.figure.options = [words(name, 50) for name in names]
            self.figure.places = places
            self.figure.chosen = names.index(chosen) if chosen in names else 0
            self.show_picture(png, self._in_words(rows, metric))
        self._is_filling = False
        self.values.value = _value_table(rows, metric)
        self._show_users()

    @property
    def group(self) -> str:
        """The group whose users are listed."""
        return self._names[self.figure.chosen]

    def _by_user(self) -> pl.DataFrame:
        """Users x models: the mean over seeds of the metric that is chosen."""
        key = (self.target.value, self.metric.value)
        if key not in self._means:
            rows = self.evaluation.per_user.filter(target=key[0], metric=key[1])
            means = rows.group_by("model", USER, maintain_order=True).agg(pl.col("value").mean())
            wide = means.pivot("model", index=USER, values="value")
            self._means[key] = self.users.to_frame(USER).join(
                wide, on=USER, how="left", maintain_order="left"
            )
        return self._means[key]

    def _rows(self) -> pl.DataFrame:
        """Mean and interval of each chosen model in each group."""
        models, names = list(self.models.value), self._names
        values = self._by_user().select(models).fill_null(np.nan).to_numpy()
        series = self.groups[self.by.value]
        inside = np.stack([(series == name).fill_null(False).to_numpy() for name in names], axis=1)
        cells = np.where(inside[:, :, None], values[:, None, :], np.nan)
        cells = cells.reshape(len(values), -1)
        low, high = bootstrap_intervals(cells)
        number = (~np.isnan(cells)).sum(axis=0)
        with np.errstate(invalid="ignore"):
            mean = np.nansum(cells, axis=0) / np.where(number, number, np.nan)
        return pl.DataFrame(
            {
                "group": np.repeat(names, len(models)),
                "model": models * len(names),
                "value": mean,
                "low": low,
                "high": high,
                "users": number,
            }
        )

    def _in_words(self, rows: pl.DataFrame, metric: str) -> str:
        lower = is_lower_better(self.metric.value)
        best = rows.filter(pl.col("value").is_finite()).sort("value", descending=not lower)
        best = best.unique("group", keep="first", maintain_order=True)
        said = [
            f"{words(group, 40)}: {words(model, 28)} {value:.4f} [{low:z.4f}, {high:z.4f}]"
            for group, model, value, low, high, _ in best.iter_rows()
        ]
        return f"{metric}, the best model with its 95 % interval. {'; '.join(said)}."

    def _show_users(self) -> None:
        if self._is_filling:
            return
        group, models = self.group, list(self.models.value)
        is_in = (self.groups[self.by.value] == group).fill_null(False)
        rows = self._by_user().filter(is_in).select(USER, *models)
        first, others = models[0], models[1:]
        down = is_lower_better(self.metric.value)
        best = pl.min_horizontal if down else pl.max_horizontal
        behind = pl.col(first) - best(others) if others else pl.col(first)
        rows = rows.with_columns(pl.col(*models).fill_nan(None)).with_columns(behind=behind)
        few = rows.sort("behind", descending=down, nulls_last=True, maintain_order=True)
        few = few.head(_USERS)
        worst = "highest" if down else "lowest"
        order = f"where {first} is furthest behind come first" if others else f"the {worst} first"
        self.listed.value = table(
            f"{words(group, 40)}: {len(few)} of {len(rows):,} users, {words(order)}",
            {"user": few[USER].to_list()} | {name: _cells(few[name]) for name in models},
        )
        self.say(self.alt)
        self.follow()


def compare_models(
    evaluation: Evaluation,
    *,
    truth: HeldOut | None = None,
    features: Features | None = None,
    groups: Mapping[str, Mapping[str, str]] | None = None,
) -> ModelComparison:
    """Models, a metric and groups of users to choose; means with 95 % intervals, and the users.

    Args:
        evaluation: What `evaluate` returned.
        truth: The held-out users; they give groups by the length of the history, in quarters.
        features: The catalogue; with `truth` it gives groups by the most frequent interest of the
            history.
        groups: Further divisions: name -> (user -> group); a user without a group is left out.

    A click on a group in the figure lists its users. Intervals are over the users of a group, of
    the mean over seeds (`comparison.bootstrap_intervals`).

    Raises:
        ValueError: If `truth` does not hold exactly the users of the evaluation, or a division of
            `groups` none of them.

    Example:
        >>> from interestkit import clean, evaluate, fit_features, held_out, simulate
        >>> from interestkit import MostFrequent, Popular, temporal_split
        >>> log, _ = clean(simulate(num_users=50, num_items=20, num_interests=4, seed=1))
        >>> split = temporal_split(log, min_judged=0)
        >>> features = fit_features(split.before("test"), split.items)
        >>> known = features.histories(split.before("test"))
        >>> rankers = {"own": MostFrequent(features=features, log=known)}
        >>> rankers["popular"] = Popular(features=features, log=known)
        >>> truth = held_out(features, split)
        >>> evaluation = evaluate(rankers, truth, features, k=5, progress=False)
        >>> widget = compare_models(evaluation, truth=truth, features=features)
        >>> widget.by.value = "main interest"
        >>> print(widget.said[:13])
        items: NDCG@5
    """
    users = evaluation.per_user[USER].unique(maintain_order=True)
    found: dict[str, pl.Series] = {}
    if truth is not None:
        if sorted(users) != sorted(map(str, truth.histories.users)):
            raise ValueError("truth must hold the users of the evaluation, got others")
        users = pl.Series(USER, truth.histories.users, dtype=pl.String)
        found["length of history"] = _by_length(truth)
        if features is not None:
            found["main interest"] = _by_interest(truth, features)
    for name, members in (groups or {}).items():
        found[name] = users.replace_strict(dict(members), default=None, return_dtype=pl.String)
        if found[name].is_null().all():
            raise ValueError(f"groups[{name!r}] must hold a judged user, got none of {len(users)}")
    return ModelComparison(evaluation, found, users)


def _by_length(truth: HeldOut) -> pl.Series:
    """Quarters of the users by the number of events of their histories."""
    lengths = truth.histories.lengths
    edges = np.unique(np.quantile(lengths, _SHARES, method="nearest"))
    quarter = np.clip(np.searchsorted(edges, lengths, side="left"), 1, max(len(edges) - 1, 1))
    names = {}
    for number in np.unique(quarter):
        own = lengths[quarter == number]
        names[number] = f"{number}. {own.min():,}–{own.max():,} events"
    return pl.Series([names[number] for number in quarter])


def _by_interest(truth: HeldOut, features: Features) -> pl.Series:
    """The most frequent interest of each history; the rare ones share a group."""
    sums = label_sums(features, truth.histories)
    names = main_interest(sums, features).fill_null("(none)").alias("name")
    common = names.value_counts().sort("count", "name", descending=[True, False])
    kept = common["name"].head(_INTERESTS)
    return names.replace_strict(kept, kept, default="other")


def _value_table(rows: pl.DataFrame, metric: str) -> str:
    return table(
        f"{metric} with 95 % intervals over users",
        {
            "group": [words(name, 40) for name in rows["group"]],
            "model": rows["model"].to_list(),
            "mean": _cells(rows["value"]),
            "interval": [
                f"[{low:z.4f}, {high:z.4f}]" for low, high in rows.select("low", "high").iter_rows()
            ],
            "users": rows["users"].to_list(),
        },
    )


def _cells(values: pl.Series) -> list[str]:
    return ["–" if v is None or np.isnan(v) else f"{v:.4f}" for v in values]
