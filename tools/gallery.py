"""Write docs/gallery.md and its pictures from notebooks/gallery.ipynb, which it runs.

Usage, from the root of the checkout: .venv/bin/python tools/gallery.py
"""

import base64
import io
import re
from collections.abc import Iterator
from pathlib import Path

import nbformat
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOK = ROOT / "notebooks" / "gallery.ipynb"
PAGE = ROOT / "docs" / "gallery.md"
PICTURES = ROOT / "docs" / "images" / "gallery"
HEAD = """# Gallery of figures

Every function of `interestkit.plots`, on a simulated log.
[notebooks/gallery.ipynb](../notebooks/gallery.ipynb) has the cells that made them;
`.venv/bin/python tools/gallery.py` runs it and writes this page.
"""


def executed() -> nbformat.NotebookNode:
    """The notebook with its outputs."""
    from nbclient import NotebookClient

    notebook = nbformat.read(NOTEBOOK, as_version=4)
    return NotebookClient(notebook, resources={"metadata": {"path": NOTEBOOK.parent}}).execute()


def entries(notebook: nbformat.NotebookNode) -> Iterator[tuple[str, str, str, str]]:
    """Text before the figure, name of its function, source and PNG (base64) of each figure."""
    text = ""
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            text = cell.source
            continue
        for output in cell.outputs:
            if "image/png" in output.get("data", {}):
                (name,) = re.findall(r"plots\.(\w+)\(", cell.source)
                yield text, name, cell.source, output.data["image/png"]


def small(png: str) -> bytes:
    """The picture with at most 128 colours, a third of the bytes."""
    picture = Image.open(io.BytesIO(base64.b64decode(png))).convert("RGB")
    out = io.BytesIO()
    picture.quantize(128, dither=Image.Dither.NONE).save(out, "png", optimize=True)
    return out.getvalue()


def main() -> None:
    """Run the notebook, write the page."""
    PICTURES.mkdir(parents=True, exist_ok=True)
    parts = [HEAD]
    for text, name, source, png in entries(executed()):
        (PICTURES / f"{name}.png").write_bytes(small(png))
        heading = re.search(r"### (.*)", text)[1]
        call = source.strip().splitlines()[-1].removesuffix(";")
        picture = f"![{heading}](images/gallery/{name}.png)"
        parts.append(f"{text.strip()}\n\n`{call}`\n\n{picture}\n")
    PAGE.write_text("\n".join(parts), encoding="utf-8")


if __name__ == "__main__":
    main()
