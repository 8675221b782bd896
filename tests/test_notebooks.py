"""The numbered notebooks, run as a user would, with small parameters."""

import json
import re
import runpy
import shutil
from importlib.util import find_spec
from pathlib import Path

import nbformat
import polars as pl
import pytest

import interestkit
from interestkit.cli import main
from interestkit.datasets import list_datasets
from interestkit.running import find_notebooks, list_notebooks, run_notebooks
from interestkit.simulation import simulate

SMALL = {
    "EPOCHS": 1,
    "EXAMPLES_PER_EPOCH": 512,
    "BATCH_SIZE": 64,
    "NUM_SEEDS": 2,
    "NUM_TRIALS": 2,
    "ITEM_DIM": 8,
    "ARTICLE_EPOCHS": 3,
    "NUM_USERS": 20,
    "NUM_PERIODS": 2,
    "UPDATE_EXAMPLES": 512,
    "SWAPS": 199,
    "LOOP_USERS": 40,
    "ROUNDS": 4,
    "LOOP_SEEDS": 2,
}
OPTIONS = [word for name, value in SMALL.items() for word in ("-p", name, str(value))]
MODELS = {"model", "popular", "recently popular", "own habits", "item neighbours", "EASE"}
MODELS |= {"ALS"} if find_spec("implicit") else set()
BENCHMARKS = Path(interestkit.__file__).resolve().parents[1] / "benchmarks"

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
    card = json.loads((out / "model_card.json").read_text())
    assert [fit["seed"] for fit in card["training"]["fits"]] == [0, 1]
    assert card["cleaning"]["rules"][0]["rule"] == "read"
    assert set(card["evaluation"]["baselines"]) == MODELS - {"model"}
    numbers = sorted(path.name[:2] for path in out.glob("*.ipynb"))
    assert numbers == ["01", "02", "03", "04", "05", "06", "07", "11"]
    choice = json.loads((out / "choice.json").read_text())
    assert choice["min_events"] in range(7)
    recommended = (out / "04_prediction_and_recommendation.ipynb").read_text()
    assert f"the model is asked from {choice['min_events']} events on" in recommended
    explained = pl.read_parquet(out / "explanations.parquet")
    assert explained["user"].n_unique() <= 20
    assert explained["without"].is_finite().all()
    novel = pl.read_parquet(out / "novel_interests.parquet")
    assert set(novel["model"]) == {"model", "new to others", "similar users", "co-occurrence"}
    assert pl.read_parquet(out / "exploration.parquet")["user"].n_unique() <= 3
    renewed = (out / "11_new_data.ipynb").read_text()
    difference = float(re.search(r"largest difference of scores: (\S+?)[\\\n]", renewed)[1])
    assert difference <= 1e-6
    assert renewed.count("image/png") == 3
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


@pytest.mark.parametrize("notebook", list_notebooks(find_notebooks()), ids=lambda n: n.number)
def test_notebook_asks_reads_goes_on_and_ends_with_three_exercises(notebook):
    cells = nbformat.read(notebook.path, as_version=4).cells
    prose = [cell.source for cell in cells if cell.cell_type == "markdown"]
    assert "**Question.**" in prose[0]
    assert any("**Reading.**" in text for text in prose)
    assert any("**Try next.**" in text for text in prose)
    assert prose[-1] == cells[-1].source
    assert prose[-1].startswith("## Exercises\n")
    assert prose[-1].count("<details>\n<summary>Solution</summary>\n\n") == 3
    assert prose[-1].count("\n</details>") == 3


def run_alone(number, folder, **parameters):
    """What the cells of one notebook printed."""
    (notebook,) = (nb for nb in list_notebooks(find_notebooks()) if nb.number == number)
    folder.mkdir()
    assert run_notebooks([notebook], folder, parameters=parameters, say=str) is None
    cells = nbformat.read(folder / notebook.path.name, as_version=4).cells
    outputs = [output for cell in cells for output in cell.get("outputs", [])]
    return "".join(output.get("text", "") for output in outputs), outputs


def test_scaling_notebook_shows_growth_shards_and_devices(tmp_path):
    small = {"NUM_USERS": 100, "NUM_ITEMS": 50, "EXAMPLES_PER_EPOCH": 256, "EPOCHS": 2}
    text, outputs = run_alone("10", tmp_path / "run", **small, DOUBLINGS=1, NUM_SHARDS=2)
    assert "Shards(2 files, 100 users, " in text
    assert re.search(r"engines: polars.*; all found the same: True", text)
    difference = float(re.search(r"between meshes: (\S+) nats", text)[1])
    assert 0 < difference < 1e-4  # not the same program, and the same numbers
    assert sum("image/png" in output.get("data", {}) for output in outputs) == 2


def test_multimodal_notebook_finds_cold_items_and_reads_new_searches(tmp_path):
    pytest.importorskip("wordllama", reason="the extra text is not installed")
    small = {"NUM_USERS": 150, "NUM_ITEMS": 60, "EPOCHS": 1, "EXAMPLES_PER_EPOCH": 256}
    text, outputs = run_alone("09", tmp_path / "run", **small, DIM=64)
    assert '"encoder": "planted"' in text
    assert "pictures.parquet: the file is damaged" in text
    assert sum("image/png" in output.get("data", {}) for output in outputs) == 4


def test_privacy_notebook_attacks_its_release_and_its_models(tmp_path):
    small = {"DATA": "simulated", "NUM_TARGETS": 200, "TIMES": ["day", "none"]}
    small |= {"MIN_ITEM_USERS": [1, 100], "RELEASE_ITEM_USERS": 100, "NUM_USERS": 200}
    small |= {"EPOCHS": 1, "OTHER_EPSILONS": [2.0], "NUM_SHADOWS": 8, "ATTACKED_USERS": 40}
    text, outputs = run_alone("08", tmp_path / "run", **small)
    assert "pseudonyms that both releases share: 0\n" in text
    assert "with another key: " in text
    assert "without the key: " in text
    shown = [output.get("data", {}).get("text/plain", "") for output in outputs]
    assert sum("found again by items and times: " in each for each in shown) == 2
    assert re.search(r"forgotten in \d+\.\d s", text)
    assert sum("image/png" in output.get("data", {}) for output in outputs) == 4


def test_benchmark_notebook_prints_the_published_numbers_of_ease(tmp_path):
    if not list_datasets().filter(name="ml-100k")["available"].item():
        pytest.skip("ml-100k is not in INTERESTKIT_DATA")
    small = {"EPOCHS": 1, "EXAMPLES_PER_EPOCH": 256, "ITEM_DIM": 8, "HIDDEN": [8]}
    text, outputs = run_alone(
        "12", tmp_path / "run", **small, HISTORY_LENGTH=16, LINEAR_WEIGHTS=[9]
    )
    assert "EASE (250)       NDCG@10 0.330, recall@10 0.281\n" in text  # RecBole's default
    assert "EASE (300)       NDCG@10 0.331, recall@10 0.281\n" in text
    assert "EASE, published  NDCG@10 0.331, recall@10 0.281\n" in text
    assert sum("image/png" in output.get("data", {}) for output in outputs) == 2


def test_benchmark_notebook_says_what_it_needs_where_the_data_is_missing(tmp_path, monkeypatch):
    monkeypatch.setenv("INTERESTKIT_DATA", str(tmp_path))
    text, outputs = run_alone("12", tmp_path / "run")
    assert text.startswith("ml-100k is not on this machine")
    assert len(outputs) == 1


def test_benchmark_notebook_says_what_it_needs_away_from_the_repository(tmp_path, monkeypatch):
    notebooks = tmp_path / "notebooks"
    notebooks.mkdir()
    shutil.copy(find_notebooks() / "12_benchmarks.ipynb", notebooks)
    monkeypatch.chdir(tmp_path)
    text, _ = run_alone("12", tmp_path / "run")
    assert "needs the repository, not the package alone" in text


def test_benchmark_notebook_has_the_settings_of_the_benchmark(monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    script = runpy.run_path(str(BENCHMARKS / "accuracy.py"))
    (benchmark,) = (nb for nb in list_notebooks(find_notebooks()) if nb.number == "12")
    shown = {name.lower(): value for name, value in benchmark.defaults.items()}
    shown |= {"repeat_length": shown["history_length"], "single_part_share": 0.0}
    expected = script["SETTINGS"]["hidden"]["training"] | script["SETTINGS"]["hidden"]["shape"]
    expected |= {f"linear_{name}": values for name, values in script["LINEAR"].items()}
    assert {name: shown.get(name) for name in expected} == expected
