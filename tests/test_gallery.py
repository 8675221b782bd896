"""The gallery shows every figure, as a notebook and as a page."""

import re
from pathlib import Path

import nbformat

from interestkit import plots

ROOT = Path(__file__).resolve().parents[1]
FIGURES = set(plots.__all__) - {"STYLE", "use_style", "colour_of"}


def test_notebook_calls_every_plot_function():
    cells = nbformat.read(ROOT / "notebooks" / "gallery.ipynb", as_version=4).cells
    code = "\n".join(cell.source for cell in cells if cell.cell_type == "code")
    assert set(re.findall(r"plots\.(\w+)\(", code)) - {"use_style"} == FIGURES


def test_page_shows_every_plot_function_in_a_few_hundred_kilobytes():
    page = (ROOT / "docs" / "gallery.md").read_text(encoding="utf-8")
    pictures = re.findall(r"!\[(.+)\]\((images/gallery/(\w+)\.png)\)", page)
    assert {name for _, _, name in pictures} == FIGURES
    assert set(re.findall(r"`plots\.(\w+)\(", page)) >= FIGURES
    sizes = [(ROOT / "docs" / place).stat().st_size for _, place, _ in pictures]
    assert sum(sizes) < 500_000
