"""Nothing that was saved is lost, and nothing that is damaged is read: saves under torture.

    python benchmarks/torture.py                     # 1,000 kills, 10,000 damages, a disk full at
                                                     # each call of each save, the cost of saving
    python benchmarks/torture.py --kills 0 --kills_inside 0 --damages 0 --overhead ""

Needs Linux and a C compiler. Kills hit processes that train, and processes that save the states of
a real training again and again, which takes milliseconds instead of seconds. Half of the damages
hit states of training, the others a saved split, features and model. Numbers go to
runs/benchmarks/torture.json.
"""

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path

from torture_files import damages, disk_full, overhead
from torture_world import (
    KILL,
    NOTHING,
    Child,
    Replay,
    apart,
    arm,
    calls,
    digest,
    fit,
    is_epoch,
    litter,
    make_world,
    replay_of,
)

HERE = Path(__file__).resolve().parent


def main() -> None:
    """Run what is asked for, print and write the numbers."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for name, value in (
        *(("kills", 688), ("kills_inside", 294), ("training_kills", 12)),
        *(("training_kills_inside", 6), ("damages", 10_000), ("seed", 0)),
    ):
        parser.add_argument(f"--{name}", type=int, default=value, help=f"default {value}")
    parser.add_argument("--overhead", default="complete-journey", help='data set, or "" for none')
    parser.add_argument("--no_full_disk", action="store_true", help="leave the full disk out")
    parser.add_argument("--out", default=str(HERE.parent / "runs" / "benchmarks" / "torture.json"))
    given = parser.parse_args()
    _preload()
    random.seed(given.seed)
    for name in ("simulation", "splitting", "features", "shards", "heldout", "training"):
        import_module(f"interestkit.{name}")  # here, so that forked processes need not
    found, out = {"options": vars(given)}, Path(given.out)
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=os.environ.get("TMPDIR")) as folder:
        for name, numbers in _parts(Path(folder), given):
            found[name] = numbers
            out.write_text(json.dumps(found, indent=1) + "\n", "utf-8")
            print(name, json.dumps(numbers), flush=True)
    failures = _failures(found)
    print("\n".join(failures) or "nothing was lost")
    sys.exit(bool(failures))


def _parts(folder: Path, given: argparse.Namespace) -> Iterator[tuple[str, dict]]:
    """Names and numbers of what is asked for."""
    apart(make_world, folder / "world")
    if given.kills + given.kills_inside:
        yield "replayed", kills_of_replays(folder, given.kills, given.kills_inside)
    if given.training_kills + given.training_kills_inside:
        numbers = given.training_kills, given.training_kills_inside
        yield "trained", kills_of_training(folder, *numbers)
    if not given.no_full_disk:
        yield "disk_full", apart(disk_full, folder)
    if given.damages:
        yield "damaged", apart(damages, folder, given.damages, given.seed)
    if given.overhead:
        yield "overhead", apart(overhead, given.overhead)


def _failures(found: dict) -> list[str]:
    """What must be zero and is not."""
    zero = ("lost", "wrong", "accepted", "litter", "other_errors", "differing")
    return [
        f"{part}: {name} {numbers[name]}"
        for part, numbers in found.items()
        if isinstance(numbers, dict)
        for name in zero
        if numbers.get(name)
    ]


def _preload() -> None:
    """Begin again with torture.c loaded, and as few threads as processes can be forked with."""
    if "torture" in os.environ.get("LD_PRELOAD", ""):
        return
    library = Path(tempfile.mkdtemp()) / "torture.so"
    compiler = shutil.which("cc") or sys.exit("torture needs a C compiler (cc)")
    command = [compiler, "-shared", "-fPIC", "-O2", "-o", library, HERE / "torture.c", "-ldl"]
    subprocess.run(command, check=True)
    settings = {"LD_PRELOAD": str(library), "OPENBLAS_NUM_THREADS": "1"}
    os.execve(sys.executable, [sys.executable, *sys.argv], os.environ | settings)


def kills_of_replays(folder: Path, kills: int, inside: int) -> dict:
    """Kill processes that save the states of a training, over and over."""
    replay = replay_of(folder / "world")
    runs = folder / "replays"
    runs.mkdir()
    _, num_calls, seconds = Child(_save_states, runs / "0", replay, 1).end()[0][-1]
    how = [False] * kills + [True] * inside
    random.shuffle(how)

    def start(run: Path, is_inside: bool) -> Child:
        at = random.randrange(1, 2 * num_calls) if is_inside else 0
        return Child(_save_states, run, replay, 50, at)

    return _kill(runs, how, start, lambda: (1, random.uniform(0, seconds / 2)))


def _save_states(run: Path, replay: Replay, runs: int, kill_at: int = 0, *, say: Callable) -> None:
    """Save each state of a training, from where the folder has come; then those of the next run."""
    from interestkit.checkpoint import load_progress, save_progress

    arm(run.parent, kill_at, KILL if kill_at else NOTHING)
    began = time.perf_counter()
    for number in range(int(run.name), int(run.name) + runs):
        run = run.with_name(str(number))
        found = load_progress(run, replay.epochs[0].state, replay.identity)
        done = len(found.rows) if found else 0
        say(["resumed", number, done, not found or is_epoch(found, replay)])
        for epoch in range(done, len(replay.epochs)):
            save_progress(run, replay.epochs[epoch], replay.identity)
            say(["saved", number, epoch + 1, litter(run)])
        last = load_progress(run, replay.epochs[0].state, replay.identity)
        say(["ended", number, is_epoch(last, replay)])
        shutil.rmtree(run)
    say(["calls", calls(), time.perf_counter() - began])


def kills_of_training(folder: Path, kills: int, inside: int) -> dict:
    """Kill processes that train; each run must end with the weights of one that was not killed."""
    world, runs = folder / "world", folder / "trainings"
    runs.mkdir()
    whole, lasted, counts = {}, [], []
    for number in range(4):  # `fit` has four kinds
        said, _ = Child(_train, world, runs / f"{number}-whole").end()
        whole[number], seconds, counted = said[-1]
        lasted.append(seconds)
        counts.append(counted)
        shutil.rmtree(runs / f"{number}-whole")
    how = [False] * kills + [True] * inside
    random.shuffle(how)

    def start(run: Path, is_inside: bool) -> Child:
        at = random.randrange(1, min(counts)) if is_inside else 0
        return Child(_train, world, run, whole, at)

    def moment() -> tuple[int, float]:
        return random.randrange(1, 13), random.uniform(0, max(lasted))

    return _kill(runs, how, start, moment)


def _train(
    world: Path, run: Path, whole: dict | None = None, kill_at: int = 0, *, say: Callable
) -> None:
    """Train run after run until killed, or once where the weights are what is asked for."""
    from interestkit import checkpoint

    save, load = checkpoint.save_progress, checkpoint.load_progress
    number = int(run.name.split("-")[0])

    def saved(folder, progress, identity):
        save(folder, progress, identity)
        say(["saved", number, len(progress.rows), litter(Path(folder))])

    def resumed(folder, like, identity):
        found = load(folder, like, identity)
        say(["resumed", number, len(found.rows) if found else 0, True])
        return found

    checkpoint.save_progress, checkpoint.load_progress = saved, resumed
    arm(run.parent, kill_at, KILL if kill_at else NOTHING)
    if whole is None:
        result = fit(world, run, number)
        seconds = result.curve["seconds"]  # of an epoch and its save, once compiled
        say([digest(result), (seconds[-1] - seconds[0]) / (len(seconds) - 1), calls()])
        return
    while True:
        result = fit(world, run.with_name(str(number)), number)
        say(["ended", number, digest(result) == whole[number % 4]])
        shutil.rmtree(run.with_name(str(number)))
        number += 1


def _kill(
    runs: Path, how: list[bool], start: Callable, moment: Callable[[], tuple[int, float]]
) -> dict:
    """Kill process after process, and hold what each one finds to what the last had saved.

    `moment` says when: so many seconds after so many lines have been reported.
    """
    found = Counter(kills=0, inside=0, lost=0, wrong=0, saves=0, ended=0, litter=0)
    number, epoch = 0, 0  # what was saved last
    for is_inside in how:
        child, first = start(runs / str(number), is_inside), []
        if not is_inside:
            lines, seconds = moment()
            first = [child.lines.readline() for _ in range(lines)]
            time.sleep(seconds)
        said, ended_by = child.end(first, kill=not is_inside)
        found["kills"] += ended_by == signal.SIGKILL
        found["inside"] += ended_by == signal.SIGKILL and is_inside
        for what, run, *rest in said:
            if what == "resumed":
                found["lost"] += (run, rest[0]) < (number, epoch)
                found["wrong"] += not rest[1]
                number, epoch = run, rest[0]
            elif what == "saved":
                found["saves"] += 1
                found["litter"] += rest[1]
                number, epoch = run, rest[0]
            elif what == "ended":
                found["ended"] += 1
                found["wrong"] += not rest[0]
                number, epoch = run + 1, 0
        shutil.rmtree(runs / str(number - 1), ignore_errors=True)
    return dict(found)


if __name__ == "__main__":
    main()
