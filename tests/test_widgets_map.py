from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from widget_pages import tags_in, with_hostile_titles

import interestkit as ik
from interestkit.widgets.map import _LISTED


@pytest.fixture(scope="module")
def made(study):
    return ik.interest_map(study.predictor, study.test.histories, num_items=50, num_users=20)


@pytest.fixture
def widget(made):
    made.selected = []
    made.interest.value = -1
    return made


def test_frequent_items_and_users_are_points_with_their_main_interests(study, widget):
    points = widget.points
    items, users = points.filter(kind="item"), points.filter(kind="user")
    candidates = study.features.items.filter("is_candidate")
    assert items["name"].to_list() == candidates["title"].head(50).to_list()
    assert items["events"].to_list() == candidates["events"].head(50).to_list()
    assert len(users) == 20
    for name, interest in users.select("name", "interest").iter_rows():
        number = study.test.histories.number_of(name)
        own = study.test.histories.rows(number, number + 1).item
        best = study.features.item_interests[own].sum(axis=0).argmax()
        assert interest == study.features.interests[best]


def test_items_of_features_that_have_grown_go_by_frequency_too(study):
    features = study.features
    other = features.items.with_columns(events=pl.int_range(1, 1 + pl.len(), dtype=pl.Int32))
    grown = replace(study.predictor, features=replace(features, items=other))
    points = ik.interest_map(grown, num_items=12).points
    expected = other.filter("is_candidate")["events"].to_list()[:-13:-1]
    assert points["events"].to_list() == expected


def test_users_without_events_are_no_points(study):
    histories = study.test.histories
    nobody = histories.only(np.zeros(len(histories.item), bool))
    assert len(ik.interest_map(study.predictor, nobody, num_items=10).points) == 10


def test_the_browser_gets_what_the_table_says(widget):
    canvas, points = widget.canvas, widget.points
    np.testing.assert_array_equal(np.frombuffer(canvas.x, np.float32), points["x"])
    np.testing.assert_array_equal(np.frombuffer(canvas.y, np.float32), points["y"])
    groups = np.frombuffer(canvas.group, np.uint16)
    assert [widget.interests[n] for n in groups] == points["interest"].to_list()
    assert np.frombuffer(canvas.is_user, np.uint8).sum() == 20
    assert len(canvas.names) == len(points)


def test_chosen_points_are_listed(widget):
    assert "Click a point" in widget.listed.value
    widget.canvas.set_state({"selected": memoryview(np.array([3, 55], np.uint32).tobytes())})
    assert widget.said == "2 of 70 points are chosen."
    for row in (3, 55):
        assert f">{widget.points['name'][row]}</td>" in widget.listed.value
    widget.selected = np.arange(60)
    assert widget.listed.value.count("<tr>") == 1 + _LISTED
    assert f"{_LISTED} of 60 chosen points" in widget.listed.value


def test_a_found_point_is_chosen_and_shown(widget):
    name = widget.points["name"][60]
    widget.finder.text.value = name
    widget.finder.list.value = 60
    assert widget.selected.tolist() == [60]
    assert widget.canvas.view[:2] == [widget.points["x"][60], widget.points["y"][60]]
    widget.finder.text.value = ""


def test_an_interest_stands_out_without_colour_alone(widget):
    widget.interest.value = 1
    assert widget.canvas.highlight == 1
    of_it = widget.points["interest"] == widget.interests[1]
    assert widget.selected.tolist() == of_it.arg_true().to_list()
    assert f"{of_it.sum()} of 70 points are chosen." == widget.said


def test_items_alone_make_a_map(study):
    widget = ik.interest_map(study.predictor, num_items=12)
    assert widget.points["kind"].unique().to_list() == ["item"]
    assert "12 items and 0 users" in widget.copies()[0][0]["text/plain"]


def test_hostile_titles_are_text(study):
    features = with_hostile_titles(study.features)
    predictor = replace(study.predictor, features=features)
    widget = ik.interest_map(predictor, num_items=40)
    widget.selected = np.arange(40)
    page = widget.listed.value + widget.status.value + widget.parts[0].children[1].children[1].value
    allowed = {"div", "table", "caption", "thead", "tbody", "tr", "th", "td", "span", "p", "br"}
    assert tags_in(page) <= allowed
    assert "$$" not in page
    assert max(map(len, widget.canvas.names)) < 100
    assert not {"\u202e", "\u2066", "\x00"} & set("".join(widget.canvas.names))
