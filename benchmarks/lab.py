"""Seconds until JupyterLab can be clicked after `interestkit lab`, and to run a notebook in it.

    python benchmarks/lab.py [--notebook 04_prediction_and_recommendation.ipynb]

It opens the notebooks themselves (a notebook is not saved), in a Chromium without a window, with
settings of its own. Notebook 04 needs what 01 to 03 have left in its folder RUN.
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path

from browsing import Lab, Notebook, open_browser, start_lab
from playwright.sync_api import Browser

from interestkit.running import find_notebooks

NOTEBOOK = "04_prediction_and_recommendation.ipynb"


def ready(home: Path, browser: Browser) -> float:
    """Seconds from the command until the list of notebooks is there to click on."""
    began = time.perf_counter()
    with start_lab(find_notebooks(), home) as lab:
        page = browser.new_page()
        page.goto(lab.url)
        page.get_by_role("link", name="01 preprocessing").click(trial=True)
        return time.perf_counter() - began


def run_all(lab: Lab, browser: Browser, name: str) -> float:
    """Seconds from the click on Run All Cells until the last cell is done."""
    notebook = Notebook.open(browser.new_page(), lab, name)
    began = time.perf_counter()
    errors = notebook.run_all(600)
    seconds = time.perf_counter() - began
    notebook.end_kernel()
    if errors:
        raise RuntimeError(f"{name}: {errors}")
    return seconds


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--notebook", default=NOTEBOOK, help="run this one; '' runs none")
    parser.add_argument("--repeats", type=int, default=3, help="starts of JupyterLab")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as home, open_browser() as browser:
        homes = [Path(home, str(number)) for number in range(options.repeats)]
        starts = [ready(each, browser) for each in homes]
        print(f"ready to click: {statistics.median(starts):.1f} s", end=" ")
        print(f"({min(starts):.1f} to {max(starts):.1f}, {len(starts)} starts)", flush=True)
        if options.notebook:
            with start_lab(find_notebooks(), Path(home, "run")) as lab:
                seconds = run_all(lab, browser, options.notebook)
            print(f"{options.notebook}, all cells: {seconds:.1f} s")


if __name__ == "__main__":
    main()
