"""Training examples per second on 20,000 items, ours against a dense autoencoder, and memory.

An example is one row of a batch: a user at one moment (ours), or a user (the autoencoder). Ours is
`fit` with its default settings (batches of 128, softmax over 2,048 sampled items). The autoencoder
is Mult-DAE as its authors describe it (Liang et al. 2018): rows of all items, scattered from the
log on the fly without a data loader, normalised, dropout 0.5, layers items-600-200-600-items with
tanh, multinomial log-likelihood, Adam at 1e-3, batches of 500. Seconds are those of whole epochs
after the first, without compilation; the log is read, and features fitted, in another process. No
program is found compiled, so that the peak of memory is that of a first fit. Examples per processor
second say what the work costs where others use the machine too. "bytes per event" is what the
process's peak grew by in training, for each event: with --users 50000 and 200000 it tells what the
log costs.
"""

import time
from itertools import pairwise

import numpy as np
from simulated import Events, features_of, forget_programs, histories_of, read
from timing import PEERS, Side, apart, main, peak_gigabytes

ROWS = 500  # in a batch of the autoencoder


def ours(*, users: int, items: int, steps: int) -> dict:
    """`fit` with its defaults; an epoch has `steps` steps."""
    forget_programs()
    from interestkit.examples import TrainingConfig
    from interestkit.training import fit

    features, log = apart(prepared, users, items)
    before = peak_gigabytes()
    config = TrainingConfig(epochs=4, examples_per_epoch=steps * 128)
    clock = Clock()
    fit(features, log, config=config, progress=False, on_epoch=clock.tick)
    return clock.found(config.steps * config.batch_size) | {
        "gigabytes_before_training": before,
        "bytes_per_event": (peak_gigabytes() - before) * 1e9 / len(log.item),
        "events": len(log.item),
    }


def prepared(users: int, items: int):
    """Features and histories of the log."""
    features, events = features_of(read(users=users, items=items))
    return features, histories_of(events)


class Clock:
    """Wall and processor seconds at the start and at the end of each epoch."""

    def __init__(self):
        self.times = []
        self.tick()

    def tick(self, *_: object) -> None:
        """An epoch has ended."""
        self.times.append((time.perf_counter(), time.process_time()))

    def found(self, examples: int) -> dict[str, float]:
        """Examples per second after the first epoch, and what the first one took."""
        (began, _), (wall, processor), *_, last = self.times
        examples = examples * (len(self.times) - 2)
        return {
            "examples_per_second": examples / (last[0] - wall),
            "examples_per_processor_second": examples / (last[1] - processor),
            "first_epoch_seconds": wall - began,
        }


def autoencoder(*, users: int, items: int, steps: int) -> dict:
    """Mult-DAE in PyTorch, on all cores; an epoch has a tenth of `steps`, of more rows each."""
    import torch
    from torch import nn

    events = read(users=users, items=items)
    before = peak_gigabytes()
    torch.manual_seed(0)
    layers = [nn.Dropout(0.5)]
    for width, following in pairwise((items, 600, 200, 600, items)):
        layers += [nn.Linear(width, following), nn.Tanh()]
    model = nn.Sequential(*layers[:-1])
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    rng, clock, steps = np.random.default_rng(0), Clock(), max(1, steps // 10)
    for _ in range(3):
        for _ in range(steps):
            dense = torch.zeros(ROWS, items)
            dense[tuple(map(torch.from_numpy, places(events, rng.integers(0, users, ROWS))))] = 1.0
            said = torch.log_softmax(model(nn.functional.normalize(dense)), dim=1)
            optimizer.zero_grad()
            (-(said * dense).sum(dim=1).mean()).backward()
            optimizer.step()
        clock.tick()
    grown = (peak_gigabytes() - before) * 1e9
    return clock.found(steps * ROWS) | {
        "gigabytes_before_training": before,
        "bytes_per_event": grown / len(events.item),
        "events": len(events.item),
    }


def places(events: Events, users: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Row and column of each event of these users, one row for each of them."""
    starts, lengths = events.offsets[users], np.diff(events.offsets)[users]
    row = np.repeat(np.arange(len(users)), lengths)
    at = np.arange(len(row)) - np.repeat(np.cumsum(lengths) - lengths - starts, lengths)
    return row, events.item[at].astype(np.int64)


if __name__ == "__main__":
    main(
        "throughput",
        __doc__,
        {
            "interestkit": Side(work=ours),
            "dense autoencoder": Side(work=autoencoder, environment=PEERS / "recbole"),
        },
        options={"users": 100_000, "items": 20_000, "steps": 100},
        repeats=3,
        shown=("examples_per_second", "examples_per_processor_second", "peak_gigabytes"),
    )
