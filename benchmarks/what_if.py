"""How soon the what-if widget answers a change: model, tables and all, without the browser.

Events are added to, moved in and removed from the history of a user by the methods that the
buttons call. The first change, which compiles, is not counted.

    python benchmarks/what_if.py                       # or --data movielens-small --changes 1000
"""

import argparse
import time

import numpy as np
from timing import FIVE_CORE

import interestkit as ik

LIMIT = 100  # milliseconds: what is faster feels immediate


def model_of(data: str) -> tuple[ik.Predictor, object]:
    """A model after one short epoch, which answers as fast as any, and the known histories."""
    log, _ = ik.clean(ik.load(data), **FIVE_CORE)
    features = ik.fit_features(log.events, log.items)
    histories = features.histories(log.events)
    config = ik.TrainingConfig(examples_per_epoch=1_280)
    model = ik.fit(features, histories, config=config, stop_after=1, progress=False).model
    return ik.Predictor(features=features, model=model), histories


def milliseconds(widget, changes: int) -> np.ndarray:
    """Time of each change: by turns one adds an item, moves it back, and removes it."""
    codes = np.random.default_rng(0).integers(0, widget.features.num_items, changes)
    widget.add(int(codes[0]))
    taken = []
    for number, code in enumerate(codes):
        began = time.perf_counter()
        match number % 3:
            case 0:
                widget.add(int(code))
            case 1:
                widget.list.value = len(widget.item) - 1
                widget.earlier()
            case 2:
                widget.remove()
        taken.append(1000 * (time.perf_counter() - began))
    return np.array(taken)


def main() -> None:
    """Print the median and the 95th percentile."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default="complete-journey")
    parser.add_argument("--changes", type=int, default=300)
    options = parser.parse_args()
    predictor, histories = model_of(options.data)
    longest = int(histories.lengths.argmax())
    typical = int(np.argsort(histories.lengths)[len(histories) // 2])
    for name, user in (("typical", typical), ("longest", longest)):
        history = histories.rows(user, user + 1)
        taken = milliseconds(ik.what_if(predictor, history), options.changes)
        median, late = np.percentile(taken, [50, 95])
        print(
            f"{options.data}, {predictor.features.num_items:,} items, {name} history "
            f"({len(history.item):,} events): median {median:.1f} ms, "
            f"95th percentile {late:.1f} ms, "
            f"{(taken < LIMIT).mean():.1%} of {len(taken)} changes under {LIMIT} ms"
        )


if __name__ == "__main__":
    main()
