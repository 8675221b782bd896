from dataclasses import replace

import jax
import numpy as np
import pytest
from widget_pages import tags_in, with_hostile_titles

import interestkit as ik
from interestkit.widgets.parts import Finder
from interestkit.widgets.what_if import LISTED


@pytest.fixture
def history(study):
    return study.test.histories.rows(1, 2)


@pytest.fixture
def widget(study, history):
    return ik.what_if(study.predictor, history, k=5)


def test_it_starts_with_the_answers_of_the_model(study, history, widget):
    codes = study.predictor.rank(history, k=5)[0][0]
    best = study.predictor.interests(history)[0].argmax()
    for code in codes:
        assert widget.titles[int(code)] in widget.items.value
    assert study.features.interests[best] in widget.interests.value
    assert "+0.0 points" in widget.interests.value
    assert "not listed" not in widget.items.value


@pytest.mark.parametrize("exclude_seen", [True, False])
def test_probabilities_of_new_items_say_so(study, history, exclude_seen):
    widget = ik.what_if(study.predictor, history, exclude_seen=exclude_seen)
    assert ("probability, if it is new" in widget.items.value) == exclude_seen


def test_an_added_item_is_the_newest_event_and_changes_the_answer(study, history, widget):
    code = int(study.predictor.rank(history, k=5)[0][0][0])
    before = widget.items.value
    widget.finder.text.value = widget.titles[code]
    widget.finder.list.value = code
    widget.buttons["add"].click()
    assert widget.history.item.tolist() == [*history.item.tolist(), code]
    assert widget.history.seconds[-1] == history.moment[0] - 1
    assert widget.items.value != before
    expected = study.predictor.rank(widget.history, k=5)[0][0]
    for expected_code in expected:
        assert f">{widget.titles[int(expected_code)]}</td>" in widget.items.value
    assert f">{widget.titles[code]}</td>" not in widget.items.value  # it is no new item now
    assert widget.list.options[0] == (widget.titles[code], len(history.item))


def test_a_chosen_event_is_removed(history, widget):
    widget.list.value = 2
    widget.buttons["remove"].click()
    assert widget.history.item.tolist() == np.delete(history.item, 2).tolist()
    assert widget.list.value == 2  # the one that follows, so that the key can be pressed again


def test_events_change_places_and_times_stay(history, widget):
    last = len(history.item) - 1
    widget.list.value = last
    widget.buttons["earlier"].click()
    assert widget.history.item[-2:].tolist() == history.item[-2:][::-1].tolist()
    assert widget.history.seconds.tolist() == history.seconds.tolist()
    assert widget.list.value == last - 1
    widget.buttons["later"].click()
    assert widget.history.item.tolist() == history.item.tolist()
    widget.list.value = last
    widget.buttons["later"].click()  # nothing is later
    assert widget.history.item.tolist() == history.item.tolist()


def test_an_emptied_history_is_answered_as_that_of_a_newcomer_and_restored(widget):
    start = widget.items.value
    widget.buttons["clear"].click()
    assert len(widget.history.item) == 0
    assert widget.list.options == ()
    assert widget.said.startswith("0 events, a changed history")
    widget.buttons["remove"].click()
    assert widget.said == "Choose an event in the history first."
    widget.buttons["restore"].click()
    assert widget.items.value == start


def test_the_same_items_at_other_times_are_a_changed_history(study, history, widget):
    assert ", the history of the start." in widget.said
    widget.typed.value = "\n".join(study.features.items["item"][history.item])
    widget.buttons["use"].click()
    assert widget.history.item.tolist() == history.item.tolist()
    assert ", a changed history, answered in " in widget.said
    widget.buttons["restore"].click()
    assert ", the history of the start." in widget.said


def test_a_typed_history_is_found_by_name_title_and_part_of_a_title(widget):
    name, title, part = widget.features.items["item"][3], widget.titles[4], widget.titles[5][:-1]
    widget.typed.value = f"{name}\n\n {title.upper()} \n{part}\nno such thing"
    widget.buttons["use"].click()
    assert widget.history.item[:2].tolist() == [3, 4]
    assert part in widget.titles[int(widget.history.item[2])]
    assert np.diff(widget.history.seconds).tolist() == [3600, 3600]
    assert widget.said.endswith("Not found: no such thing.")


def test_a_title_is_found_as_it_is_shown(study, history):
    features = with_hostile_titles(study.features)
    widget = ik.what_if(replace(study.predictor, features=features), replace(history, coded_by=""))
    shown = [label for label, _ in widget.finder.list.options]
    assert shown != widget.titles.head(len(shown)).to_list()  # cut, or without marks
    widget.typed.value = "\n".join(shown)
    widget.buttons["use"].click()
    assert len(widget.history.item) == len(shown)


def test_no_change_compiles_anything(widget, caplog):
    with jax.log_compiles(), caplog.at_level("DEBUG", logger="jax"):
        for code in range(20):
            widget.add(code)
        widget.clear()
        widget.add(3)
        widget.restore()
    assert [r.getMessage() for r in caplog.records if "ompil" in r.getMessage()] == []


def test_somebody_new_starts_with_nothing(study):
    widget = ik.what_if(study.predictor, k=3)
    assert len(widget.history.item) == 0
    widget.buttons["add"].click()
    assert widget.said == "Choose an item in the list of items first."
    expected = study.predictor.rank(widget.history, k=3)[0][0]
    assert all(widget.titles[int(code)] in widget.items.value for code in expected)


def test_hostile_titles_are_text(study, history):
    features = with_hostile_titles(study.features)
    features = replace(features, interests=tuple(f"<i>{n}</i> $$" for n in features.interests))
    predictor = replace(study.predictor, features=features)
    widget = ik.what_if(predictor, replace(history, coded_by=""), k=40)
    page = widget.items.value + widget.interests.value
    allowed = {"div", "table", "caption", "thead", "tbody", "tr", "th", "td", "span"}
    assert tags_in(page) <= allowed
    assert "&lt;script&gt;" in page
    assert "$$" not in page
    assert not {"\u202e", "\u2066", "\x00"} & set(page)
    assert max(len(label) for label, _ in widget.finder.list.options) <= 60
    widget.finder.text.value = "<script>"
    assert len(widget.finder.list.options) >= 1


def test_only_the_newest_events_are_listed(widget):
    for code in range(LISTED + 5):
        widget.add(code % 40)
    assert len(widget.list.options) == LISTED
    assert widget.said.endswith(f"The newest {LISTED} are listed.")


def test_a_history_of_several_users_is_refused(study):
    with pytest.raises(ValueError, match="history must be of one user, got 2"):
        ik.what_if(study.predictor, study.test.histories.rows(0, 2))


@pytest.mark.parametrize("code", [-1, 10**6])
def test_a_code_that_no_item_has_is_refused_and_changes_nothing(widget, code):
    before = widget.item
    with pytest.raises(ValueError, match=rf"code must be in 0\.\.\d+, got {code}"):
        widget.add(code)
    assert np.array_equal(widget.item, before)


def test_a_name_with_two_spaces_is_found_by_what_it_says():
    finder = Finder(["WHITE HEART", " HANGING  HEART "], what="item")
    finder.text.value = " HANGING  HEART "
    assert finder.value == 1
