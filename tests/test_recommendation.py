"""A recommendation table says whom to show what, in which order, and how sure the model is."""

import numpy as np
import polars as pl
import pytest

from interestkit.baselines import Popular
from interestkit.recommendation import recommend

COLUMNS = ["user", "rank", "item", "title", "interests", "score"]


class Fixed:
    """A ranker that gives every user the same list, whose second place is empty."""

    def __init__(self, codes, scores):
        self.codes, self.scores = np.array(codes), np.array(scores, np.float32)

    def rank(self, histories, *, k=10, exclude_seen=True):
        self.asked = {"users": len(histories), "k": k, "exclude_seen": exclude_seen}
        return self.codes, self.scores


@pytest.fixture(scope="module")
def few(study):
    """Histories of three judged users."""
    users = study.test.histories.users[:3].tolist()
    moments = study.split.moments_test.filter(pl.col("user").is_in(users)).sort("user")
    return study.features.histories(study.split.before("test"), moments=moments)


def test_rows_come_by_user_and_rank_with_names_and_scores(study, few):
    ranker = Fixed([[2, 0], [1, -1], [-1, -1]], [[-0.5, -1], [-2, -np.inf], [-np.inf] * 2])
    table = recommend(ranker, study.features, few, k=2, exclude_seen=False)
    assert ranker.asked == {"users": 3, "k": 2, "exclude_seen": False}
    names = study.features.items
    first, second, _ = few.users
    expected = [(first, 1, 2, -0.5), (first, 2, 0, -1.0), (second, 1, 1, -2.0)]
    assert table.rows() == [
        (user, rank, *names.row(code)[:3], score) for user, rank, code, score in expected
    ]
    assert table.columns == COLUMNS


def test_model_and_baselines_give_the_same_columns(study, few):
    popular = Popular(features=study.features, log=study.histories)
    tables = [recommend(ranker, study.features, few, k=5) for ranker in (study.predictor, popular)]
    for table in tables:
        assert table.schema == tables[0].schema
        assert table["rank"].to_list() == [1, 2, 3, 4, 5] * 3
        for row, (_, part) in enumerate(table.group_by("user", maintain_order=True)):
            seen = study.features.items["item"][few.seen(row)]
            assert part["item"].is_in(seen.implode()).sum() == 0
            assert part["score"].is_sorted(descending=True)
            assert not part["item"].str.starts_with("search:").any()
    assert (tables[0]["score"] <= 0).all()  # logarithms of probabilities


def test_an_empty_list_of_users_gives_an_empty_table(study):
    nobody = study.features.histories(study.split.train, moments=study.split.moments_test.clear())
    table = recommend(study.predictor, study.features, nobody, k=5)
    assert len(table) == 0
    assert table.columns == COLUMNS
    assert table.schema["user"] == pl.String


def test_k_outside_the_catalogue_is_an_error(study, few):
    with pytest.raises(ValueError, match=r"k must be in 1\.\.84 \(the catalogue\), got 99"):
        recommend(study.predictor, study.features, few, k=99)
