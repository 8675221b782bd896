"""Items and users as points of a plane, where near is alike."""

from pathlib import Path

import anywidget
import ipywidgets as w
import numpy as np
import polars as pl
import traitlets
from jaxtyping import Int

from interestkit.counting import evenly
from interestkit.heldout import pairs_of
from interestkit.histories import Histories
from interestkit.markup import Markup, escaped, words
from interestkit.plots import interest_points
from interestkit.plots.paths import OTHER_POINTS, POINT_COLOURS, frequent_interests
from interestkit.prediction import Predictor
from interestkit.projection import project
from interestkit.trying import item_vectors
from interestkit.widgets.parts import (
    Finder,
    Panel,
    labelled,
    main_interest,
    picture,
    side_by_side,
    table,
    titles_of,
)

_LISTED = 30  # chosen points that are listed
_CLOSE = 8.0  # zoom at which a point that was found is shown


class _Canvas(anywidget.AnyWidget):
    """The points in the browser."""

    _esm = Path(__file__).with_name("map.js")
    x = traitlets.Bytes().tag(sync=True)
    y = traitlets.Bytes().tag(sync=True)
    group = traitlets.Bytes().tag(sync=True)
    is_user = traitlets.Bytes().tag(sync=True)
    names = traitlets.List().tag(sync=True)
    colours = traitlets.List().tag(sync=True)
    label = traitlets.Unicode().tag(sync=True)
    highlight = traitlets.Int(-1).tag(sync=True)
    view = traitlets.List([0.0, 0.0, 1.0]).tag(sync=True)
    # the browser's bytes come as a view of memory
    selected = traitlets.Bytes(b"").tag(sync=True, from_json=lambda sent, _: bytes(sent))


class InterestMap(Panel):
    """Points to look at, search, and choose by click or lasso; `interest_map` makes it.

    Args:
        points: Columns kind ("item" or "user"), name, interest, events, x, y.
    """

    def __init__(self, points: pl.DataFrame) -> None:
        super().__init__("A map of items and users")
        self.points = points
        self.interests = frequent_interests(points)
        number = {name: n for n, name in enumerate(self.interests)}
        group = [number.get(name, len(number)) for name in points["interest"]]
        kinds = [(points["kind"] == kind).sum() for kind in ("item", "user")]
        self.label = (
            f"Map of {kinds[0]:,} items and {kinds[1]:,} users, coloured by interest. Arrow keys "
            "move it, plus and minus zoom, 0 shows all, Enter chooses the point in the middle."
        )
        self.canvas = _Canvas(
            x=points["x"].cast(pl.Float32).to_numpy().tobytes(),
            y=points["y"].cast(pl.Float32).to_numpy().tobytes(),
            group=np.array(group, np.uint16).tobytes(),
            is_user=(points["kind"] == "user").to_numpy().astype(np.uint8).tobytes(),
            names=[
                f"{words(name)} · {words(interest or 'no interest', 30)}"
                for name, interest in points.select("name", "interest").iter_rows()
            ],
            colours=list(POINT_COLOURS[: len(self.interests)]),
            label=self.label,
        )
        options = [("all, by colour", -1), *((words(n, 40), i) for n, i in number.items())]
        self.interest = w.Dropdown(options=options, **labelled("Interest"))
        self.finder = Finder(points["name"], what="point", on_pick=self.show_point, rows=4)
        (self.listed,) = self.tables = (w.HTML(),)
        self.interest.observe(self._highlight, "value")
        self.canvas.observe(lambda _: self._list(), "selected")
        legend = w.HTML(self._legend())
        self.parts = (
            side_by_side(self.finder.box, w.VBox([self.interest, legend])),
            self.canvas,
            self.listed,
        )
        said = [f"{name} ({(points['interest'] == name).sum():,})" for name in self.interests[:5]]
        alt = f"{self.label.partition(' Arrow')[0]} Most frequent: "
        alt += f"{', '.join(words(name, 40) for name in said)}."
        paint = lambda figure: interest_points(points, ax=figure.subplots())  # noqa: E731
        self.show_picture(picture(paint, size=(8, 5)), alt)
        self._list()

    @property
    def selected(self) -> Int[np.ndarray, " chosen"]:
        """Rows of `points` that are chosen, by click, by lasso or by setting this."""
        return np.frombuffer(self.canvas.selected, np.uint32)

    @selected.setter
    def selected(self, rows: Int[np.ndarray, " chosen"]) -> None:
        self.canvas.selected = np.asarray(rows, np.uint32).tobytes()

    def show_point(self, row: int) -> None:
        """Go near to a point and choose it."""
        self.canvas.view = [float(self.points["x"][row]), float(self.points["y"][row]), _CLOSE]
        self.selected = [row]

    def _highlight(self, change) -> None:
        self.canvas.highlight = change["new"]
        if (number := change["new"]) >= 0:
            name = self.interests[number]
            self.selected = (self.points["interest"] == name).arg_true().to_numpy()

    def _legend(self) -> str:
        names = [*self.interests[: len(POINT_COLOURS)], "other"]
        colours = [*POINT_COLOURS[: len(names) - 1], OTHER_POINTS]
        parts = [
            f'<span style="display:inline-block;width:.8em;height:.8em;background-color:{colour};'
            f'border:1px solid #888" '
            f'aria-hidden="true"></span> {escaped(name, 30)}'
            for name, colour in zip(names, colours, strict=True)
        ]
        return "<br>".join([*parts, "disc: item, square: user"])

    def _list(self) -> None:
        rows = self.points[self.selected.astype(np.int64)]
        first = rows.head(_LISTED)
        hint = "Click a point, draw a lasso, or search for a name to list points here."
        self.listed.value = (
            table(
                f"{len(first)} of {len(rows):,} chosen points",
                {
                    "kind": first["kind"].to_list(),
                    "name": first["name"].to_list(),
                    "interest": first["interest"].to_list(),
                    "events": [f"{number:,}" for number in first["events"]],
                },
            )
            if len(rows)
            else Markup(f"<p>{hint}</p>")
        )
        self.say(f"{len(rows):,} of {len(self.points):,} points are chosen.")
        self.follow()


def interest_map(
    predictor: Predictor,
    histories: Histories | None = None,
    *,
    num_items: int = 2_000,
    num_users: int = 500,
    seed: int = 0,
) -> InterestMap:
    """Items and users in two dimensions, coloured by interest; hover for titles, click to list.

    An item stands for its vector (`trying.item_vectors`), a user for the mean of the vectors of
    the history's events; `projection.project` brings both to the plane together.

    Args:
        predictor: The model.
        histories: The users; None draws items alone.
        num_items: Most frequent items that are drawn. Projecting 3,000 points takes seconds,
            50,000 take minutes.
        num_users: Users that are drawn, evenly taken from those with a history.
        seed: Seed of the projection.

    Example:
        >>> from interestkit import fit, fit_features, simulate
        >>> log = simulate(num_users=40, num_items=30, num_bots=0, faults=0)
        >>> features = fit_features(log.events, log.items)
        >>> histories = features.histories(log.events)
        >>> model = fit(features, histories, stop_after=1, progress=False, item_dim=8).model
        >>> widget = interest_map(Predictor(features=features, model=model), histories)
        >>> widget.selected = [0, 1]
        >>> len(widget.points), widget.said
        (70, '2 of 70 points are chosen.')
    """
    features = predictor.features
    items = features.by_frequency[:num_items]
    vectors, labels = item_vectors(predictor), features.item_interests
    frequent = features.items[items]
    parts = [_points("item", titles_of(frequent), frequent["events"])]
    everything = [(vectors[items], labels[items])]
    if histories is not None:
        pairs = pairs_of(features, histories)
        sums = [pairs @ values for values in (vectors, labels)]
        known = np.flatnonzero(histories.lengths)
        some = known[evenly(len(known), num_users)]
        names = pl.Series(histories.users[some], dtype=pl.String)
        parts.append(_points("user", names, pl.Series(histories.lengths[some])))
        everything.append((sums[0][some], sums[1][some]))
    vectors, labels = (np.concatenate(arrays) for arrays in zip(*everything, strict=True))
    places = project(vectors, seed=seed)
    names = main_interest(labels, features)
    points = pl.concat(parts).with_columns(interest=names, x=places[:, 0], y=places[:, 1])
    return InterestMap(points)


def _points(kind: str, names: pl.Series, events: pl.Series) -> pl.DataFrame:
    table = pl.DataFrame({"name": names, "events": events.cast(pl.Int64)})
    return table.with_columns(kind=pl.lit(kind))
