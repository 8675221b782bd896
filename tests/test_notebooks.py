"""The numbered notebooks, run as a user would, with small parameters."""

import json

import polars as pl
import pytest

from interestkit.cli import main
from interestkit.simulation import simulate

SMALL = {
    "EPOCHS": 1,
    "EXAMPLES_PER_EPOCH": 512,
    "BATCH_SIZE": 64,
    "NUM_SEEDS": 2,
    "ITEM_DIM": 8,
    "ARTICLE_EPOCHS": 3,
}
OPTIONS = [word for name, value in SMALL.items() for word in ("-p", name, str(value))]
MODELS = {"model", "popular", "recently popular", "own habits"}

pytestmark = [pytest.mark.notebooks, pytest.mark.slow]


def test_all_notebooks_run_on_the_simulated_log_and_leave_results(tmp_path, capsys):
    out = tmp_path / "run"
    assert main(["run", "--data", "simulated", "--out", str(out), *OPTIONS]) == 0
    results = json.loads((out / "results.json").read_text())
    rows = results["table"]
    assert {row["model"] for row in rows} == MODELS
    assert {row["target"] for row in rows} == {"items", "new items", "interests"}
    per_user = pl.read_parquet(out / "metrics.parquet")
    for row in rows:
        own = per_user.filter(*(pl.col(key) == row[key] for key in ("target", "model", "metric")))
        if len(own):  # metrics of a whole set of lists have no value per user
            mean = own["value"].fill_nan(None).mean()
            assert row["value"] == pytest.approx(mean, rel=1e-6, nan_ok=True)
            assert row["seeds"] == (2 if row["model"] == "model" else 1)
    assert len(list(out.glob("0*.ipynb"))) == 5
    assert "Evaluation" in (out / "report.html").read_text()
    assert "NDCG@10" in capsys.readouterr().out
    assert main(["run", "--only", "05", "--out", str(out), "-p", "TOP_K", "3"]) == 0
    again = json.loads((out / "results.json").read_text())
    assert {row["metric"] for row in again["table"]} >= {"NDCG@3", "accuracy"}


def test_all_notebooks_run_on_a_plain_file_with_each_users_last_event_held_out(tmp_path):
    log = simulate(num_users=300, num_items=60, num_interests=4, num_bots=0, faults=0, seed=2)
    events = log.events.filter(pl.col("kind") != "search")
    path = tmp_path / "log of someone.csv"
    events.select(
        personId="user", contentId="item", timestamp=pl.col("time").dt.epoch("s")
    ).write_csv(path)
    out = tmp_path / "run"
    columns = ["user=personId", "item=contentId", "time=timestamp"]
    words = ["run", "--data", str(path), "--columns", *columns, "--out", str(out), *OPTIONS]
    words += ["-p", "SPLIT", "leave-last-out"]
    assert main(words) == 0
    results = json.loads((out / "results.json").read_text())
    assert results["split"] == "leave-last-out"
    assert {row["model"] for row in results["table"]} == MODELS
