"""A program for `test_checkpoint.py`: fits with a checkpoint, and can be killed in the middle.

    python killed.py FOLDER CHECKPOINT WHERE EPOCH

FOLDER has a split, as small as that of the tests, or the shards of one. WHERE is "save" (killed
while the state of EPOCH is written), "epoch" (killed after it), or "never".
"""

import os
import signal
import sys
from pathlib import Path

import jax

import interestkit as ik
from interestkit import storage

SHAPE = {"item_dim": 8, "hidden": (16,), "history_length": 8, "repeat_length": 16}


def world():
    """A split, features fitted on it, and settings."""
    log = ik.simulate(num_users=80, num_items=40, events_per_user=20, num_bots=0, faults=0, seed=3)
    split = ik.temporal_split(log, min_judged=0)
    features = ik.fit_features(split.train, split.items, min_item_events=1)
    settings = {"epochs": 5, "examples_per_epoch": 512, "batch_size": 64, "shards_at_once": 2}
    return split, features, ik.TrainingConfig(**settings)


def fit(checkpoint, shards=None, **changes):
    """Trained on shards, or without them in memory."""
    split, features, config = world()
    data = features.histories(split.train) if shards is None else ik.Shards.read(shards)
    options = {"validation": ik.held_out(features, split, "validation"), "config": config}
    return ik.fit(
        features,
        data,
        **(options | {"progress": False, "checkpoint": checkpoint} | changes),
        **SHAPE,
    )


def main(checkpoint: str, where: str, epoch: str, shards: str = "") -> None:
    jax.config.update("jax_disable_most_optimizations", True)
    folder, epoch = Path(checkpoint), int(epoch)
    swap = storage._swap_in

    def kill_before(fresh, folder):
        if kill_before.saved == epoch - 1:
            os.kill(os.getpid(), signal.SIGKILL)
        kill_before.saved += 1
        swap(fresh, folder)

    def kill_after(row):
        if row["epoch"] == epoch:
            os.kill(os.getpid(), signal.SIGKILL)

    if where == "save":
        kill_before.saved = 0
        storage._swap_in = kill_before
    fit(folder, shards or None, on_epoch=kill_after if where == "epoch" else None)


if __name__ == "__main__":
    main(*sys.argv[1:])
