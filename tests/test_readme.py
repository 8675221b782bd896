"""The README's code runs, and what it names exists."""

import importlib
import re
from pathlib import Path

import pytest

import interestkit as ik

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.mark.slow
def test_the_lines_for_a_notebook_of_ones_own_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (code,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert 'ik.load("complete-journey")' in code
    code = code.replace('"complete-journey"', '"simulated", num_users=80, num_items=40')
    code = code.replace("stop_after=3", "stop_after=1, progress=False, item_dim=8")
    code = code.replace("temporal_split(log)", "temporal_split(log, min_judged=0)")
    names = {}
    exec(code, names)
    table = names["evaluation"].table()
    assert set(table["model"]) == {"model", "popular"}
    assert table.filter(target="items", metric="NDCG@10")["value"].is_between(0, 1).all()
    assert Path("card", "model_card.html").is_file()


def test_every_file_that_the_readme_links_to_exists():
    links = re.findall(r"\]\(([^)#]+)\)", README)
    assert len(links) > 8
    assert [link for link in links if "://" not in link and not (ROOT / link).exists()] == []


def test_the_readme_names_every_notebook_and_data_set():
    for path in (ROOT / "notebooks").glob("[0-9]*.ipynb"):
        assert f"notebooks/{path.name}" in README
    for name in ik.list_datasets()["name"]:
        assert f"`{name}`" in README


def test_the_readme_shows_the_table_of_the_accuracy_benchmark():
    text = (ROOT / "docs" / "accuracy.md").read_text(encoding="utf-8")
    table = re.search(r"\| data, protocol .*?\n\n", text, re.DOTALL)[0]
    assert table.count("\n") > 12
    assert table in README


def test_the_readme_names_everything_public_on_one_page():
    page = README.split("### All its names")[1].split("\n## ")[0]
    public = {*ik.__all__, *ik.exploration.__all__, *ik.privacy.__all__} - {"__version__"}
    assert sorted(name for name in public if f"`{name}`" not in page) == ["exploration", "privacy"]
    assert page.count("\n") < 60
    for package in (ik, ik.exploration, ik.privacy):
        assert [name for name in package.__all__ if not hasattr(package, name)] == []


@pytest.mark.parametrize(
    ("script", "page"),
    [
        *(("accuracy", "accuracy"), ("faults", "faults"), ("multimodal", "multimodal")),
        *(("novel_interests", "novel_interests"), ("sequence", "sequence"), ("summary", "speed")),
    ],
)
def test_what_a_page_says_around_its_tables_is_in_the_script_that_writes_it(script, page):
    made = importlib.import_module(script)
    text = (ROOT / "docs" / f"{page}.md").read_text(encoding="utf-8")
    assert text.startswith(made.HEAD)
    assert text.endswith(getattr(made, "NOTE", ""))
