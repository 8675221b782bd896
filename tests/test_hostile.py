"""Hostile titles pass through every figure, table and export, and nothing runs or breaks."""

import csv
import re
import warnings
from datetime import UTC, datetime, timedelta

import hostile
import matplotlib.pyplot as plt
import numpy as np
import polars as pl
import pytest
from matplotlib.text import Text

import interestkit as ik
from interestkit import plots
from interestkit.markup import escaped
from interestkit.plots.drawing import shown

NAMES = hostile.titles()
BATCHES = [NAMES[start : start + 20] for start in range(0, len(NAMES), 20)]
START = datetime(2024, 1, 1, tzinfo=UTC)


@pytest.fixture(scope="module")
def log():
    return hostile.log_of(NAMES)


def evaluation_rows(names):
    """A table as of `Evaluation.table`, of which the names are those of the models."""
    metrics = ("NDCG@10", "alpha-NDCG@10", "catalogue coverage@10")
    rows = [
        ("items", name, metric, number / 40, number / 50, number / 30, 1, None, 70)
        for number, name in enumerate(names)
        for metric in metrics
    ]
    columns = "target model metric value low high seeds spread users".split()
    return pl.DataFrame(rows, schema=columns, orient="row", infer_schema_length=None)


def figures(names):
    """Every figure that shows text from data, with these names wherever text can stand."""
    events = pl.DataFrame(
        {
            "user": names[0],
            "item": [f"{name}." for name in names],
            "time": [START + timedelta(days=n) for n in range(len(names))],
            "kind": "view",
        }
    )
    interests = [[name] for name in names]
    items = events.select("item", events=1).with_columns(interests=pl.Series(interests))
    few, table = names[:8], evaluation_rows(names[:8])
    curve = pl.DataFrame({"epoch": [1, 2, 3]}).with_columns(pl.lit(0.5).alias(n) for n in few)
    gains = table.filter(metric="NDCG@10").rename({"model": "over", "value": "gain"})
    bins = pl.DataFrame({"model": few, "seed": 0, "low": 0.0, "high": 0.5, "count": 9})
    trials = pl.DataFrame({"trial": [1, 2, 3], "score": [0.1, 0.3, 0.2]})
    settings = {name: [names[n], names[n + 1], None] for n, name in enumerate(names[:6])}
    probable = pl.DataFrame({"interest": names, "probability": 1 / len(names), "share": 0.1})
    cuts = {name: START + timedelta(days=6 * n) for n, name in enumerate(names[:3])}
    yield plots.cleaning(pl.DataFrame({"rule": names, "events_dropped": 3, "events_left": 10}))
    yield plots.activity(events, cuts=cuts)
    yield plots.user_timeline(events, items, names[0], max_interests=20)
    yield plots.interest_sizes(items)
    yield plots.training_curves(curve, columns=few)
    yield plots.interest_bars(probable, top=20)
    yield plots.comparison(table, "NDCG@10", "items")
    yield plots.gains(gains.with_columns(p_holm=0.01))
    yield plots.tradeoff(table)
    yield plots.coverage(table)
    lists = pl.DataFrame({"goal": few, "strength": 0.5, "metric": "NDCG", "value": 0.1})
    diverse = lists.with_columns(metric=pl.lit("diversity"))
    yield plots.pareto_front(pl.concat([lists, diverse]))
    rounds = pl.DataFrame({"policy": few, "round": 1, "metric": few[0], "value": 0.1})
    yield plots.feedback_rounds(rounds.with_columns(low=0.0, high=0.2), few[0])
    reasons = events.select("item", "time", place=pl.int_range(pl.len()), title=pl.Series(names))
    reasons = reasons.with_columns(without=(pl.col("place") - 9) / 10)
    yield plots.event_reasons(reasons, target=names[0], changing=reasons.head(1), top=20)
    curves = pl.DataFrame({"order": few, "value": 0.5, "low": 0.4, "high": 0.6, "kind": "deletion"})
    yield plots.removal_curves(curves.join(pl.DataFrame({"share": [0.0, 1.0]}), how="cross"))
    yield plots.reliability(bins.with_columns(confidence=0.3, accuracy=0.4))
    by_epsilon = {"target": "items", "metric": "NDCG@10", "model": few, "epsilon": 1.0}
    yield plots.privacy_curve(pl.DataFrame(by_epsilon | {"value": 0.1}), "items", model=few[0])
    found = pl.DataFrame({"false_positives": [0.01, 1.0], "found": [0.1, 1.0]})
    yield plots.membership(dict.fromkeys(few, found))
    drifted = {"aspect": "interest", "name": names, "before": 0.1, "after": 0.2}
    yield plots.interest_drift(pl.DataFrame(drifted | {"low": 0.0, "high": 0.1, "is_drift": True}))
    periods = pl.DataFrame({"period": [START, START + timedelta(days=7)], "value": 0.2})
    periods = periods.with_columns(target=pl.lit(names[0]), low=pl.lit(0.1), high=pl.lit(0.3))
    periods = periods.join(pl.DataFrame({"model": few}), how="cross")
    yield plots.prequential_curve(periods, names[0])
    yield plots.search_trials(
        trials.with_columns(pl.Series(k, v) for k, v in settings.items()), title=names[0]
    )[0]


def layout_faults(figure):
    """Texts that reach over the edge of the figure, or over each other."""
    figure.canvas.draw()
    room, boxes = figure.bbox, []
    axes = [axis for ax in figure.axes for axis in (ax.xaxis, ax.yaxis)]
    ticks = {tick for axis in axes for tick in (*axis.get_major_ticks(), *axis.get_minor_ticks())}
    ticks -= {tick for axis in axes for tick in axis._update_ticks()}  # those outside the Axes
    unseen = {text for tick in ticks for text in (tick.label1, tick.label2)}
    for text in figure.findobj(Text):
        if not text.get_text().strip() or not text.get_visible() or text in unseen:
            continue
        if (box := text.get_window_extent()).width:
            boxes.append((text.get_text(), box))
    faults = [
        f"{text!r} is clipped"
        for text, box in boxes
        if min(box.x0, box.y0) < -1 or box.x1 > room.x1 + 1 or box.y1 > room.y1 + 1
    ]
    for number, (text, box) in enumerate(boxes):
        for other, its in boxes[:number]:
            across = min(box.x1, its.x1) - max(box.x0, its.x0)
            up = min(box.y1, its.y1) - max(box.y0, its.y0)
            if across > 1 and up > 2:
                faults.append(f"{text!r} overlaps {other!r}")
    return faults


@pytest.mark.slow
@pytest.mark.parametrize("names", BATCHES, ids=range(len(BATCHES)))
def test_figures_draw_every_title_without_warning_overlap_or_clipping(names):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for ax in figures(names):
            drawn = [text.get_text() for text in ax.figure.findobj(Text)]
            assert max(map(len, drawn)) < 120
            assert not any(text.get_parse_math() for text in ax.findobj(Text) if text.get_text())
            assert layout_faults(ax.figure) == [], ax.get_title(loc="left")
            plt.close(ax.figure)


def test_layout_faults_are_found():
    figure, ax = plt.subplots()
    ax.set_title("long " * 40, loc="left")
    ax.text(0.5, 0.5, "one")
    ax.text(0.5, 0.5, "two")
    found = "\n".join(layout_faults(figure))
    assert "is clipped" in found
    assert "'two' overlaps 'one'" in found
    plt.close(figure)


def test_no_table_runs_what_its_text_says(log):
    cleaned, report = ik.clean(log)
    split = ik.temporal_split(cleaned, min_judged=0)
    features = ik.fit_features(split.train, split.items, min_item_events=1, content_dim=4)
    wide = pl.DataFrame({name: [name] for name in NAMES})
    tables = (log, report, split, features, ik.audit(split, features), wide)
    tables += (log.items, log.events, split.summary(), features.items)
    pages = [table._repr_html_() for table in tables if hasattr(table, "_repr_html_")]
    known = {"ranker": None, "progress": False}
    pages.append(
        ik.privacy.release(cleaned, ik.privacy.Coarseness(min_item_users=1), **known)._repr_html_()
    )
    assert len(pages) >= 8
    assert [live for page in pages for live in hostile.live_parts(page)] == []
    assert "&lt;script&gt;" in "".join(pages)


def test_no_formula_is_live_in_html():
    text = r"\(x\) \[y\] \begin{equation} $5 and $6"
    pieces = re.split(r"<[^>]*>", escaped(text, None))  # MathJax reads each by itself
    assert "".join(pieces) == text
    assert not any(re.search(r"\\[(\[a-z]|\$.+\$", piece) for piece in pieces)


def test_live_parts_are_found():
    assert len(hostile.live_parts(hostile.SCRIPT)) == 0
    assert sum(bool(hostile.live_parts(name)) for name in NAMES[:40]) >= 6


def test_no_formula_is_live_in_csv(tmp_path):
    table = pl.DataFrame({"title": NAMES, "both": [[name, "x"] for name in NAMES]})
    table = table.with_columns(pl.lit(-1).alias("=name"))
    path = ik.write_csv(table, tmp_path / "titles.csv")
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.reader(file))
    assert len(rows) == len(NAMES) + 1
    cells = [cell for row in rows for cell in row if cell != "-1"]
    assert [cell for cell in cells if re.match(r"[\s=+\-@]", cell)] == []
    assert [row[0].removeprefix("'") for row in rows[1:]] == [
        name.removeprefix("'") for name in NAMES
    ]
    text = path.read_text(encoding="utf-8")
    assert re.findall(r'(?:^|,)(?!"|-1|$)[^,\n]+', text.splitlines()[0]) == []


def test_a_csv_is_read_back_as_a_log(tmp_path):
    rows = {"user": "ann", "item": ["a", "b"], "time": [1_700_000_000, 1_700_000_001]}
    labels = pl.Series("interests", [["x", "y"], []], dtype=pl.List(pl.String))
    path = ik.write_csv(pl.DataFrame(rows).with_columns(labels), tmp_path / "log.csv")
    log = ik.read_log(path)
    assert log.items["interests"].to_list() == [["x", "y"], []]
    assert log.num_events == 2


def test_titles_are_cut_to_what_can_be_drawn():
    assert max(len(shown(name)) for name in NAMES) <= 29
    assert np.all([shown(name).isprintable() for name in NAMES])
