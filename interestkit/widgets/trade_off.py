"""Relevance against diversity, novelty, coverage, calibration: a slider, metrics and a list."""

import ipywidgets as w
import numpy as np
import polars as pl
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from interestkit.baselines import Ranker
from interestkit.features import Features
from interestkit.heldout import HeldOut
from interestkit.markup import words
from interestkit.plots import tradeoff_path
from interestkit.plots.compared import with_unit
from interestkit.reranking import GOALS, MEASURED_BY, TradeOffs, trade_offs
from interestkit.widgets.parts import Finder, Panel, labelled, listed, picture, side_by_side, table


class TradeOff(Panel):
    """A goal and its strength to choose, with what they do to lists; `trade_off` makes it."""

    def __init__(self, found: TradeOffs, features: Features) -> None:
        super().__init__("What does relevance cost?")
        self.found, self.features = found, features
        self._pictures: dict[tuple[str, float], bytes] = {}
        self.user = 0
        self.goal = w.Dropdown(options=GOALS, **labelled("Towards"))
        self.slider = w.SelectionSlider(
            options=[(f"{100 * strength:.0f} %", strength) for strength in found.strengths],
            **labelled("Weight"),
        )
        self.finder = Finder(found.histories.users, what="user", on_pick=self._choose, rows=5)
        self.metrics, self.list = self.tables = w.HTML(), w.HTML()
        self.parts = (
            side_by_side(w.VBox([self.goal, self.slider, self.finder.box]), self.metrics),
            self.figure,
            self.list,
        )
        for control in (self.goal, self.slider):
            control.observe(lambda _: self._show(), "value")
        self._show()

    def _choose(self, user: int) -> None:
        self.user = user
        self._show()

    def _show(self) -> None:
        goal, strength = self.goal.value, self.slider.value
        self._values = self._now()
        key = (goal, strength)
        if key not in self._pictures:
            self._pictures[key] = self._picture(goal, strength)
        self.show_picture(self._pictures[key], self._in_words())
        self.metrics.value = self._metric_table()
        self.list.value = self._list_table()
        self.say(self.alt)
        self.follow()

    def _now(self) -> pl.DataFrame:
        """Each metric as it is, and as it is for the model's own lists."""
        rows = self.found.table.filter(pl.col("goal") == self.goal.value)
        now = rows.filter(pl.col("strength") == self.slider.value)
        start = rows.filter(pl.col("strength") == self.found.strengths[0])
        return now.join(start.select("metric", start="value"), on="metric", maintain_order="left")

    def _picture(self, goal: str, strength: float) -> bytes:
        rows = self.found.table.filter(pl.col("goal") == goal)
        ndcg = self.found.table.filter(pl.col("metric") == "NDCG")["value"].fill_nan(None)
        top, measures = 1.15 * (ndcg.max() or 1.0), dict.fromkeys(MEASURED_BY.values())

        def paint(figure: Figure) -> None:
            axes = figure.subplots(1, len(measures), sharey=True)
            for ax, name in zip(axes, measures, strict=True):
                tradeoff_path(rows, x=name, strength=strength, ax=ax)
                ax.set(title="", ylim=(0, top))
                ax.xaxis.set_major_locator(MaxNLocator(3))
                ax.label_outer()
            title = (
                f"NDCG@{self.found.k} against each measure, more weight on {goal} along the line"
            )
            figure.suptitle(f"{title}; filled: {strength:.0%}", x=0.01, ha="left", fontsize=10)

        return picture(paint, size=(9.6, 3))

    def _in_words(self) -> str:
        said = [
            f"{name} {_number(value)} ({_number(value - start, '+')})"
            for name, value, start in self._values.select("metric", "value", "start").iter_rows()
        ]
        return (
            f"Weight {100 * self.slider.value:.0f} % on {self.goal.value}; means over "
            f"{len(self.found.histories):,} users, and the change to the model's own lists: "
            f"{', '.join(said)}."
        )

    def _metric_table(self) -> str:
        rows = self._values
        return table(
            f"Lists of {self.found.k} new items, {len(self.found.histories):,} users",
            {
                "metric": list(map(with_unit, rows["metric"])),
                "model alone": list(map(_number, rows["start"])),
                "now": list(map(_number, rows["value"])),
                "change": [_number(change, "+") for change in rows["value"] - rows["start"]],
            },
        )

    def _list_table(self) -> str:
        goal = GOALS.index(self.goal.value)
        strength = self.found.strengths.index(self.slider.value)
        start, codes = (self.found.codes[goal, n, self.user] for n in (0, strength))
        places = {int(code): place for place, code in enumerate(start, 1)}
        codes = codes[codes >= 0]
        items = self.features.items[codes]
        return table(
            f"The list of user {words(self.found.histories.users[self.user], 30)}",
            {
                **listed(items),
                "events": [f"{number:,}" for number in items["events"]],
                "rank of the model": [str(places.get(code, "below")) for code in codes.tolist()],
            },
        )


def trade_off(
    ranker: Ranker,
    truth: HeldOut,
    features: Features,
    *,
    k: int = 10,
    candidates: int = 100,
    max_users: int = 5_000,
) -> TradeOff:
    """A slider from relevance to diversity, novelty, coverage, calibration; metrics follow.

    All lists and metrics are computed once, by `reranking.trade_offs`, which defines them, the
    arguments and the errors.

    Example:
        >>> from interestkit import clean, fit_features, held_out, Popular, simulate, temporal_split
        >>> log, _ = clean(simulate(num_users=50, num_items=20, num_interests=4, seed=1))
        >>> split = temporal_split(log, min_judged=0)
        >>> features = fit_features(split.before("test"), split.items)
        >>> popular = Popular(features=features, log=features.histories(split.before("test")))
        >>> widget = trade_off(popular, held_out(features, split), features, k=3, candidates=9)
        >>> widget.slider.value = 0.5
        >>> print(widget.said[:24])
        Weight 50 % on diversity
    """
    settings = {"k": k, "candidates": candidates, "max_users": max_users}
    return TradeOff(trade_offs(ranker, truth, features, **settings), features)


def _number(value: float, sign: str = "") -> str:
    """A number with four digits behind the point, or two where it is large."""
    if np.isnan(value):
        return "undefined"
    return f"{value:{sign}.{2 if abs(value) >= 2 else 4}f}"
