"""JupyterLab in a real browser: what the tests of this folder share.

A test asks for `open_notebook` and gets notebooks as a person has them on the screen:

    def test_the_figure_changes(open_notebook):
        notebook = open_notebook("06_exploration.ipynb", EPOCHS=1)  # a copy with small parameters
        assert notebook.run_all() == []  # Run > Run All Cells; the errors
        cell = notebook.cell("explore(")  # the cell with this text; what it shows is in it
        cell.get_by_role("slider").press("ArrowRight")
        cell.locator("select").select_option("ann")
        notebook.page.reload()
        notebook.wait_until_open()

`notebook` is `browsing.Notebook`: run_all, wait_until_idle, errors, outputs, cell, ask, save,
screenshot, and `page`, Playwright's own. `lab` is the server, started once for all tests on a
copy of the notebooks, and `lab.folder` that copy. `data` is a log of 300 hostile titles, whose
path is `DATA` in every copy; `RUN` is a folder of this session. What a notebook reads of those
before it is there: they have run in an earlier test, or run now without the browser. A test that
wants the whole run takes `finished_run`. After each test its page is looked at: no script of a
title ran, none of JupyterLab's or ours failed.
"""

import re
import shutil
import sys
from pathlib import Path

import hostile
import nbformat
import pytest

from interestkit.datasets import list_datasets
from interestkit.running import list_notebooks, read_notebook, run_notebooks

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOKS = ROOT / "notebooks"
LEAVES = {"01": "split", "02": "features_final", "03": "training.json"}  # what others read
LEAVES |= {"04": "recommendations.parquet", "05": "results.json"}
SMALL = {  # the least of everything; a notebook takes those that it has
    **{"EPOCHS": 1, "EXAMPLES_PER_EPOCH": 256, "BATCH_SIZE": 64, "ITEM_DIM": 8, "NUM_SEEDS": 1},
    **{"NUM_TRIALS": 2, "ARTICLE_EPOCHS": 2, "MIN_ITEM_EVENTS": 1},
    **{"NUM_USERS": 100, "NUM_ITEMS": 50, "DOUBLINGS": 0, "NUM_SHARDS": 2},
    **{"HIDDEN": [8], "HISTORY_LENGTH": 16, "LINEAR_WEIGHTS": [9]},
    **{"TIMES": ["day", "none"], "MIN_ITEM_USERS": [1, 3], "RELEASE_ITEM_USERS": 2},
    **{"USERS_PER_EPOCH": 60, "USERS_PER_STEP": 20, "OTHER_EPSILONS": [2.0]},
    **{"GRANULARITY": 4, "NUM_PEOPLE": 2, "LOOP_USERS": 40, "ROUNDS": 3, "LOOP_SEEDS": 2},
    **{"NUM_SHADOWS": 8, "ATTACKED_USERS": 40},
    **{"NUM_PERIODS": 2, "UPDATE_EXAMPLES": 256, "SWAPS": 199},
}


def pytest_collection_modifyitems(items):
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.browser)
            item.add_marker(pytest.mark.slow)


@pytest.fixture(scope="session")
def browser():
    """Chromium; without it the test is skipped."""
    browsing = pytest.importorskip("browsing", reason="the package playwright is not installed")
    if browsing.CHROMIUM is None:
        pytest.skip("no chromium on the PATH (Debian and Ubuntu: apt-get install chromium)")
    with browsing.open_browser() as browser:
        yield browser


@pytest.fixture(scope="session")
def data(tmp_path_factory):
    """A log of 300 hostile titles; its users, its interests and the file's name are hostile too."""
    path = tmp_path_factory.mktemp("data") / f"<img src=x onerror={hostile.SCRIPT}>.parquet"
    log = hostile.log_of()
    log.events.join(log.items, on="item").write_parquet(path)
    return path


@pytest.fixture(scope="session")
def lab(tmp_path_factory, browser):
    """JupyterLab on a copy of the notebooks, as `make lab` starts it."""
    from browsing import start_lab

    assert browser.is_connected()

    folder = tmp_path_factory.mktemp("lab")
    for name in ("notebooks", "benchmarks"):  # notebook 12 reads a benchmark
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns(".*"))
    quick = {"JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}  # compiling takes longer than running here
    quick["PATH"] = str(Path(sys.executable).parent)  # no Java: Spark takes half a minute
    with start_lab(folder / "notebooks", folder / "home", variables=quick) as lab:
        yield lab


@pytest.fixture
def page(browser):
    """A new page of the browser, without the cookies of others; its dialogs and errors fail."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    page, faults = context.new_page(), []
    page.on("dialog", lambda dialog: (faults.append(dialog.message), dialog.dismiss()))
    page.on("pageerror", lambda error: faults.append(str(error)))
    yield page
    assert page.evaluate("window.hostile") is None, "a script in a title ran"
    assert faults == []
    context.close()


@pytest.fixture(scope="session")
def parameters(data, tmp_path_factory):
    """What every notebook is run with."""
    return SMALL | {"DATA": str(data), "RUN": str(tmp_path_factory.mktemp("run"))}


@pytest.fixture
def open_notebook(page, lab, parameters):
    """Call it with a notebook's name, and parameters to change: the notebook on the screen."""
    from browsing import Notebook

    opened = []

    def open_it(name, **changed):
        run_what_comes_before(name, parameters)
        set_parameters(lab.folder / name, parameters | changed)
        opened.append(Notebook.open(page, lab, name))
        return opened[-1]

    yield open_it
    for notebook in opened:
        notebook.end_kernel()


@pytest.fixture
def finished_run(parameters):
    """The folder RUN once notebooks 01 to 05 have run, with their executed copies."""
    run_what_comes_before("06", parameters)
    return Path(parameters["RUN"])


def write_notebook(folder, *cells):
    """A notebook of these code cells, with the kernel of ours; its name."""
    path = folder / "live.ipynb"
    notebook = nbformat.read(NOTEBOOKS / "01_preprocessing.ipynb", as_version=4)
    notebook.cells = [nbformat.v4.new_code_cell(cell) for cell in cells]
    nbformat.write(notebook, path)
    return path.name


def run_what_comes_before(name, parameters):
    """Run the notebooks that this one needs and that no test has run yet, without a browser."""
    run = Path(parameters["RUN"])
    left = [n for n in list_notebooks(NOTEBOOKS) if n.number in LEAVES and n.number < name[:2]]
    left = [n for n in left if name[0].isdigit() and not (run / LEAVES[n.number]).exists()]
    assert run_notebooks(left, run, parameters=parameters, say=str) is None


def set_parameters(path, values):
    """Put the values into a copy of the notebook, after its own: those whose names it has.

    The solutions of its exercises become cells at its end.
    """
    path.write_bytes((NOTEBOOKS / path.name).read_bytes())
    found, notebook = read_notebook(path), nbformat.read(path, as_version=4)
    lines = [f"{name} = {value!r}" for name, value in values.items() if name in found.defaults]
    if lines:
        notebook.cells[found.parameters_at].source += "\n" + "\n".join(lines)
    if path.name != "12_benchmarks.ipynb" or list_datasets().filter(name="ml-100k")["available"][0]:
        solutions = re.findall(r"```python\n(.*?)```", notebook.cells[-1].source, re.DOTALL)
        notebook.cells += map(nbformat.v4.new_code_cell, solutions)
    nbformat.write(notebook, path)
