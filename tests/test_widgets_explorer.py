import re
from dataclasses import replace

import hostile
import jax
import numpy as np
import polars as pl
import pytest
from widget_pages import SCRIPT, tags_in, with_hostile_titles

import interestkit as ik
from interestkit.explanation.attributions import SHORTLIST
from interestkit.markup import escaped, words


@pytest.fixture(scope="module")
def widget(study):
    return ik.explore_users(study.predictor, study.split, k=5)


def cells(page):
    """Rows of an HTML table below its head, as lists of the HTML in their cells."""
    rows = page.partition("<tbody>")[2].split("<tr>")[1:]
    return [re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row) for row in rows]


def test_another_user_changes_figure_tables_and_sentence(widget):
    views = (widget.figure, widget.interests, widget.recommended, widget.followed)
    widget.choose(str(widget.truth.histories.users[0]))
    before = [view.value for view in views]
    name = str(widget.truth.histories.users[3])
    widget.finder.text.value = name
    widget.finder.list.value = 3
    assert widget.user == name
    assert all(view.value != old for view, old in zip(views, before, strict=True))
    assert widget.said.startswith(f"User {name}: ")
    assert f"user {name} over time" in widget.figure.value


def test_a_part_of_a_name_shows_nobody_before_a_choice_and_the_very_name_does(widget):
    widget.choose(str(widget.truth.histories.users[1]))
    shown, name = widget.user, str(widget.truth.histories.users[11])
    widget.finder.text.value = name[:-1].upper()
    assert len(widget.finder.list.options) > 1
    assert widget.finder.value is None
    assert widget.user == shown
    widget.finder.text.value = name.upper()
    assert widget.finder.list.options[0] == (name, 11)
    assert widget.user == name
    widget.finder.text.value = ""
    assert widget.user == name


def test_recommendations_are_those_of_the_model_and_say_whether_they_came(study, widget):
    number = 4
    widget.choose(str(widget.truth.histories.users[number]))
    table = ik.recommend(
        study.predictor, study.features, study.test.histories.rows(number, number + 1), k=5
    )
    rows = cells(widget.recommended.value)
    titles = table.select(pl.coalesce("title", "item")).to_series().to_list()
    assert [row[1] for row in rows] == [words(title) for title in titles]
    later = set(study.split.test.filter(pl.col("user") == widget.user)["item"])
    assert [row[-1] == "✓ yes" for row in rows] == [item in later for item in table["item"]]


def test_interests_are_known_or_novel_by_the_history(study, widget):
    widget.choose(str(widget.truth.histories.users[6]))
    own = study.features.item_interests[study.test.histories.rows(6, 7).item].sum(axis=0)
    for name, touched, *_ in cells(widget.interests.value):
        assert touched == ("known" if own[study.features.interests.index(name)] else "novel")


def test_a_reason_is_how_much_more_likely_the_item_is_than_without_the_event(study, widget):
    number = 4
    widget.choose(str(widget.truth.histories.users[number]))
    rows = cells(widget.recommended.value)
    said = [row[-2] for row in rows if " × " in row[-2]]
    assert said  # something speaks for something
    name, _, times = said[0].partition("<")[0].rpartition(" × ")
    history = study.test.histories.rows(number, number + 1)
    code = widget.codes[number][[" × " in row[-2] for row in rows].index(True)]
    removed = [n for n in set(history.item.tolist()) if words(widget.titles[n], 32) == name]
    kept = ~np.isin(history.item, removed)
    without = replace(
        history,
        offsets=np.array([0, kept.sum()], np.int32),
        **{part: getattr(history, part)[kept] for part in ("item", "seconds", "weight")},
    )
    among = study.predictor.rank(history, k=min(SHORTLIST, study.features.num_items))[0]
    among = among[among >= 0][None]
    a, b = (np.exp(study.predictor.score(h, among))[0] for h in (history, without))
    if not name.startswith("all "):
        of = among[0] == code
        expected = (a[of] / a.sum()) / (b[of] / b.sum())
        assert float(times) == pytest.approx(float(expected[0]), abs=0.006)


def test_later_events_say_what_the_model_made_of_them(study, widget):
    widget.choose(str(widget.truth.histories.users[2]))
    later = study.split.test.filter(pl.col("user") == widget.user)
    rows = cells(widget.followed.value)
    assert len(rows) == min(len(later), 15)
    assert f"of {len(later):,} events" in widget.followed.value
    seen = set(study.split.before("test").filter(pl.col("user") == widget.user)["item"])
    first = later.sort("time", maintain_order=True)["item"][0]
    assert (rows[0][-1] == "had it before") == (first in seen)


def test_another_user_compiles_nothing(widget, caplog):
    widget.choose(str(widget.truth.histories.users[0]))
    with jax.log_compiles(), caplog.at_level("DEBUG", logger="jax"):
        for number in (1, 5, 9):
            widget.choose(str(widget.truth.histories.users[number]))
    assert [r.getMessage() for r in caplog.records if "ompil" in r.getMessage()] == []


def test_the_static_copy_is_what_is_on_the_screen(widget):
    (picture, about), (tables, _) = widget.copies()
    assert picture["image/png"] in widget.figure.value
    assert about["image/png"]["alt"] == picture["text/plain"]
    assert widget.recommended.value in tables["text/html"]
    assert f"<p>{escaped(widget.alt, None)}</p>" in tables["text/html"]
    assert repr(widget).endswith(widget.said)


def test_hostile_titles_users_and_interests_are_text(study):
    split, script = study.split, SCRIPT
    user = str(study.test.histories.users[0])
    renamed = pl.when(pl.col("user") == user).then(pl.lit(script)).otherwise("user").alias("user")
    titles = [f"{hostile.titles()[n]} {n}" for n in range(len(split.items))]
    parts = {
        name: getattr(split, name).with_columns(renamed)
        for name in ("train", "validation", "test", "moments_validation", "moments_test")
    }
    split = replace(split, items=split.items.with_columns(title=pl.Series(titles)), **parts)
    predictor = replace(study.predictor, features=with_hostile_titles(study.features))
    widget = ik.explore_users(predictor, split, user=script, k=20)
    views = (widget.figure, widget.interests, widget.recommended, widget.followed, widget.status)
    page = "".join(view.value for view in views)
    allowed = {
        "div",
        "table",
        "caption",
        "thead",
        "tbody",
        "tr",
        "th",
        "td",
        "span",
        "br",
        "img",
        "p",
    }
    assert tags_in(page) <= allowed
    assert page.count("<img ") == 1
    assert "onerror=&" in page or "onerror" not in page.replace("&lt;img src=x onerror", "")
    assert not {"\u202e", "\u2066", "\x00"} & set(page)


def test_an_unknown_user_is_refused(study):
    with pytest.raises(ValueError, match="user must be one of"):
        ik.explore_users(study.predictor, study.split, user="nobody at all")
