"""How soon the interest map is drawn again, in JupyterLab in Chromium without a graphics card.

The map of made-up points is zoomed in steps; each time all points are drawn on the canvas, as they
are while a person drags it. A screen shows 60 pictures a second, one every 17 ms.

    python benchmarks/interest_map.py                  # or --points 200000
"""

import argparse
import statistics
import tempfile
from pathlib import Path

import nbformat
from browsing import Notebook, open_browser, start_lab

CELL = """import numpy as np
import polars as pl
from interestkit.widgets.map import InterestMap

rng, n = np.random.default_rng(0), {points}
table = {{"kind": ["item", "user"] * (n // 2), "name": [f"thing {{i}}" for i in range(n)]}}
table |= {{"interest": [f"interest {{i % 12}}" for i in range(n)], "events": [1] * n}}
table |= {{axis: rng.normal(size=n).clip(-3, 3) / 3 for axis in "xy"}}
InterestMap(pl.DataFrame(table))"""
REDRAW = """async canvas => {
  const drawn = [], frames = [];
  for (let n = 0; n < 100; n++) {
    canvas.dispatchEvent(new WheelEvent('wheel', {deltaY: n % 20 < 10 ? -1 : 1, cancelable: true,
      clientX: 500, clientY: 400}));
    const began = performance.now();
    canvas.redraw();
    drawn.push(performance.now() - began);
    await new Promise(requestAnimationFrame);
    frames.push(performance.now() - began);
  }
  return [drawn, frames];
}"""


def measure(points: int) -> tuple[list[float], list[float]]:
    """Milliseconds to draw all points, and from one picture to the next, a hundred times."""
    with tempfile.TemporaryDirectory() as place:
        folder, home = Path(place, "notebooks"), Path(place, "home")
        folder.mkdir()
        cell = nbformat.v4.new_code_cell(CELL.format(points=points))
        notebook = nbformat.v4.new_notebook(cells=[cell])
        notebook.metadata.kernelspec = {"name": "python3", "display_name": "Python 3"}
        nbformat.write(notebook, folder / "01_map.ipynb")
        with start_lab(folder, home) as lab, open_browser() as browser:
            page = browser.new_page(viewport={"width": 1280, "height": 900})
            opened = Notebook.open(page, lab, "01_map.ipynb")
            if errors := opened.run_all():
                raise RuntimeError("\n".join(errors))
            canvas = page.locator("canvas").first
            canvas.wait_for()
            found = canvas.evaluate(REDRAW)
            opened.end_kernel()
            return found


def main() -> None:
    """Print the median and the 95th percentile of both."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--points", type=int, default=50_000)
    points = parser.parse_args().points
    for what, times in zip(("drawing", "picture to picture"), measure(points), strict=True):
        late = statistics.quantiles(times, n=20)[-1]
        median = statistics.median(times)
        print(f"{points:,} points, {what}: median {median:.1f} ms, 95th percentile {late:.1f} ms")


if __name__ == "__main__":
    main()
