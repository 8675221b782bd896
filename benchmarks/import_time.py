"""What `import interestkit` costs: a new process that does it beside one that does nothing.

It fails if the import has loaded one of the large packages in `HEAVY`.
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
    if loaded := [name for name in HEAVY if name in sys.modules]:
        raise RuntimeError(f"the import must load no large package, got {loaded}")
    return {"import_seconds": seconds}


def nothing() -> dict[str, float]:
    """Python and this script alone."""
    return {}


if __name__ == "__main__":
    sides = {"ours": Side(work=ours), "bare Python": Side(work=nothing)}
    main("import_time", __doc__, sides, repeats=10)
