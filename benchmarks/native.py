"""The compiled training of a small MLP beside the same training written in C by hand.

The case of article.py (1,000 users x 10 features, MLP 100-100, 10 interests, Adam, batches of 32,
200 epochs). Ours is a second fit in one process, so that only the training is left; article.c is
built here with `cc -O3 -march=native -ffast-math`. Both use one thread, and each repeat is the
median of several fits. `loss` is that of the last epoch, with which the two can be seen to do the
same work; `cpu_seconds` moves less than `fit_seconds` on a busy machine.
"""

import resource
import statistics
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from article import BATCH, RATE, data
from timing import Side, main

FITS = 7  # in one process
SOURCE = Path(__file__).with_name("article.c")


def ours(users: int, epochs: int) -> dict[str, float]:
    """Fits after a first one that compiles."""
    from interestkit.classifier import fit_classifier

    features, labels = data(users)
    options = {"epochs": epochs, "batch_size": BATCH, "learning_rate": RATE}
    fit_classifier(features, labels, **options)
    seconds, losses, began = [], [], time.process_time()
    for seed in range(FITS):
        fitted = fit_classifier(features, labels, seed=seed, **options)
        seconds.append(fitted.seconds)
        losses.append(float(fitted.losses[-1]))
    return _measures(seconds, losses, time.process_time() - began)


def by_hand(users: int, epochs: int) -> dict[str, float]:
    """The C program."""
    with tempfile.TemporaryDirectory() as folder:
        program, *tables = (Path(folder) / name for name in ("article", "features", "labels"))
        flags = ["-std=gnu11", "-O3", "-march=native", "-ffast-math"]
        subprocess.run(["cc", *flags, str(SOURCE), "-lm", "-o", str(program)], check=True)
        for path, table in zip(tables, data(users), strict=True):
            table.astype(np.float32).tofile(path)
        words = [program, *tables, users, epochs, RATE, 0, FITS]
        began = _children_seconds()
        done = subprocess.run(list(map(str, words)), check=True, capture_output=True, text=True)
        spent = _children_seconds() - began
    seconds, losses = zip(
        *(map(float, line.split()) for line in done.stdout.splitlines()), strict=True
    )
    return _measures(seconds, losses, spent)


def _children_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _measures(seconds: Sequence[float], losses: Sequence[float], spent: float) -> dict[str, float]:
    return {
        "fit_seconds": statistics.median(seconds),
        "cpu_seconds": spent / FITS,
        "loss": statistics.fmean(losses),
    }


if __name__ == "__main__":
    main(
        "native",
        __doc__,
        {"ours": Side(work=ours), "C by hand": Side(work=by_hand)},
        options={"users": 1000, "epochs": 200},
        shown=("fit_seconds",),
    )
