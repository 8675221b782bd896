"""JupyterLab as `make lab` opens it, and every notebook run in it by its menu."""

import shutil
import socket
import sys
import urllib.error
import urllib.request
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from browser.conftest import write_notebook
from interestkit.report import write_report

NOTEBOOKS = Path(__file__).resolve().parents[2] / "notebooks"
NAMES = sorted(path.name for path in NOTEBOOKS.glob("*.ipynb"))


def test_lab_opens_with_the_order_of_the_notebooks_and_leads_to_them(lab, page):
    from browsing import Notebook

    page.goto(lab.url)
    page.get_by_role("heading", name="The notebooks").wait_for()
    page.get_by_role("link", name="01 preprocessing").click()
    notebook = Notebook(page=page)
    notebook.wait_until_open()
    assert notebook.kernel() == "python3"
    notebook.end_kernel()


def test_lab_lets_nobody_in_from_elsewhere_or_without_the_token(lab):
    address = urlsplit(lab.url)
    with pytest.raises(urllib.error.HTTPError, match="403"):
        urllib.request.urlopen(f"http://127.0.0.1:{address.port}/api/contents")
    with urllib.request.urlopen(f"http://127.0.0.1:{address.port}/api/contents?{address.query}"):
        pass
    with pytest.raises(ConnectionRefusedError):  # any other address of this machine
        socket.create_connection(("127.0.0.2", address.port), timeout=5)


@pytest.mark.parametrize("name", NAMES)
def test_notebook_and_its_solutions_run_in_the_browser_on_hostile_titles(
    name, lab, open_notebook, parameters
):
    notebook = open_notebook(name)
    assert notebook.run_all() == []
    assert notebook.outputs()
    notebook.save()
    shutil.copy(lab.folder / name, parameters["RUN"])


def test_report_and_card_of_hostile_titles_run_no_script(page, finished_run):
    for path in (write_report(finished_run), finished_run / "model_card.html"):
        page.goto(path.as_uri())
        page.get_by_role("heading").first.wait_for()
        assert page.evaluate("window.hostile") is None
        assert page.get_by_text("window.hostile").count() > 0
        said = [image.get_attribute("alt") for image in page.locator("img").all()]
        assert all(said)  # each picture has words in its place
        assert (path.name == "report.html") == any(
            "over time, a row per interest" in s for s in said
        )


def test_a_script_that_runs_is_found(page, lab):
    from browsing import Notebook

    code = "from IPython.display import HTML\nHTML('<img src=x onerror=window.hostile=1>')"
    notebook = Notebook.open(page, lab, write_notebook(lab.folder, code))
    assert notebook.run_all() == []
    page.wait_for_function("window.hostile === 1")
    page.evaluate("delete window.hostile")  # the fixture looks for it
    notebook.end_kernel()


def test_a_failing_cell_is_found(open_notebook):
    notebook = open_notebook("01_preprocessing.ipynb", DATA="nothing-of-this-name")
    (error,) = notebook.run_all()
    assert error.startswith("ValueError: ")
    assert "nothing-of-this-name" in error


def test_kernel_is_that_of_the_kit(open_notebook):
    notebook = open_notebook("new_analysis.ipynb")
    assert notebook.ask("import sys; print(sys.executable)").strip() == sys.executable
