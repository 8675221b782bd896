"""One call gives the table and the figure of a model against all others."""

import matplotlib.pyplot as plt
import polars as pl
import pytest

import interestkit as ik
from interestkit.baselines import MostFrequent, Popular
from interestkit.evaluation import evaluate
from interestkit.paired import compare


@pytest.fixture(scope="module")
def judged(study):
    known = {"features": study.features, "log": study.histories}
    rankers = {"own": MostFrequent(**known), "popular": Popular(**known)}
    rankers["again"] = rankers["own"]
    return evaluate(rankers, study.test, study.features, k=5, interest_k=2, progress=False)


def test_one_call_has_the_table_of_gains_and_draws_it(judged):
    found = ik.compare(judged)
    assert found.model == "own"
    assert found.table.equals(judged.gains("own"))
    ax = found.plot(target="items", metric="NDCG@5")
    assert [label.get_text() for label in ax.get_yticklabels()] == ["items: NDCG@5"]
    assert {text.get_text() for text in ax.get_legend().get_texts()} > {"popular", "again"}
    plt.close(ax.figure)


def test_what_was_found_is_below_five_percent_after_correction(judged):
    found = compare(judged, model="own")
    assert not found.found().is_empty()
    assert found.found().equals(found.table.filter(pl.col("p_holm").fill_nan(1) < 0.05))
    assert set(found.found()["over"]) == {"popular"}  # a model does not differ from itself


def test_the_text_names_users_family_and_each_ranking(judged):
    first, *lines = repr(compare(judged, model="popular")).splitlines()
    row = judged.gains("popular").filter(target="items", metric="NDCG@5", over="own")
    family = judged.gains("popular")["p"].is_not_nan().sum()
    users = judged.per_user["user"].n_unique()
    wanted = f"'popular', {users} test users): p corrected over {family} comparisons (Holm)"
    assert first == f"Comparison({wanted}"
    assert len(lines) == 3 * 2  # three targets, two other models
    assert lines[0].startswith(f"  items NDCG@5 over own: {row['gain'].item():+.3f} [")


def test_a_model_needs_another_one(study, judged):
    with pytest.raises(ValueError, match=r"model must be one of .* got 'mine'"):
        compare(judged, model="mine")
    popular = Popular(features=study.features, log=study.histories)
    alone = evaluate({"popular": popular}, study.test, study.features, k=5, progress=False)
    with pytest.raises(ValueError, match="must hold a model beside 'popular', got none"):
        compare(alone)
