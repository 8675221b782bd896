"""What `import interestkit` costs: a new process that does it beside one that does nothing.

`heavy_modules` counts those of a list of large packages that the import has loaded, and names them
on the error stream: none should be.
"""

import sys
import time

from timing import Side, main

HEAVY = (
    *("jax", "flax", "optax", "numpy", "scipy", "pandas", "polars", "pyarrow", "narwhals"),
    *("matplotlib", "seaborn", "IPython", "ipywidgets", "jupyterlab", "papermill", "nbformat"),
)


def ours() -> dict[str, float]:
    """The import of the package."""
    began = time.perf_counter()
    import interestkit  # noqa: F401

    seconds = time.perf_counter() - began
    loaded = [name for name in HEAVY if name in sys.modules]
    print(f"loaded: {', '.join(loaded) or 'nothing heavy'}", file=sys.stderr)
    return {"import_seconds": seconds, "heavy_modules": len(loaded)}


def nothing() -> dict[str, float]:
    """Python and this script alone."""
    return {}


if __name__ == "__main__":
    sides = {"ours": Side(ours), "bare Python": Side(nothing)}
    main("import_time", __doc__, sides, repeats=10)
