"""A search tries the defaults first, spreads its trials, and never sees test users."""

import json
import threading
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import polars as pl
import pytest

from interestkit.heldout import HeldOut
from interestkit.histories import Histories
from interestkit.searching import Choice, LogUniform, Uniform, draw_settings, search

LOG2_3 = np.log2(3)
SPACE = {
    "even": Uniform(0.0, 10.0, default=4.0),
    "log": LogUniform(1.0, 10_000.0, default=10.0),
    "whole": LogUniform(8, 128, default=64),
    "name": Choice(("a", "b", None)),
}


def truth_of(*triples, num_users=2, part="validation"):
    """Held-out users from (user, code, is_seen)."""
    relevant = pl.DataFrame(
        triples,
        schema={"user_code": pl.Int32, "code": pl.Int32, "is_seen": pl.Boolean},
        orient="row",
    )
    nothing = np.zeros(0, np.int32)
    histories = Histories(
        users=np.array([f"user {n}" for n in range(num_users)]),
        offsets=np.zeros(num_users + 1, np.int32),
        item=nothing,
        seconds=nothing,
        weight=nothing.astype(np.float32),
        moment=np.zeros(num_users, np.int32),
    )
    shares = np.zeros((num_users, 2), np.float32)
    return HeldOut(
        part=part,
        histories=histories,
        relevant=relevant,
        interest_shares=shares,
        next_interests=shares > 0,
    )


# User 0 did items 5 (known) and 6 (new) later, user 1 item 7 (new).
TRUTH = truth_of((0, 5, True), (0, 6, False), (1, 7, False))


def ranker_of(known, new):
    """A ranker that says the same two items to everybody, with repeats and without."""

    def rank(histories, *, k, exclude_seen):
        codes = np.array([(new if exclude_seen else known)[:k]] * len(histories))
        return codes, np.zeros(codes.shape, np.float32)

    return SimpleNamespace(rank=rank)


def build(item):
    return ranker_of((item, 0), (0, 1 if item == 5 else item))  # 5 is not new to user 0


def tried(items=(0, 5, 7), **options):
    """A search that tries these items in some order, and the first of them first."""
    options = {"validation": TRUTH, "metric": "NDCG@2", "progress": False} | options
    return search(build, {"item": Choice(items)}, num_trials=9, **options)


def test_the_first_trial_has_the_defaults():
    for seed in (0, 1):
        first = draw_settings(SPACE, num_trials=3, seed=seed)[0]
        assert first == {"even": 4.0, "log": 10.0, "whole": 64, "name": "a"}


def test_same_seed_same_trials_and_more_trials_begin_with_the_same():
    few, many = (draw_settings(SPACE, num_trials=n, seed=3) for n in (5, 20))
    assert few == many[:5]
    assert draw_settings(SPACE, num_trials=20, seed=4)[1:] != many[1:]


def test_trials_cover_every_setting():
    drawn = draw_settings(SPACE, num_trials=97)[1:]
    even, log, whole = (np.array([s[name] for s in drawn]) for name in ("even", "log", "whole"))
    for scaled in (even / 10, np.log10(log) / 4):
        per_quarter = np.bincount((scaled * 4).astype(int))
        assert per_quarter.min() > 15  # of 24 that are due
        assert 0 <= scaled.min() < 0.1
        assert 0.9 < scaled.max() <= 1
    assert whole.min() >= 8
    assert whole.max() <= 128
    assert all(isinstance(s["whole"], int) and isinstance(s["even"], float) for s in drawn)
    assert min(sum(s["name"] == name for s in drawn) for name in ("a", "b", None)) > 20


def test_shares_of_a_range_are_its_quantiles():
    assert [Uniform(2.0, 4.0, default=2.0).at(u) for u in (0, 0.25)] == [2.0, 2.5]
    assert [LogUniform(1.0, 100.0, default=1.0).at(u) for u in (0, 0.5)] == [1.0, 10.0]
    assert LogUniform(1, 99, default=1).at(0.5) == 10  # 9.95
    assert Uniform(0.9, 0.99999, default=0.9).at(0.9996) == pytest.approx(0.99995, abs=1e-5)
    narrow = [Uniform(1000.4, 1000.6, default=1000.5).at(u) for u in (0, 0.5, 0.99)]
    assert narrow == pytest.approx([1000.4, 1000.5, 1000.598])  # four digits are outside
    assert [Choice("abc").at(u) for u in (0, 0.34, 0.99)] == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Uniform(0.0, 1.0, default=2.0), r"default must be in 0.0..1.0, got 2.0"),
        (lambda: LogUniform(0.0, 1.0, default=1.0), "low must be above 0 on a log scale, got 0.0"),
        (lambda: LogUniform(1.0, 2.0, default=3.0), r"default must be in 1.0..2.0, got 3.0"),
        (lambda: Uniform(1, 3, default=1.5), "default must be a whole number .*, got 1.5"),
        (lambda: Choice(()), "values must hold at least one, got none"),
        (lambda: draw_settings(SPACE, num_trials=0), "num_trials must be at least 1, got 0"),
        (
            lambda: draw_settings({"score": Choice((1,))}, num_trials=1),
            r"settings must not be called trial, score, .*, got \['score'\]",
        ),
    ],
)
def test_a_space_that_cannot_be_drawn_from_is_an_error(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_scores_are_the_mean_of_both_targets_over_users():
    # with repeats, 5 in rank 1 is one of user 0's two items and nothing for user 1; among new
    # items, 7 in rank 2 is nothing for user 0 and user 1's only item
    rows = {row["item"]: row for row in tried().table.to_dicts()}
    repeats = 1 / (1 + 1 / LOG2_3) / 2
    assert rows[5]["items"] == pytest.approx(repeats, rel=1e-6)
    assert rows[5]["score"] == pytest.approx(repeats / 2, rel=1e-6)
    assert rows[7]["items"] == pytest.approx(1 / 2, rel=1e-6)
    assert rows[7]["new items"] == pytest.approx(1 / LOG2_3 / 2, rel=1e-6)
    assert rows[7]["score"] == pytest.approx((1 + 1 / LOG2_3) / 4, rel=1e-6)
    assert rows[0]["score"] == 0


def test_one_target_is_measured_alone():
    table = tried(targets=["new items"]).table
    assert table["items"].is_nan().all()
    np.testing.assert_array_equal(table["score"], table["new items"])


def test_other_metrics_count_hits():
    rows = {row["item"]: row for row in tried(metric="recall@2").table.to_dicts()}
    assert rows[5]["items"] == pytest.approx((1 / 2 + 0) / 2)
    rows = {row["item"]: row for row in tried(metric="hit rate@1").table.to_dicts()}
    assert rows[5]["items"] == pytest.approx((1 + 0) / 2)
    assert rows[7]["new items"] == 0  # it stands in rank 2


def test_best_is_the_trial_with_the_highest_score_and_of_equals_the_earlier():
    found = tried()
    assert found.best == {"item": 7}
    assert "best NDCG@2 0.4077" in repr(found)  # (1 + 1 / LOG2_3) / 4
    same = tried(items=(5, 7, 5, 7, 7))
    first = same.settings.index({"item": 7}) + 1
    assert f"in trial {first}" in repr(same)
    assert tried(items=(0, 1, 2)).best == {"item": 0}  # all score nothing: the defaults


def test_a_trial_that_diverges_scores_nothing_and_is_never_best():
    def build_or_diverge(item):
        if item == 7:
            raise FloatingPointError("training diverged")
        return build(item)

    options = {"validation": TRUTH, "metric": "NDCG@2", "progress": False}
    space = {"item": Choice((7, 5))}
    found = search(build_or_diverge, space, num_trials=6, **options)
    lost = found.table.filter(item=7)
    assert lost["score"].is_nan().all()
    assert len(lost) >= 2
    assert found.best == {"item": 5}
    with pytest.raises(ValueError, match="none of 1 trials could be scored, all diverged"):
        search(build_or_diverge, space, num_trials=1, **options)


def test_other_errors_of_a_trial_end_the_search():
    with pytest.raises(TypeError):
        search(lambda: None, {"item": Choice((1,))}, validation=TRUTH, progress=False)


def test_test_users_are_refused():
    with pytest.raises(ValueError, match="validation must be the validation part"):
        tried(validation=replace(TRUTH, part="test"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"metric": "NDCG"}, r"metric must be one of .*'NDCG'.* as in NDCG@10, got 'NDCG'"),
        ({"metric": "luck@10"}, "as in NDCG@10, got 'luck@10'"),
        ({"targets": []}, r"targets must be among \['items', 'new items'\], got \[\]"),
        ({"targets": ["all"]}, r"targets must be among .*, got \['all'\]"),
        ({"workers": 0}, "workers must be at least 1, got 0"),
        ({"validation": truth_of()}, "validation must hold a user with later items, got none"),
        (
            {"validation": truth_of((0, 5, True))},
            "validation must hold a user with later new items, got none",
        ),
    ],
)
def test_options_out_of_range_are_errors(options, message):
    with pytest.raises(ValueError, match=message):
        tried(**options)


def test_workers_run_side_by_side_and_change_no_result():
    both = threading.Barrier(2, timeout=20)  # breaks unless two trials wait for each other

    def build_together(item):
        both.wait()
        return build(item)

    options = {"validation": TRUTH, "metric": "NDCG@2", "progress": False, "num_trials": 8}
    space = {"item": Choice((0, 5, 7))}
    side_by_side = search(build_together, space, workers=2, **options)
    one_by_one = search(build, space, **options)
    assert side_by_side.settings == one_by_one.settings
    left, right = (found.table.drop("seconds") for found in (side_by_side, one_by_one))
    assert left.equals(right)


def test_table_has_a_row_per_trial_and_a_column_per_setting():
    space = {
        "hidden": Choice(((100, 50), (8,))),
        "days": Choice((None, 3.0)),
        "n": Choice((0, 0.5)),
    }
    found = search(
        lambda **_: build(5),
        space,
        validation=TRUTH,
        num_trials=7,
        metric="NDCG@1",
        progress=False,
    )
    columns = ["trial", "score", "items", "new items", "seconds", "hidden", "days", "n"]
    assert found.table.columns == columns
    assert found.table["trial"].to_list() == list(range(1, 8))
    assert found.table.row(0)[5:] == ("100 × 50", None, 0.0)
    assert found.settings[0] == {"hidden": (100, 50), "days": None, "n": 0}
    assert set(found.table["days"]) == {None, 3.0}
    assert (found.table["seconds"] >= 0).all()


def test_a_saved_search_holds_settings_and_scores(tmp_path):
    found = tried(targets=["items"])
    saved = json.loads(found.save(tmp_path / "search.json").read_text())
    assert saved["best"] == found.best
    assert [trial["settings"] for trial in saved["trials"]] == list(found.settings)
    assert saved["trials"][0]["new items"] is None
    assert saved["trials"][0]["score"] == found.table["score"][0]
    assert (saved["metric"], saved["label"]) == ("NDCG@2", "search")


def test_a_bar_shows_the_trials(capsys):
    tried(progress=True, label="items to try")
    assert "items to try: 100%" in "".join(capsys.readouterr())  # where: progress.progress_bar
    tried(progress=False)
    assert "".join(capsys.readouterr()) == ""
