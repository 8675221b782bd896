"""What `torture.py` tortures: processes that can be killed in the middle, and a small training."""

import ctypes
import json
import os
import shutil
import signal
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

NOTHING, FULL_ONCE, FULL_FROM_HERE, KILL = range(4)  # as in torture.c
SHAPE = {"item_dim": 8, "hidden": (16,), "history_length": 8, "repeat_length": 16}
LIMIT = 1200  # seconds after which a process hangs


class State(NamedTuple):
    """Arrays of a training state by name, those of its weights apart, as `load_progress` asks."""

    params: dict
    rest: dict


class Replay(NamedTuple):
    """What a training went through: its progress after each epoch, and whose it is."""

    epochs: list
    identity: dict


def arm(folder: Path | str, at: int, how: int) -> None:
    """Count calls below the folder from 1 on, and let one of them go wrong."""
    ctypes.CDLL(None).torture_arm(str(folder).encode(), ctypes.c_long(at), how)


def calls() -> int:
    """How many calls have been counted."""
    counter = ctypes.CDLL(None).torture_seen
    counter.restype = ctypes.c_long
    return counter()


class Child:
    """A forked process that reports lines of JSON, and can be killed at any moment."""

    def __init__(self, work: Callable, *arguments: object):
        reading, writing = os.pipe()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self.pid = os.fork()
        if not self.pid:
            os.close(reading)
            signal.alarm(LIMIT)
            self._run(work, arguments, writing)
        os.close(writing)
        self.lines = os.fdopen(reading, "r", encoding="utf-8")

    @staticmethod
    def _run(work: Callable, arguments: tuple, writing: int) -> None:
        code = 1
        try:
            work(*arguments, say=lambda said: os.write(writing, json.dumps(said).encode() + b"\n"))
            code = 0
        except BaseException:
            import traceback

            traceback.print_exc()
        finally:
            os._exit(code)

    def end(self, first: list[str] = (), *, kill: bool = False) -> tuple[list, int]:
        """What it reported, and the signal that ended it, or 0; an error of its own is raised.

        `first` are lines that have been read already.
        """
        if kill:
            os.kill(self.pid, signal.SIGKILL)
        said = [json.loads(line) for line in (*first, *self.lines) if line]
        self.lines.close()
        code = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        if code > 0 or code == -signal.SIGALRM:
            raise RuntimeError(f"the process ended with {code}, after {said[-3:]}")
        return said, -code


def apart(work: Callable, *arguments: object):
    """What a function reports last, called in another process: this one stays without threads."""
    return Child(work, *arguments).end()[0][-1]


@contextmanager
def armed(folder: Path, at: int, how: int) -> Iterator[None]:
    """A context in which a call below the folder fails."""
    arm(folder, at, how)
    try:
        yield
    finally:
        arm("", 0, NOTHING)


def _world():
    import interestkit as ik

    log = ik.simulate(num_users=80, num_items=40, events_per_user=20, num_bots=0, faults=0, seed=3)
    split = ik.temporal_split(log, min_judged=0)
    features = ik.fit_features(split.train, split.items, min_item_events=1)
    settings = {"epochs": 8, "examples_per_epoch": 512, "batch_size": 64, "shards_at_once": 2}
    return split, features, ik.TrainingConfig(**settings, patience=2)


def fit(world: Path, run: Path, number: int, **options: object):
    """One of four kinds of fit: in memory or from shards, with validation or without."""
    import jax

    import interestkit as ik

    jax.config.update("jax_disable_most_optimizations", True)
    split, features, config = _world()
    data = features.histories(split.train)
    if number % 2:
        data = ik.Shards.read(world / "shards")
    if number // 2 % 2:
        options["validation"] = ik.held_out(features, split, "validation")
    fixed = {"config": config, "seed": number % 4, "progress": False}
    return ik.fit(features, data, checkpoint=run, **fixed, **options, **SHAPE)


def digest(result) -> str:
    """Of all weights, and of the curve but for its seconds."""
    import hashlib

    import jax
    from flax import nnx

    digest = hashlib.sha256(result.curve.drop("seconds", "waited").write_csv().encode())
    for leaf in jax.tree.leaves(nnx.split(result.model)[1]):
        digest.update(bytes(memoryview(leaf[...]).cast("B")))
    return digest.hexdigest()


def make_world(world: Path, say: Callable) -> None:
    """Shards, the kept states of one training, and a split, features and models that are saved."""
    import interestkit as ik
    from interestkit import checkpoint

    split, features, _ = _world()
    ik.write_shards(split.train, world / "shards", num_shards=5)
    save = checkpoint.save_progress

    def keep(folder, progress, identity):
        save(folder, progress, identity)
        epoch = f"epoch-{len(progress.rows):05d}"
        shutil.copytree(Path(folder) / epoch, world / "states" / epoch)

    checkpoint.save_progress = keep
    result = fit(world, world / "run", 2)
    for number in (0, 1):
        chosen = features if number == 0 else ik.fit_features(split.before("test"), split.items)
        folder = world / f"saved-{number}"
        split.save(folder / "split")
        chosen.save(folder / "features")
        ik.Predictor(features=features, model=result.model).save(folder / "model")
    say("made")


def replay_of(world: Path) -> Replay:
    """The kept states of a training."""
    from interestkit.checkpoint import Progress
    from interestkit.storage import load_folder

    epochs = []
    for folder in sorted((world / "states").iterdir()):
        stored = load_folder(folder, kind="training state")
        state, rows = _state(stored.arrays), tuple(stored.meta["rows"])
        best = stored.meta["best_epoch"]
        weights = state.params if best == len(rows) else epochs[best - 1].state.params
        epochs.append(Progress(state, weights, rows, best))
    return Replay(epochs, stored.meta["identity"])


def _state(arrays: dict) -> State:
    own = {name: array for name, array in arrays.items() if name.startswith("['state']")}
    is_weight = {name: ".params" in name for name in own}
    parts = ({n: a for n, a in own.items() if is_weight[n] == wanted} for wanted in (True, False))
    return State(*parts)


def _same(one, other) -> bool:
    """Whether two states, or weights, are the same bit for bit."""
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(_same(one[name], other[name]) for name in one)
    if isinstance(one, tuple):
        return all(map(_same, one, other))
    return one.dtype == other.dtype and one.tobytes() == other.tobytes()


def is_epoch(found, replay: Replay) -> bool:
    """Whether a progress is the one of its epoch."""
    expected = replay.epochs[len(found.rows) - 1]
    return found[2:] == expected[2:] and _same(found[:2], expected[:2])


def litter(folder: Path, states: int = 2) -> int:
    """Hidden files in a folder and beside it, and states of training but for so many."""
    hidden = [path for at in (folder, folder.parent) for path in at.glob(".*")]
    return len(hidden) + max(len(list(folder.glob("epoch-*"))) - states, 0)
