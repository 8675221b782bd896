import re
from io import BytesIO

import hostile
import matplotlib.pyplot as plt
import numpy as np
import polars as pl
import pytest
from matplotlib.colors import to_rgb
from widget_pages import SCRIPT, tags_in

import interestkit as ik
from interestkit.comparison import bootstrap_interval
from interestkit.plots.drawing import BLUE

TEXT, ROW = '<td class="text">', '<tr><th scope="row" class="text">'


@pytest.fixture(scope="module")
def evaluation(study):
    known = study.features.histories(study.split.before("test"))
    rankers = {
        "model": study.predictor,
        "popular": ik.Popular(features=study.features, log=known),
        "own habits": ik.MostFrequent(features=study.features, log=known),
    }
    return ik.evaluate(rankers, study.test, study.features, k=5, progress=False)


@pytest.fixture
def widget(study, evaluation):
    return ik.compare_models(evaluation, truth=study.test, features=study.features)


def test_everybody_has_the_means_and_intervals_of_the_evaluation(evaluation, widget):
    table = evaluation.table().filter(target="items", metric="NDCG@5")
    for model, value, low, high in table.select("model", "value", "low", "high").iter_rows():
        row = f">everybody</th>{TEXT}{model}</td><td>{value:.4f}</td>{TEXT}[{low:.4f}, {high:.4f}]"
        assert row in widget.values.value


def test_another_metric_and_target_are_shown(evaluation, widget):
    before = widget.figure.value
    widget.target.value = "interests"
    assert "NDCG@5" not in widget.metric.options
    widget.metric.value = "log loss"
    value = evaluation.table().filter(model="popular", metric="log loss")["value"].item()
    assert f">popular</td><td>{value:.4f}</td>" in widget.values.value
    assert "interests: log loss" in widget.figure.value
    assert widget.figure.value != before


def test_groups_by_length_part_the_users_and_have_their_own_intervals(study, evaluation, widget):
    widget.by.value = "length of history"
    lengths = study.test.histories.lengths
    group = widget.groups["length of history"]
    assert group.null_count() == 0
    shortest = widget.group
    is_in = (group == shortest).to_numpy()
    assert lengths[is_in].max() <= lengths[~is_in].min()
    assert shortest == f"1. {lengths[is_in].min():,}–{lengths[is_in].max():,} events"
    rows = evaluation.per_user.filter(target="items", metric="NDCG@5", model="model")
    values = rows["value"].to_numpy()[is_in]
    low, high = bootstrap_interval(values)
    assert f"<td>{values.mean():.4f}</td>{TEXT}[{low:.4f}, {high:.4f}]" in widget.values.value


def test_a_chosen_group_lists_its_users_where_the_first_model_is_furthest_behind(
    study, evaluation, widget
):
    widget.by.value = "main interest"
    labels = study.features.item_interests
    histories, truth = study.test.histories, widget.groups["main interest"]
    for number in range(3):
        own = histories.item[histories.user == number]
        name = study.features.interests[labels[own].sum(axis=0).argmax()]
        assert truth[number] in (name, "other")
    before = widget.listed.value
    widget.figure.set_state({"chosen": 1})  # as a click sends it
    name = widget.group
    assert name == sorted(truth.unique())[1]
    assert widget.listed.value != before
    rows = evaluation.per_user.filter(target="items", metric="NDCG@5")
    wide = rows.pivot("model", index="user", values="value")
    members = pl.Series(histories.users, dtype=pl.String).filter(truth == name).implode()
    behind = pl.col("model") - pl.max_horizontal("popular", "own habits")
    wide = wide.filter(pl.col("user").is_in(members)).with_columns(behind=behind)
    assert f"{ROW}{wide.sort('behind')['user'][0]}</th>" in widget.listed.value
    listed = {row.partition("<")[0] for row in widget.listed.value.split(ROW)[1:]}
    assert listed <= set(members.item())


def test_only_chosen_models_are_shown_and_none_changes_nothing(widget):
    widget.models.value = ("model", "popular")
    assert "own habits" not in widget.values.value + widget.listed.value
    before = widget.values.value
    widget.models.value = ()
    assert widget.values.value == before


def test_own_groups_may_leave_users_out_and_their_names_are_text(study, evaluation):
    users = study.test.histories.users
    groups = {SCRIPT: {str(user): hostile.titles()[n % 9] for n, user in enumerate(users[:30])}}
    widget = ik.compare_models(evaluation, truth=study.test, groups=groups)
    widget.by.value = SCRIPT
    told = sum(map(int, re.findall(r"<td>(\d+)</td></tr>", widget.values.value)))
    some = pl.Series([str(user) for user in users[:30]]).implode()
    rows = evaluation.per_user.filter(pl.col("user").is_in(some), target="items", metric="NDCG@5")
    assert told == rows["value"].is_not_nan().sum() > 0
    page = widget.values.value + widget.listed.value + widget.figure.value + widget.status.value
    allowed = {"div", "table", "caption", "thead", "tbody", "tr", "th", "td", "span", "img", "p"}
    assert tags_in(page) <= allowed


def test_each_group_is_a_button_over_its_own_band_of_the_figure(widget):
    widget.by.value = "length of history"
    names = widget.groups["length of history"].unique().sort().to_list()
    assert widget.figure.options == names
    tops, bottoms = zip(*widget.figure.places, strict=True)
    assert bottoms[:-1] == tops[1:]  # from top to bottom without a gap
    assert 0 < tops[0] < bottoms[-1] < 1
    ink = np.isclose(plt.imread(BytesIO(widget.png))[:, :, :3], to_rgb(BLUE), atol=0.01).all(axis=2)
    for top, bottom in widget.figure.places:  # the first of three models is drawn 0.7 / 3 above
        rows = np.flatnonzero(ink.any(axis=1)) / len(ink)
        own = rows[(top < rows) & (rows < bottom)].mean()
        assert (own - top) / (bottom - top) == pytest.approx(0.5 - 0.7 / 3, abs=0.03)
    widget.figure.set_state({"chosen": len(names) - 1})
    widget.metric.value = "recall@5"
    assert widget.group == names[-1]  # another metric leaves the choice alone
    widget.by.value = "everybody"
    assert widget.group == "everybody"


def test_the_copy_is_what_is_shown(widget):
    (picture, about), (tables, _) = widget.copies()
    assert about["image/png"]["alt"] == picture["text/plain"] == widget.said
    assert widget.listed.value in tables["text/html"]


def test_users_of_another_evaluation_are_refused(study, evaluation):
    with pytest.raises(ValueError, match="truth must hold the users of the evaluation"):
        ik.compare_models(evaluation, truth=study.validation)


def test_where_lower_is_better_the_best_other_model_is_the_lowest(evaluation, widget):
    widget.metric.value = "miscalibration@5"
    rows = evaluation.per_user.filter(target="items", metric="miscalibration@5")
    wide = rows.pivot("model", index="user", values="value")
    behind = wide["model"] - wide.select(pl.min_horizontal("popular", "own habits")).to_series()
    first = wide["user"][int(behind.arg_max())]
    widget.figure.set_state({"chosen": 0})
    assert f"{ROW}{first}</th>" in widget.listed.value.partition("</tr>")[2].partition("</tr>")[0]
    widget.models.value = ("model",)
    assert "the highest first" in widget.listed.value


def test_groups_that_share_their_first_letters_stay_apart(study, evaluation):
    long = "Home and Kitchen > Kitchen and Dining > Coffee, Tea > "
    users = map(str, study.test.histories.users)
    groups = {"aisle": {user: long + ("Mugs", "Pots")[n % 2] for n, user in enumerate(users)}}
    widget = ik.compare_models(evaluation, truth=study.test, groups=groups)
    widget.by.value = "aisle"
    assert len(widget.figure.places) == widget.said.count("Home and Kitchen") == 2
    assert widget.values.value.count("<tr>") == 1 + 2 * 3  # heading, groups x models


@pytest.mark.parametrize("members", [{}, {"nobody": "old"}], ids=["none", "unknown"])
def test_groups_without_a_judged_user_are_refused(evaluation, members):
    with pytest.raises(ValueError, match=r"groups\['age'\] must hold a judged user, got none of"):
        ik.compare_models(evaluation, groups={"age": members})
