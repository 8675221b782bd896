"""One progress bar that reads well in a terminal, in JupyterLab and in an executed notebook."""

import sys
from collections.abc import Iterable, Iterator


def progress_bar(steps: Iterable, *, label: str, unit: str, enabled: bool = True) -> Iterator:
    """The steps, with a text bar that is drawn while they are taken.

    A text bar stays in an executed notebook as it ended, where a widget would stand at 0 %.

    Args:
        steps: What to go through; its length, if it has one, is the length of the bar.
        label: What is going on.
        unit: Name of one step.
        enabled: Draw it; False draws nothing.

    Example:
        >>> list(progress_bar([1, 2], label="counting", unit="number", enabled=False))
        [1, 2]
    """
    from tqdm import tqdm

    where = sys.stdout if "ipykernel" in sys.modules else sys.stderr
    return tqdm(steps, desc=label, unit=unit, disable=not enabled, file=where, ncols=90)
