from dataclasses import replace

import jax
import polars as pl
import pytest
from widget_pages import tags_in, with_hostile_titles

import interestkit as ik


@pytest.fixture
def widget(study):
    return ik.trade_off(study.predictor, study.test, study.features, k=4, candidates=12)


def test_the_slider_moves_figure_metrics_and_list(widget):
    before = widget.figure.value, widget.metrics.value, widget.list.value
    widget.slider.value = 1.0
    assert all(
        new != old
        for new, old in zip(
            (widget.figure.value, widget.metrics.value, widget.list.value), before, strict=True
        )
    )
    assert widget.said.startswith("Weight 100 % on diversity")
    widget.slider.value = 0.0
    assert (widget.figure.value, widget.metrics.value, widget.list.value) == before


def test_it_shows_the_numbers_of_the_table(widget):
    widget.goal.value, widget.slider.value = "novelty", 0.5
    rows = widget.found.table.filter(pl.col("goal") == "novelty", pl.col("strength") == 0.5)
    for metric, value in rows.select("metric", "value").iter_rows():
        assert f"{metric} {value:.{2 if value >= 2 else 4}f} (" in widget.said
    assert "novelty (bits)" in widget.metrics.value


def test_another_user_has_another_list(widget):
    users = widget.found.histories.users
    assert f"The list of user {users[0]}" in widget.list.value
    widget.finder.list.value = 3
    assert f"The list of user {users[3]}" in widget.list.value
    code = int(widget.found.codes[0, 0, 3, 0])
    assert widget.features.items["title"][code] in widget.list.value


def test_an_item_from_below_the_models_list_says_so(widget):
    widget.goal.value, widget.slider.value = "novelty", 1.0
    assert ">below<" in widget.list.value


def test_no_change_compiles_anything(widget, caplog):
    with jax.log_compiles(), caplog.at_level("DEBUG", logger="jax"):
        widget.slider.value = 0.7
        widget.goal.value = "coverage"
    assert [r.getMessage() for r in caplog.records if "ompil" in r.getMessage()] == []


def test_hostile_titles_are_text_and_the_copy_is_what_is_shown(study):
    features = with_hostile_titles(study.features)
    predictor = replace(study.predictor, features=features)
    widget = ik.trade_off(predictor, study.test, features, k=10, candidates=20)
    picture, tables = (data for data, _ in widget.copies())
    assert picture["text/plain"] == widget.said
    page = tables["text/html"]
    allowed = {"table", "caption", "thead", "tbody", "tr", "th", "td", "span", "div", "style", "p"}
    assert tags_in(page) <= allowed
    assert "&lt;" in page
    assert "$$" not in page
