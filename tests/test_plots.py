import re
import warnings
from datetime import UTC, datetime, timedelta
from itertools import combinations, pairwise

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import polars as pl
import pytest
from contrast import READABLE, contrast, texts_of
from matplotlib.colors import to_hex, to_rgb
from matplotlib.text import Text
from test_plots_explored import TREE
from test_plots_updates import CURVE as PERIODS
from test_plots_updates import DRIFT

from interestkit import plots
from interestkit.plots.drawing import CYCLE, GREEN, GREY, percent, shown
from interestkit.schema import EVENT_COLUMNS, ITEM_COLUMNS

START = datetime(2024, 1, 1, tzinfo=UTC)
HOSTILE = [
    "$x_$ and $\\frac{",
    "<script>alert(1)</script>",
    "الف ليلة وليلة",
    "紅樓夢",
    "👩‍👩‍👧 family 🎬",
    "long " * 2_000,
    "_hidden",
    "",
    "two\nlines\x00",
]


@pytest.fixture(autouse=True)
def styled():
    """The house style for one test, and no figure left open after it."""
    with mpl.rc_context():
        plots.use_style()
        yield
    plt.close("all")


def make_events(rows):
    """Events from (user, item, days after START, kind)."""
    return pl.DataFrame(
        [
            (user, item, START + timedelta(days=day), kind, None, None)
            for user, item, day, kind in rows
        ],
        schema=EVENT_COLUMNS,
        orient="row",
    )


EVENTS = make_events(
    [
        ("ann", "a", 0.0, "view"),
        ("ann", "a", 0.5, "click"),
        ("ann", "b", 2.0, "view"),
        ("bob", "a", 9.0, "view"),
    ]
)
ITEMS = pl.DataFrame(
    {"item": ["a", "b", "c"], "interests": [["x", "y"], ["x"], []], "events": [3, 5, 2]}
)
REPORT = pl.DataFrame(
    {
        "rule": ["read", "missing_user", "duplicate"],
        "events_dropped": [0, 0, 40],
        "events_left": [1_000, 1_000, 960],
    }
)
SESSIONS = EVENTS.with_columns(session=pl.Series([0, 0, 1, 0]))
CURVES = pl.DataFrame(
    {
        "seed": [0, 0, 0, 1, 1, 1],
        "epoch": [1, 2, 3, 1, 2, 3],
        "loss_new": [3.0, 2.0, 1.0, 3.5, 2.5, 1.5],
        "score": [0.1, 0.3, 0.2, 0.1, 0.2, 0.3],
    }
)
INTERESTS = pl.DataFrame(
    {
        "interest": ["x", "y", "z"],
        "probability": [0.2, 0.5, 0.3],
        "share": [0.0, 0.6, 0.4],
        "own": [0.1, 0.1, 0.8],
    }
)


def make_table(models=("popular", "model", "own")):
    """Rows as of `Evaluation.table`; the n-th model has NDCG 0.1 n."""
    rows = []
    for number, model in enumerate(models, start=1):
        spread, seeds = (0.01, 5) if model == "model" else (None, 1)
        for metric, value in (("NDCG@10", 0.1 * number), ("alpha-NDCG@10", 0.05 * number)):
            rows.append(
                ("items", model, metric, value, value - 0.02, value + 0.02, seeds, spread, 70)
            )
        rows.append(("interests", model, "log loss", 2.0 + number, 1.9, 9.0, 1, None, 70))
        rows.append(
            ("items", model, "catalogue coverage@10", 0.2 * number, None, None, 1, None, 70)
        )
        rows.append(("items", model, "user coverage@10", 1.0, 1.0, 1.0, 1, None, 70))
    columns = "target model metric value low high seeds spread users".split()
    return pl.DataFrame(rows, schema=columns, orient="row", infer_schema_length=None)


def make_gains(others=("popular", "own")):
    """Rows as of `Evaluation.gains`; only the accuracy is no certain difference."""
    rows = []
    for number, over in enumerate(others, start=1):
        rows.append(("items", "NDCG@10", over, 0.1 * number, 0.05, 0.3, 70, 0.049))
        rows.append(("interests", "accuracy", over, -0.1, -0.2, 0.05, 70, 0.05))
        rows.append(("interests", "log loss", over, -0.7, -0.9, -0.6, 70, 0.001))
    columns = "target metric over gain low high users p_holm".split()
    return pl.DataFrame(rows, schema=columns, orient="row")


def make_reliability(models=("model", "own")):
    """Rows as of `Evaluation.reliability`, two seeds, three bins, one of them empty."""
    rows = []
    for model in models:
        rows += [(model, 0, 0.0, 0.5, 40, 0.3, 0.2), (model, 0, 0.5, 1.0, 10, 0.7, 0.9)]
        rows += [(model, 1, 0.0, 0.5, 20, 0.3, 0.5), (model, 1, 0.5, 1.0, 30, 0.9, 0.7)]
        rows.append((model, 0, 1.0, 1.5, 0, np.nan, np.nan))
    columns = "model seed low high count confidence accuracy".split()
    return pl.DataFrame(rows, schema=columns, orient="row")


PATH = pl.DataFrame(
    {
        "strength": [0.0, 0.5, 0.0, 0.5],
        "metric": ["NDCG", "NDCG", "novelty", "novelty"],
        "value": [0.3, 0.2, 8.0, 9.5],
    }
)
GROUPS = pl.DataFrame(
    {
        "group": ["all", "all", "few events", "few events"],
        "model": ["model", "popular", "model", "popular"],
        "value": [0.3, 0.2, 0.1, 0.2],
        "low": [0.2, 0.1, 0.0, 0.1],
        "high": [0.4, 0.3, 0.2, 0.3],
    }
)
FOUND = pl.DataFrame(
    {
        "time": ["day", "none", "day", "none"],
        "min_item_users": [1, 1, None, None],
        "rate": [0.9, 0.2, 0.004, 0.0],
        "low": [0.8, 0.1, 0.002, 0.0],
        "high": [0.95, 0.3, 0.02, 0.003],
    }
)
POINTS = pl.DataFrame(
    {
        "kind": ["item", "item", "user"],
        "interest": ["x", None, "x"],
        "x": [0.0, 1.0, -1.0],
        "y": [0.5, 0.0, 0.5],
    }
)


REASONS = pl.DataFrame(
    {
        "place": [1, 2, 3],
        "item": ["a", "b", "c"],
        "title": ["A", None, "C"],
        "time": [START, START + timedelta(days=1), START + timedelta(days=2)],
        "without": [np.log(2), -np.log(4), 0.001],
    }
)
CHANGING = pl.DataFrame({"place": [3]})
REMOVED = pl.DataFrame(
    [
        (kind, order, share, value, value - 0.05, value + 0.05)
        for kind in ("deletion", "insertion")
        for order, value in (("without", 0.2), ("random", 0.4))
        for share in (0.0, 1.0)
    ],
    schema=["kind", "order", "share", "value", "low", "high"],
    orient="row",
)
HELD = pl.DataFrame(
    {
        "group": ["all", "1"],
        "users": [20, 10],
        "events": [7.0, 3.0],
        "covered": [0.88, 0.8],
        "low": [0.85, 0.7],
        "high": [0.92, 0.9],
        "size": [3.24, 4.0],
        "nominal": [0.9, 0.9],
    }
)


# Every function with a table to draw, the same table without rows, and what of it are labels.
ROC = pl.DataFrame({"false_positives": [0.001, 1.0], "found": [0.01, 1.0]})
PROMISED = pl.DataFrame({"target": "items", "metric": "NDCG@10", "model": ["private", "plain"]})
PROMISED = PROMISED.with_columns(epsilon=pl.Series([1.0, 8.0]), value=pl.Series([0.1, 0.2]))
FRONT = pl.DataFrame(
    [
        *[("MMR", 0.0, "NDCG", 0.5), ("MMR", 0.0, "miscalibration", 1.0)],
        *[("MMR", 1.0, "NDCG", 0.3), ("MMR", 1.0, "miscalibration", 0.6)],
        *[("Steck", 1.0, "NDCG", 0.4), ("Steck", 1.0, "miscalibration", 0.2)],
    ],
    schema=["goal", "strength", "metric", "value"],
    orient="row",
)
LOOP = pl.DataFrame({"policy": ["a", "a", "b", "b"], "round": [1, 2, 1, 2], "metric": "Gini"})
LOOP = LOOP.with_columns(value=pl.Series([0.3, 0.5, 0.3, 0.4]))
LOOP = LOOP.with_columns(low=pl.col("value") - 0.1, high=pl.col("value") + 0.1)


def _plain(table):
    return table.with_columns(pl.col("name").str.replace_all("$", "", literal=True))


DRAWN = {
    "interest_tree": lambda ax=None: plots.interest_tree(_plain(TREE), ax=ax),
    "interest_drift": lambda ax=None: plots.interest_drift(_plain(DRIFT), ax=ax),
    "prequential_curve": lambda ax=None: plots.prequential_curve(PERIODS, "items", ax=ax),
    "pareto_front": lambda ax=None: plots.pareto_front(FRONT, x="miscalibration", ax=ax),
    "feedback_rounds": lambda ax=None: plots.feedback_rounds(LOOP, "Gini", ax=ax),
    "cleaning": lambda ax=None: plots.cleaning(REPORT, ax=ax),
    "activity": lambda ax=None: plots.activity(EVENTS, ax=ax),
    "long_tail": lambda ax=None: plots.long_tail(EVENTS, ax=ax),
    "membership": lambda ax=None: plots.membership({"plain": ROC}, ax=ax),
    "privacy_curve": lambda ax=None: plots.privacy_curve(PROMISED, "items", ax=ax),
    "sessions": lambda ax=None: plots.sessions(SESSIONS, ax=ax),
    "user_timeline": lambda ax=None: plots.user_timeline(EVENTS, ITEMS, "ann", ax=ax),
    "history_lengths": lambda ax=None: plots.history_lengths(np.array([0, 1, 5]), ax=ax),
    "interest_sizes": lambda ax=None: plots.interest_sizes(ITEMS, ax=ax),
    "decay": lambda ax=None: plots.decay([7, 30], initial_days=[5, 40], ax=ax),
    "training_curves": lambda ax=None: plots.training_curves(CURVES, ax=ax),
    "interest_bars": lambda ax=None: plots.interest_bars(INTERESTS, ax=ax),
    "comparison": lambda ax=None: plots.comparison(make_table(), "NDCG@10", "items", ax=ax),
    "gains": lambda ax=None: plots.gains(make_gains(), ax=ax),
    "tradeoff": lambda ax=None: plots.tradeoff(make_table(), ax=ax),
    "reliability": lambda ax=None: plots.reliability(make_reliability(), ax=ax),
    "coverage": lambda ax=None: plots.coverage(make_table(), ax=ax),
    "tradeoff_path": lambda ax=None: plots.tradeoff_path(PATH, x="novelty", strength=0.5, ax=ax),
    "interest_points": lambda ax=None: plots.interest_points(POINTS, ax=ax),
    "event_reasons": lambda ax=None: plots.event_reasons(
        REASONS, target="x", changing=CHANGING, top=2, ax=ax
    ),
    "removal_curves": lambda ax=None: plots.removal_curves(REMOVED, ax=ax),
    "set_coverage": lambda ax=None: plots.set_coverage(HELD, ax=ax),
    "user_groups": lambda ax=None: plots.user_groups(GROUPS, what="NDCG@10", ax=ax),
    "reidentification": lambda ax=None: plots.reidentification(FOUND, ax=ax),
}
EMPTY = {
    "interest_tree": lambda: plots.interest_tree(TREE.clear()),
    "interest_drift": lambda: plots.interest_drift(DRIFT.clear()),
    "prequential_curve": lambda: plots.prequential_curve(PERIODS.clear(), "items"),
    "pareto_front": lambda: plots.pareto_front(FRONT.clear()),
    "feedback_rounds": lambda: plots.feedback_rounds(LOOP.clear(), "Gini"),
    "cleaning": lambda: plots.cleaning(REPORT.clear()),
    "activity": lambda: plots.activity(EVENTS.clear()),
    "long_tail": lambda: plots.long_tail(EVENTS.clear()),
    "membership": lambda: plots.membership({}),
    "privacy_curve": lambda: plots.privacy_curve(PROMISED.clear(), "items"),
    "sessions": lambda: plots.sessions(SESSIONS.clear()),
    "user_timeline": lambda: plots.user_timeline(EVENTS.clear(), ITEMS, "ann"),
    "history_lengths": lambda: plots.history_lengths(np.array([], int)),
    "interest_sizes": lambda: plots.interest_sizes(ITEMS.clear()),
    "decay": lambda: plots.decay([]),
    "training_curves": lambda: plots.training_curves(CURVES.clear()),
    "interest_bars": lambda: plots.interest_bars(INTERESTS.clear()),
    "comparison": lambda: plots.comparison(make_table().clear(), "NDCG@10", "items"),
    "gains": lambda: plots.gains(make_gains().clear()),
    "tradeoff": lambda: plots.tradeoff(make_table().clear()),
    "reliability": lambda: plots.reliability(make_reliability().clear()),
    "coverage": lambda: plots.coverage(make_table().clear()),
    "tradeoff_path": lambda: plots.tradeoff_path(PATH.clear(), x="novelty"),
    "interest_points": lambda: plots.interest_points(POINTS.clear()),
    "user_groups": lambda: plots.user_groups(GROUPS.clear()),
    "reidentification": lambda: plots.reidentification(FOUND.clear()),
    "event_reasons": lambda: plots.event_reasons(REASONS.clear()),
    "removal_curves": lambda: plots.removal_curves(REMOVED.clear()),
    "set_coverage": lambda: plots.set_coverage(HELD.clear()),
}


def texts(ax):
    return [text.get_text() for text in ax.findobj(Text)]


def row_labels(ax):
    return [label.get_text() for label in ax.get_yticklabels()]


def widths(ax):
    return [bar.get_width() for bar in ax.patches]


def dots(ax):
    """(x, y, colour) of every marker, from the top row down."""
    points = [
        (*line.get_xydata()[0], to_hex(line.get_color()).upper())
        for line in ax.lines
        if line.get_marker() not in ("None", "", None)
    ]
    return sorted(points, key=lambda point: point[1])


def test_every_public_figure_is_tried_here():
    figures = set(plots.__all__) - {"STYLE", "use_style", "colour_of"}
    several = {"search_trials"}  # more than one Axes: tests/test_plots_search.py
    assert figures - several == set(DRAWN) == set(EMPTY)


@pytest.mark.parametrize("name", DRAWN)
def test_figure_has_title_and_both_labels_and_draws_on_the_axes_given(name):
    figure, ax = plt.subplots()
    assert DRAWN[name](ax) is ax
    assert ax.get_title(loc="left")
    assert ax.get_xlabel()
    assert ax.get_ylabel()
    figure.canvas.draw()


@pytest.mark.parametrize("name", DRAWN)
def test_figure_makes_its_own_axes_and_reads_no_text_as_mathematics(name):
    ax = DRAWN[name]()
    ax.figure.canvas.draw()
    assert ax.figure.get_size_inches()[0] == 7
    assert not [text for text in texts(ax) if "$" in text]
    assert not any(text.get_parse_math() for text in ax.findobj(Text) if text.get_text())


@pytest.mark.parametrize("name", DRAWN)
def test_figure_draws_without_the_house_style(name):
    with mpl.rc_context():
        mpl.rcdefaults()
        DRAWN[name]().figure.canvas.draw()


@pytest.mark.parametrize("name", DRAWN)
def test_figure_has_the_house_style_and_leaves_that_of_the_process_alone(name):
    with mpl.rc_context():
        plt.style.use("dark_background")
        before = dict(mpl.rcParams)
        ax = DRAWN[name]()
        assert to_hex(ax.figure.get_facecolor()) == to_hex(ax.get_facecolor()) == "#ffffff"
        assert to_hex(ax.xaxis.label.get_color()) == "#000000"
        assert ax.title.get_fontfamily() == plots.drawing._style()["font.family"]
        assert dict(mpl.rcParams) == before


@pytest.mark.parametrize("name", DRAWN)
def test_text_of_a_figure_stands_out_from_what_is_under_it(name):
    found = dict(texts_of(DRAWN[name]().figure))
    assert len(found) > 3
    assert min(found.values()) >= READABLE, found


def test_text_on_a_dark_or_pale_ground_is_found():
    figure, ax = plt.subplots()
    ax.axvspan(0, 1, color="black")
    ax.text(0.5, 0.5, "dark", color="#0072B2")
    ax.text(0.5, 0.2, "pale", color="white", alpha=0.3)
    found = dict(texts_of(figure))
    assert found["dark"] == pytest.approx(contrast("#0072B2", "black"))
    assert found["pale"] == pytest.approx(contrast("#4D4D4D", "black"), rel=0.02)


def test_style_is_a_matplotlib_style_for_other_figures_too():
    with mpl.rc_context():
        mpl.rcdefaults()
        plt.style.use("interestkit.plots.house")
        assert {name: mpl.rcParams[name] for name in plots.STYLE} == plots.STYLE


# Machado, Oliveira and Fernandes (2009): linear RGB as those see it who lack one kind of cone.
SEEN_BY = {
    "all": np.eye(3),
    "protanope": [[0.152, 1.053, -0.205], [0.115, 0.786, 0.099], [-0.004, -0.048, 1.052]],
    "deuteranope": [[0.367, 0.861, -0.228], [0.280, 0.673, 0.047], [-0.012, 0.043, 0.969]],
    "tritanope": [[1.256, -0.077, -0.179], [-0.078, 0.931, 0.148], [0.005, 0.691, 0.304]],
}
XYZ = [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]


def lightness_and_hue(colour, seen=SEEN_BY["all"]):
    """CIE L*, a*, b* of a colour."""
    light = np.array(to_rgb(colour))
    light = np.where(light <= 0.04045, light / 12.92, ((light + 0.055) / 1.055) ** 2.4)
    x, y, z = XYZ @ np.clip(seen @ light, 0, 1) / [0.9505, 1, 1.089]
    x, y, z = (np.cbrt(v) if v > 0.008856 else 7.787 * v + 16 / 116 for v in (x, y, z))
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


@pytest.mark.parametrize("reader", SEEN_BY)
def test_colours_are_told_apart_by_every_reader(reader):
    seen = [lightness_and_hue(colour, np.array(SEEN_BY[reader])) for colour in CYCLE]
    distances = [np.linalg.norm(one - other) for one, other in combinations(seen, 2)]
    assert min(distances) > 15  # matplotlib's own ten come as near as 5


@pytest.mark.parametrize("name", EMPTY)
def test_figure_of_no_rows_says_so(name):
    ax = EMPTY[name]()
    ax.figure.canvas.draw()
    assert "nothing to show" in texts(ax)
    assert ax.get_xlabel()
    assert ax.get_ylabel()


def hostile_figures():
    """Each figure that shows text from data, with all of `HOSTILE` on it."""
    columns = {label: pl.lit(1.0) for label in HOSTILE}
    parts = {"interest": HOSTILE, "probability": [1 / 9] * 9, "share": [1 / 9] * 9}
    items = ITEMS.with_columns(interests=pl.lit(HOSTILE, dtype=pl.List(pl.String)))
    report = pl.DataFrame({"rule": HOSTILE, "events_dropped": range(9), "events_left": range(9)})
    return {
        "cleaning": plots.cleaning(report),
        "activity": plots.activity(
            EVENTS, cuts={label: START + timedelta(days=day) for day, label in enumerate(HOSTILE)}
        ),
        "user_timeline": plots.user_timeline(EVENTS, items, "ann"),
        "interest_sizes": plots.interest_sizes(items),
        "training_curves": plots.training_curves(
            CURVES.with_columns(**columns), columns=list(columns)
        ),
        "interest_bars": plots.interest_bars(pl.DataFrame(parts)),
        "comparison": plots.comparison(make_table(HOSTILE), "NDCG@10", "items"),
        "gains": plots.gains(make_gains(HOSTILE)),
        "tradeoff": plots.tradeoff(make_table(HOSTILE)),
        "reliability": plots.reliability(make_reliability(HOSTILE)),
        "coverage": plots.coverage(make_table(HOSTILE)),
    }


def test_any_text_is_drawn_without_warning():
    for name, ax in hostile_figures().items():
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            ax.figure.canvas.draw()
        drawn = [text.replace("_", " ") for text in texts(ax)]  # rules are drawn without "_"
        assert max(map(len, drawn)) < 100, name
        for label in HOSTILE:
            start = shown(label).replace("_", " ").strip()
            assert any(start in text for text in drawn), (name, label)


@pytest.mark.parametrize("user", HOSTILE)
def test_a_user_may_have_any_name(user):
    ax = plots.user_timeline(EVENTS.with_columns(user=pl.lit(user)), ITEMS, user)
    assert shown(user, 20) in ax.get_title(loc="left")
    assert not ax.title.get_parse_math()


@pytest.mark.parametrize(
    ("label", "expected"),
    [
        pytest.param("plain", "plain", id="short-stays"),
        pytest.param("x" * 28, "x" * 28, id="28-letters-fit"),
        pytest.param("x" * 29, "x" * 27 + "…", id="29-do-not"),
        pytest.param(" a\n\tb\x00 ", "a b", id="one-line"),
        pytest.param("$5 & $6", "$5 & $6", id="money"),
        pytest.param("_x", " _x", id="legends-drop-a-leading-underscore"),
        pytest.param("", "(no name)", id="empty"),
        pytest.param("Amélie", "Amélie", id="accents"),
        pytest.param("\U00012000", "□", id="cuneiform-is-a-box"),
    ],
)
def test_label_is_short_and_can_be_drawn(label, expected):
    assert shown(label) == expected


def test_percent_hides_no_small_share_and_no_small_rest():
    shares = (0, 0.0004, 0.001, 0.25, 0.999, 0.9996, 1)
    texts = ["0 %", "<0.1 %", "0.1 %", "25.0 %", "99.9 %", ">99.9 %", "100 %"]
    assert [percent(share) for share in shares] == texts


def test_model_has_one_colour_in_every_figure():
    table = make_table(["popular", "model", "some other"])
    for ax in (
        plots.comparison(table, "NDCG@10", "items"),
        plots.tradeoff(table),
        plots.coverage(table),
    ):
        colours = {colour for _, _, colour in dots(ax)}
        assert colours == {plots.colour_of(name) for name in ("popular", "model", "some other")}
    assert len(colours) == 3


def test_cleaning_shows_every_rule_and_what_is_left():
    ax = plots.cleaning(REPORT)
    assert row_labels(ax) == ["missing user", "duplicate"]
    assert widths(ax) == [0, 40]
    assert {"0 (0 %)", "40 (4.0 %)"} <= set(texts(ax))
    assert "960 of 1,000 events (96.0 %)" in ax.get_title(loc="left")


def test_activity_counts_every_day_of_the_span():
    ax = plots.activity(EVENTS)
    values, edges, _ = ax.patches[0].get_data()
    assert values.tolist() == [2, 0, 1, 0, 0, 0, 0, 0, 0, 1]
    first = 19_723  # days from 1970-01-01 to 2024-01-01: 54 * 365 + 13 leap days
    assert edges.tolist() == [first + day for day in range(11)]


@pytest.mark.parametrize(
    ("days", "unit"),
    [(1, "hour"), (30, "day"), (400, "week"), (4_000, "month"), (20_000, "year")],
)
def test_activity_chooses_its_bins_by_the_span(days, unit):
    ax = plots.activity(make_events([("u", "a", 0, "view"), ("u", "a", days, "view")]))
    assert ax.get_ylabel() == f"events per {unit} (number)"
    assert ax.patches[0].get_data()[0].sum() == 2
    ax.figure.canvas.draw()


def test_activity_draws_times_from_the_year_1_to_9999():
    years = pl.Series([datetime(year, 6, 1, tzinfo=UTC) for year in (1, 2024, 9999)])
    ax = plots.activity(pl.DataFrame({"time": years.cast(EVENT_COLUMNS["time"])}))
    ax.figure.canvas.draw()
    assert ax.patches[0].get_data()[0].sum() == 3


def test_activity_marks_the_parts_in_the_order_of_their_cuts():
    cuts = {"test": START + timedelta(days=8), "validation": START + timedelta(days=4)}
    ax = plots.activity(EVENTS, cuts=cuts)
    assert [text.get_text() for text in ax.texts] == ["training", "validation", "test"]
    assert [line.get_xdata()[0] for line in ax.lines] == [19_727, 19_731]


def test_long_tail_gini_and_curve_equal_hand_computed_values():
    ax = plots.long_tail(EVENTS)  # item a has 3 events, b has 1
    np.testing.assert_allclose(ax.lines[0].get_xydata(), [[0, 0], [50, 75], [100, 100]])
    # Area under the curve: 0.5 * 0.75 / 2 + 0.5 * (0.75 + 1) / 2 = 0.625; Gini 2 * 0.625 - 1.
    assert "items: the top 1 % have 1.5 % (Gini 0.25)" in texts(ax)


def test_sessions_are_counted_by_user_and_number():
    ax = plots.sessions(SESSIONS)  # ann has sessions of 2 and 1 events, bob of 1
    assert [bar.get_height() for bar in ax.patches] == [2, 1]
    assert ax.get_title(loc="left") == "3 sessions, median 1 (line)"


def test_history_lengths_fall_into_doubling_bins():
    ax = plots.history_lengths(np.array([0, 1, 2, 3, 4, 5, 8, 9]))
    assert [bar.get_height() for bar in ax.patches] == [1, 1, 2, 2, 1]
    labels = [label.get_text() for label in ax.get_xticklabels()]
    assert labels == ["1", "2", "3–4", "5–8", "9–16"]
    assert ax.get_title(loc="left") == "8 users, median 4 (line); 1 have none"
    # 4 is the second of the two numbers in bin 2, which reaches from 1.5 to 2.5.
    np.testing.assert_allclose(ax.lines[0].get_xdata(), 2.25)


def test_timeline_has_a_row_per_interest_and_a_mark_per_kind():
    ax = plots.user_timeline(EVENTS, ITEMS, "ann")
    assert row_labels(ax) == ["x (3)", "y (2)"]
    view, click = ax.collections
    # ann views a (x and y) on day 0 and b (x) on day 2, and clicks a half a day after the start.
    assert sorted(view.get_offsets().data.tolist()) == [[19_723, 0], [19_723, 1], [19_725, 0]]
    assert sorted(click.get_offsets().data.tolist()) == [[19_723.5, 0], [19_723.5, 1]]


def test_timeline_gathers_the_interests_that_are_left():
    ax = plots.user_timeline(EVENTS, ITEMS, "ann", max_interests=1)
    assert row_labels(ax) == ["x (3)", "1 other (2)"]


def test_timeline_keeps_events_whose_interest_is_unknown():
    ax = plots.user_timeline(EVENTS, pl.DataFrame(schema=ITEM_COLUMNS), "bob")
    assert row_labels(ax) == ["(interest unknown) (1)"]
    unlabelled = ITEMS.with_columns(interests=pl.lit([], pl.List(pl.String)))
    assert row_labels(plots.user_timeline(EVENTS, unlabelled, "bob")) == row_labels(ax)


def test_timeline_rejects_a_user_without_events():
    with pytest.raises(ValueError, match="user must have an event in the table, got 'eve'"):
        plots.user_timeline(EVENTS, ITEMS, "eve")


def test_interest_sizes_divide_an_item_among_its_interests():
    ax = plots.interest_sizes(ITEMS)  # x: 3 / 2 + 5 of 10 events, y: 3 / 2
    assert row_labels(ax) == ["x", "y"]
    np.testing.assert_allclose(widths(ax), [65, 15])
    assert ax.get_title(loc="left") == "All 2 interests: 80.0 % of events; 20.0 % have none"
    assert row_labels(plots.interest_sizes(ITEMS, top=1)) == ["x"]


def test_decay_leaves_37_percent_after_its_scale():
    ax = plots.decay([10])
    ages, left = ax.lines[0].get_data()
    np.testing.assert_allclose(np.interp(10, ages, left), 100 * np.exp(-1), rtol=1e-3)


def test_decay_mixes_scales_by_their_weights():
    ax = plots.decay([1, 100], [3, 1], initial_weights=[1, 1])
    (ages, learned), (_, before) = (line.get_data() for line in ax.lines)
    np.testing.assert_allclose(learned, 75 * np.exp(-ages) + 25 * np.exp(-ages / 100))
    np.testing.assert_allclose(before, 50 * np.exp(-ages) + 50 * np.exp(-ages / 100))
    assert [line.get_linestyle() for line in ax.lines] == ["-", "--"]


@pytest.mark.parametrize(
    ("scales", "weights", "message"),
    [
        ([0, 1], None, "must be above 0, got"),
        ([1, 2], [1, -1], r"weights must have a sum above 0, got \[1.0, -1.0\]"),
    ],
)
def test_decay_rejects_what_does_not_fade(scales, weights, message):
    with pytest.raises(ValueError, match=message):
        plots.decay(scales, weights)


def test_training_curves_draw_a_line_per_seed_and_its_best_epoch():
    ax = plots.training_curves(CURVES, columns="loss_new")
    lines = [line.get_xydata().tolist() for line in ax.lines]
    assert lines == [[[1, 3], [2, 2], [3, 1]], [[2, 2]], [[1, 3.5], [2, 2.5], [3, 1.5]], [[3, 1.5]]]
    assert ax.get_ylabel() == "loss (nats)"


def test_a_single_epoch_has_a_whole_number_on_its_axis():
    ax = plots.training_curves(CURVES.head(1))
    ax.figure.canvas.draw()
    low, high = ax.get_xlim()
    assert [tick for tick in ax.get_xticks() if low <= tick <= high] == [1]


def test_best_epoch_of_a_loss_without_score_is_the_lowest():
    ax = plots.training_curves(CURVES.drop("score", "seed").head(3), columns=["loss_new"])
    assert ax.lines[1].get_xydata().tolist() == [[3, 1]]


def test_interest_bars_are_ordered_by_probability():
    ax = plots.interest_bars(INTERESTS, top=2)
    assert row_labels(ax) == ["y", "z"]
    np.testing.assert_allclose(widths(ax), [50, 30, 60, 40, 10, 80])
    legend = [text.get_text() for text in ax.get_legend().get_texts()]
    assert legend == ["predicted probability", "share of what followed", "share of the history"]


def test_interest_bars_reject_more_than_one_user():
    with pytest.raises(ValueError, match="one row per interest"):
        plots.interest_bars(pl.concat([INTERESTS, INTERESTS]))


def test_comparison_has_the_best_on_top_with_interval_and_seeds():
    ax = plots.comparison(make_table(), "NDCG@10", "items")
    assert row_labels(ax) == ["own", "model (5 seeds ± 0.01)", "popular"]
    np.testing.assert_allclose([x for x, *_ in dots(ax)], [0.3, 0.2, 0.1])
    np.testing.assert_allclose(ax.lines[0].get_xdata(), [0.28, 0.32])
    assert row_labels(plots.comparison(make_table(), "log loss", "interests"))[0] == "popular"


@pytest.mark.parametrize(
    ("metric", "target", "message"),
    [
        ("NDCG@5", "items", "metric must be one of ['NDCG@10'"),
        ("NDCG@10", "users", "target must be one of ['items', 'interests'], got 'users'"),
    ],
)
def test_comparison_rejects_what_the_table_lacks(metric, target, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        plots.comparison(make_table(), metric, target)


def test_gains_draw_the_qualities_against_each_other_model():
    ax = plots.gains(make_gains())
    assert row_labels(ax) == ["items: NDCG@10", "interests: accuracy"]
    np.testing.assert_allclose([x for x, *_ in dots(ax)], [0.1, 0.2, -0.1, -0.1])
    assert ax.lines[0].get_xdata() == [0, 0]


def test_gain_in_a_loss_is_turned_so_that_right_is_better():
    ax = plots.gains(make_gains(["own"]), metric="log loss", target="interests")
    assert row_labels(ax) == ["interests: log loss (turned)"]
    assert dots(ax)[0][0] == 0.7
    assert ax.lines[1].get_xdata().tolist() == [0.6, 0.9]


def test_gains_are_hollow_where_holm_finds_no_difference():
    ax = plots.gains(make_gains(), metric=["NDCG@10", "accuracy", "log loss"])
    marks = [line for line in ax.lines if line.get_marker() not in ("None", "", None)]
    inside = {round(line.get_xdata()[0], 1): line.get_markerfacecolor() for line in marks}
    assert inside == {0.1: GREY, 0.2: GREEN, -0.1: "white", 0.7: GREEN}
    labels = [text.get_text() for text in ax.get_legend().get_texts()]
    assert labels == ["popular", "own", "hollow: p ≥ 0.05 (Holm)"]
    sure = plots.gains(make_gains(), metric="NDCG@10")
    assert [text.get_text() for text in sure.get_legend().get_texts()] == ["popular", "own"]


def test_gains_draw_no_infinite_difference():
    endless = make_gains(["own"]).with_columns(
        gain=pl.lit(-np.inf), low=pl.lit(-np.inf), high=0.0, p_holm=pl.lit(np.nan)
    )
    ax = plots.gains(endless, metric="log loss")
    ax.figure.canvas.draw()
    assert np.isnan(dots(ax)[0][0])


def test_comparison_says_infinite():
    table = make_table(["own"]).with_columns(value=pl.lit(np.inf))
    ax = plots.comparison(table, "log loss", "interests")
    ax.figure.canvas.draw()
    assert row_labels(ax) == ["own (infinite)"]


def test_tradeoff_has_a_mark_per_target_and_a_cross_of_intervals():
    table = pl.concat([make_table(), make_table().with_columns(target=pl.lit("new items"))])
    ax = plots.tradeoff(table, target=["items", "new items"])
    marks = [line for line in ax.lines if line.get_marker() not in ("None", "", None)]
    assert [line.get_marker() for line in marks] == ["o"] * 3 + ["s"] * 3
    legend = [text.get_text() for text in ax.get_legend().get_texts()]
    assert legend == ["items", "new items"]
    np.testing.assert_allclose(ax.lines[0].get_xdata(), [0.03, 0.07])  # alpha-NDCG of popular
    np.testing.assert_allclose(ax.lines[1].get_ydata(), [0.08, 0.12])
    assert "best: top right" in ax.get_title(loc="left")
    loss = plots.tradeoff(table, target="interests", x="log loss", y="log loss")
    assert "best" not in loss.get_title(loc="left")
    with pytest.raises(ValueError, match=r"target must be one of .* got 'users'"):
        plots.tradeoff(table, target=["items", "users"])


def test_reliability_joins_seeds_and_has_the_calibration_error():
    ax = plots.reliability(make_reliability(), model="own")
    (points,) = ax.collections
    # (40 x 0.2 + 20 x 0.5) / 60; (10 x 0.7 + 30 x 0.9) / 40 and (10 x 0.9 + 30 x 0.7) / 40
    np.testing.assert_allclose(points.get_offsets(), [[30, 30], [85, 75]])
    # (40 x 0.1 + 10 x 0.2 + 20 x 0.2 + 30 x 0.2) / 100
    assert "own\nECE 16.0 %, 50 users" in [text.get_text() for text in ax.get_legend().get_texts()]
    assert [text.get_text() for text in ax.texts] == ["30", "20"]  # users, not users x seeds
    assert len(plots.reliability(make_reliability()).texts) == 0
    with pytest.raises(ValueError, match=r"model must be one of \['model', 'own'\], got 'mine'"):
        plots.reliability(make_reliability(), model="mine")


def test_reliability_has_wilson_intervals():
    ax = plots.reliability(make_reliability(), model="own")
    low, high = ax.lines[1].get_ydata()  # line 0 is the diagonal
    # Wilson's ends solve (p - 0.3)^2 = 1.96^2 p (1 - p) / 30
    ends = np.roots([1 + 1.96**2 / 30, -(0.6 + 1.96**2 / 30), 0.3**2])
    np.testing.assert_allclose([low, high], 100 * np.sort(ends), rtol=1e-3)


def test_reliability_writes_numbers_of_users_without_overlap():
    users = [998, 999, 1_118, 9_949, 9_951, 123_456, 5] + [9_900] * 8
    edges = np.linspace(0, 1, 16)  # as `evaluate` has them
    table = pl.DataFrame({"low": edges[:-1], "high": edges[1:], "count": users})
    said = pl.col("low").alias("confidence")
    table = table.with_columns(said, model=pl.lit("own habits"), seed=0, accuracy=0.5)
    ax = plots.reliability(table)
    names = ["998", "999", "1.1k", "9.9k", "10k", "123k", "5"] + ["9.9k"] * 8
    assert [text.get_text() for text in ax.texts] == names
    ax.figure.canvas.draw()
    boxes = [text.get_window_extent() for text in ax.texts]
    gaps = [right.x0 - left.x1 for left, right in pairwise(boxes)]
    assert min(gaps) > 2  # pixels


def gaps_below(ax):
    """Pixels between the labels of the x axis that are drawn."""
    ax.figure.canvas.draw()
    inside = [x for x in ax.get_xticklabels() if ax.get_xlim()[0] <= x.get_position()[0]]
    inside = [label for label in inside if label.get_position()[0] <= ax.get_xlim()[1]]
    boxes = [label.get_window_extent() for label in inside if label.get_text()]
    return [right.x0 - left.x1 for left, right in pairwise(boxes)]


@pytest.mark.parametrize("most", [9, 1_400, 134_084, 9_876_543])
def test_long_numbers_below_the_bars_of_cleaning_stay_apart(most):
    table = pl.DataFrame(
        {"rule": ["read", "missing_user"], "events_dropped": [0, most], "events_left": [most, 0]}
    )
    assert min(gaps_below(plots.cleaning(table))) > 4


@pytest.mark.parametrize("most", [8, 128, 4_000, 900_000])
def test_long_numbers_below_doubling_bins_stay_apart(most):
    assert min(gaps_below(plots.history_lengths(np.array([1, 3, most])))) > 4


def test_gains_reject_a_metric_that_the_table_lacks():
    with pytest.raises(ValueError, match=r"metric must be one of .* got 'speed'"):
        plots.gains(make_gains(), metric=["NDCG@10", "speed"])


@pytest.mark.parametrize(
    "values",
    [
        pytest.param([0.1 + 0.001 * number for number in range(7)] + [0.9], id="low"),
        pytest.param([0.1] + [0.9 + 0.001 * number for number in range(7)], id="high"),
        pytest.param([0.5] * 8, id="all-the-same"),
    ],
)
def test_tradeoff_labels_every_model_without_overlap(values):
    names = [f"model {number}" for number in range(8)]
    value_of = dict(zip(names, values, strict=True))
    table = make_table(names).with_columns(value=pl.col("model").replace_strict(value_of))
    ax = plots.tradeoff(table)
    ax.figure.canvas.draw()
    np.testing.assert_allclose(sorted(y for _, y, _ in dots(ax)), values)
    labels = sorted(ax.texts, key=lambda text: text.xyann[1])
    assert [text.get_text() for text in labels] == names  # in the order of the points
    heights = np.array([text.xyann[1] for text in labels])
    assert heights.min() >= 0
    assert heights.max() <= 1
    pixels = np.diff(heights).min() * ax.bbox.height
    assert pixels > plt.rcParams["font.size"] * ax.figure.dpi / 72


def test_coverage_is_in_percent():
    ax = plots.coverage(make_table())
    assert row_labels(ax) == ["items: catalogue coverage@10", "items: user coverage@10"]
    np.testing.assert_allclose([x for x, *_ in dots(ax)], [20, 40, 60, 100, 100, 100])


@pytest.mark.parametrize("top", [0, -1])
def test_a_number_of_rows_must_be_positive(top):
    with pytest.raises(ValueError, match=f"top must be at least 1, got {top}"):
        plots.interest_sizes(ITEMS, top=top)


def test_a_missing_column_is_named():
    with pytest.raises(ValueError, match=re.escape("['session'] are missing")):
        plots.sessions(EVENTS)


def test_tradeoff_path_marks_the_strength_and_where_it_starts():
    marked = [point for point in dots(DRAWN["tradeoff_path"]()) if point[2] != GREY]
    assert sorted(point[:2] for point in marked) == [(8.0, 0.3), (9.5, 0.2)]
    assert DRAWN["tradeoff_path"]().get_xlabel() == "novelty (bits)"


def test_user_groups_have_a_row_each_with_a_mark_for_every_model():
    ax = DRAWN["user_groups"]()
    assert row_labels(ax) == ["all", "few events"]
    assert [x for x, *_ in dots(ax)] == [0.3, 0.2, 0.1, 0.2]


def test_reidentification_has_a_line_for_each_kind_of_items_and_one_for_the_limit():
    ax = plots.reidentification(FOUND)
    lines = {box.get_label(): box.lines[0].get_ydata().tolist() for box in ax.containers}
    assert lines == {"all items": [0.9, 0.2], "interests only": [0.004, 0.0]}
    ends = [box.lines[2][0].get_segments() for box in ax.containers]  # of the intervals
    assert [[end[1] for end in line] for line in ends[1]] == [[0.002, 0.02], [0.0, 0.003]]
    assert [label.get_text() for label in ax.get_xticklabels()] == ["day", "none"]
    (limit,) = (line for line in ax.lines if line.get_linestyle() == "--")
    assert set(limit.get_ydata()) == {0.01}
    assert {text.get_text() for text in ax.get_legend().get_texts()} == {
        *("all items", "interests only", "limit of “anonymised”")
    }
    with pytest.raises(ValueError, match="'high'"):
        plots.reidentification(FOUND.drop("high"))


def test_event_reasons_draw_what_changes_something_first_and_then_what_counts_most():
    ax = DRAWN["event_reasons"]()
    assert row_labels(ax) == ["C, 2024-01-03", "b, 2024-01-02"]  # "A" would be the third
    ends = [bar.get_x() + bar.get_width() for bar in ax.patches]
    np.testing.assert_allclose(ends, [np.exp(0.001), 1 / 4])
    assert [bool(bar.get_hatch()) for bar in ax.patches] == [True, False]
    assert ax.get_legend().get_texts()[0].get_text() == "without these something else comes first"


def test_removal_curves_draw_one_kind_in_percent():
    ax = plots.removal_curves(REMOVED, kind="insertion")
    assert [line.get_ydata().tolist() for line in ax.lines] == [[20, 20], [40, 40]]
    with pytest.raises(ValueError, match="kind must be one of"):
        plots.removal_curves(REMOVED, kind="both")


def test_set_coverage_has_a_mark_for_each_group_and_the_size_of_its_sets():
    ax = DRAWN["set_coverage"]()
    (line,) = (line for line in ax.lines if line.get_marker() == "o")
    np.testing.assert_allclose(line.get_xdata(), [88, 80])
    assert row_labels(ax) == ["all (7)", "group 1 (3)"]
    assert {"3.2", "4.0"} <= set(texts(ax))


def test_pareto_front_joins_what_nothing_beats_and_fills_its_marks():
    ax = DRAWN["pareto_front"]()
    (line,) = ax.lines
    assert line.get_xydata().tolist() == [[0.2, 0.4], [1.0, 0.5]]  # lower is better in x
    filled = [marks.get_offsets() for marks in ax.collections if len(marks.get_facecolors())]
    assert sorted(x for points in filled for x in points[:, 0].tolist()) == [0.2, 1.0]
    assert ax.get_xlabel() == "miscalibration (nats, lower is better)"
    with pytest.raises(ValueError, match="metric must be one of"):
        plots.pareto_front(FRONT, x="novelty")


def test_feedback_rounds_have_a_line_and_a_band_for_each_policy():
    ax = DRAWN["feedback_rounds"]()
    assert [line.get_ydata().tolist() for line in ax.lines] == [[0.3, 0.5], [0.3, 0.4]]
    ends = ax.collections[0].get_paths()[0].vertices[:, 1]
    np.testing.assert_allclose([ends.min(), ends.max()], [0.2, 0.6])
    assert {text.get_text() for text in ax.get_legend().get_texts()} == {"a", "b"}
    bits = plots.feedback_rounds(
        LOOP.with_columns(metric=pl.lit("entropy of lists")), "entropy of lists"
    )
    assert bits.get_ylabel() == "entropy of lists (bits)"
    with pytest.raises(ValueError, match="metric must be one of"):
        plots.feedback_rounds(LOOP, "utility")
