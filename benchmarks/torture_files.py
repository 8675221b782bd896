"""For `torture.py`: a disk that is full, files that are damaged, and what saving costs."""

import random
import shutil
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import NamedTuple

from timing import FIVE_CORE
from torture_world import (
    FULL_FROM_HERE,
    FULL_ONCE,
    NOTHING,
    Replay,
    arm,
    armed,
    calls,
    is_epoch,
    litter,
    replay_of,
)


class Case(NamedTuple):
    """Something that is saved.

    Args:
        target: Where.
        prepare: Puts there what was saved before.
        save: Saves it again.
        is_whole: Whether reading gives what was saved before, or now.
    """

    target: Path
    prepare: Callable[[], object]
    save: Callable[[], object]
    is_whole: Callable[[], bool]


def disk_full(folder: Path, say: Callable) -> None:
    """Fill the disk at each call of each save, once and for good: what was there must be whole."""
    found = Counter(calls=0, errors=0, other_errors=0, wrong=0, litter=0)
    for case in _cases(folder / "world", folder / "full"):
        case.prepare()
        arm(case.target.parent, 0, NOTHING)
        case.save()
        for at in range(1, calls() + 1):
            for how in (FULL_ONCE, FULL_FROM_HERE):
                case.prepare()
                found["calls"] += 1
                with armed(case.target.parent, at, how):
                    found[_error_of(case.save)] += 1
                found["wrong"] += not case.is_whole()
                found["litter"] += litter(case.target, states=3)
                case.save()  # there is room again
                found["litter"] += litter(case.target)
    say(dict(found))


def _error_of(save: Callable) -> str:
    try:
        save()
    except OSError:
        return "errors"
    except Exception:
        return "other_errors"
    return "went_on"


def _cases(world: Path, full: Path) -> Iterator[Case]:
    from interestkit.checkpoint import load_progress, save_progress

    replay, states = replay_of(world), full / "states"

    def two_states():
        shutil.rmtree(states, ignore_errors=True)
        for progress in replay.epochs[:2]:
            save_progress(states, progress, replay.identity)

    def is_last_or_new():
        read = load_progress(states, replay.epochs[0].state, replay.identity)
        return len(read.rows) in (2, 3) and is_epoch(read, replay)

    third = replay.epochs[2]
    yield Case(
        states, two_states, lambda: save_progress(states, third, replay.identity), is_last_or_new
    )
    for kind, load in _loaders().items():
        saved, target = world / "saved-0" / kind, full / kind
        kept = load(saved)

        def copy(saved=saved, target=target):
            shutil.rmtree(target, ignore_errors=True)
            shutil.copytree(saved, target)

        def is_whole(saved=saved, target=target, load=load):
            load(target)
            return all(
                (target / own.name).read_bytes() == own.read_bytes() for own in saved.iterdir()
            )

        yield Case(target, copy, lambda kept=kept, to=target: kept.save(to), is_whole)


def _loaders() -> dict[str, Callable]:
    import interestkit as ik

    return {"split": ik.Split.load, "features": ik.Features.load, "model": ik.Predictor.load}


def damages(folder: Path, number: int, seed: int, say: Callable) -> None:
    """Damage what is saved, in ten ways: reading it must be an error, or a warning and older."""
    random.seed(seed)
    replay, world = replay_of(folder / "world"), folder / "world"
    kept = _last_states(folder / "kept", replay)
    found = Counter(damages=0, refused=0, older_with_warning=0, accepted=0, other_errors=0)
    kinds, loaders, work = Counter(), _loaders(), folder / "damaged"
    loaders["states"] = lambda at: _read_states(at, replay)
    for nth in count():
        if found["damages"] == number:
            break
        shutil.rmtree(work, ignore_errors=True)
        kind = "states" if nth % 2 else ("split", "features", "model")[nth // 2 % 3]
        if kind == "states":
            shutil.copytree(kept / "last", work)
            hit, other = sorted(work.iterdir())[nth % 4 == 1 :], kept / "first"
        else:
            shutil.copytree(world / "saved-0" / kind, work)
            hit, other = [work], world / "saved-1" / {"split": "model"}.get(kind, kind)
        how = random.choice(WAYS)
        if all(tuple(how(at, other) for at in hit)):  # or else nothing has changed
            found["damages"] += 1
            kinds[how.__name__.strip("_")] += 1
            found[_outcome(loaders[kind], work)] += 1
    say(dict(found) | {"kinds": dict(kinds)})


def _last_states(kept: Path, replay: Replay) -> Path:
    """The second and third state of a training, and the first."""
    from interestkit.checkpoint import save_progress

    for progress in replay.epochs[:3]:
        save_progress(kept / "last", progress, replay.identity)
        if len(progress.rows) == 1:
            shutil.copytree(kept / "last" / "epoch-00001", kept / "first")
    return kept


def _read_states(folder: Path, replay: Replay) -> None:
    """Read a training state; a warning must say that it is the second."""
    from interestkit.checkpoint import load_progress

    found = load_progress(folder, replay.epochs[0].state, replay.identity)
    if not is_epoch(found, replay):
        raise AssertionError("a wrong state was read")


def _outcome(load: Callable, folder: Path) -> str:
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        try:
            load(folder)
        except (ValueError, FileNotFoundError):
            return "refused"
        except AssertionError:
            return "accepted"
        except Exception:
            traceback.print_exc()
            return "other_errors"
    return "older_with_warning" if said else "accepted"


def _some_file(folder: Path) -> Path:
    return random.choice(sorted(path for path in folder.iterdir() if path.is_file()))


def _changed(path: Path, content: bytes) -> bool:
    before = path.read_bytes()
    path.write_bytes(content)
    return content != before


def _flip_a_bit(folder: Path, _: Path) -> bool:
    path = _some_file(folder)
    content = bytearray(path.read_bytes())
    content[random.randrange(len(content))] ^= 1 << random.randrange(8)
    return _changed(path, bytes(content))


def _change_a_byte(folder: Path, _: Path) -> bool:
    path = _some_file(folder)
    content = bytearray(path.read_bytes())
    content[random.randrange(len(content))] = random.randrange(256)
    return _changed(path, bytes(content))


def _zero_a_block(folder: Path, _: Path) -> bool:
    path = _some_file(folder)
    content = path.read_bytes()
    at = random.randrange(len(content))
    block = content[at : at + 512]
    return _changed(path, content[:at] + bytes(len(block)) + content[at + len(block) :])


def _swap_two_blocks(folder: Path, _: Path) -> bool:
    path = _some_file(folder)
    content = path.read_bytes()
    at, size = sorted(random.sample(range(len(content)), 2)), random.randrange(1, 64)
    size = min(size, at[1] - at[0], len(content) - at[1])
    one, two = content[at[0] : at[0] + size], content[at[1] : at[1] + size]
    middle = content[at[0] + size : at[1]]
    return _changed(path, content[: at[0]] + two + middle + one + content[at[1] + size :])


def _truncate(folder: Path, _: Path) -> bool:
    path = _some_file(folder)
    content = path.read_bytes()
    return _changed(path, content[: random.randrange(len(content))])


def _append(folder: Path, _: Path) -> bool:
    path = _some_file(folder)
    return _changed(path, path.read_bytes() + random.randbytes(random.randrange(1, 99)))


def _delete_a_file(folder: Path, _: Path) -> bool:
    _some_file(folder).unlink()
    return True


def _delete_the_folder(folder: Path, _: Path) -> bool:
    shutil.rmtree(folder)
    return folder.name != "epoch-00002"  # without any state, training begins anew


def _swap_two_files(folder: Path, _: Path) -> bool:
    one, two = _some_file(folder), _some_file(folder)
    first, second = one.read_bytes(), two.read_bytes()
    two.write_bytes(first)
    return _changed(one, second)


def _swap_with_another_save(folder: Path, other: Path) -> bool:
    names = {path.name for path in other.iterdir()}
    path = random.choice(sorted(path for path in folder.iterdir() if path.name in names))
    return _changed(path, (other / path.name).read_bytes())


WAYS = (
    *(_flip_a_bit, _change_a_byte, _zero_a_block, _swap_two_blocks, _truncate, _append),
    *(_delete_a_file, _delete_the_folder, _swap_two_files, _swap_with_another_save),
)


def overhead(name: str, say: Callable) -> None:
    """Seconds of saving beside those of a fit with default settings, in one run."""
    import interestkit as ik
    from interestkit import checkpoint

    log, _ = ik.clean(ik.load(name), **FIVE_CORE)
    split = ik.temporal_split(log)
    features = ik.fit_features(split.train, split.items)
    validation = ik.held_out(features, split, "validation")
    save, took = checkpoint.Checkpoint.save, []

    def timed(self, run):
        began = time.perf_counter(), time.process_time()
        save(self, run)
        took.append((time.perf_counter() - began[0], time.process_time() - began[1]))

    checkpoint.Checkpoint.save = timed
    began = time.process_time()
    with tempfile.TemporaryDirectory() as folder:
        result = ik.fit(
            *(features, features.histories(split.train)),
            **{"validation": validation, "checkpoint": Path(folder) / "state", "progress": False},
        )
        files = (Path(folder) / "state").rglob("*.safetensors")
        megabytes = max(path.stat().st_size for path in files) / 1e6
    processor = time.process_time() - began
    wall, busy = map(sum, zip(*took, strict=True))
    say(
        {
            **{"data": name, "epochs": len(took), "megabytes": megabytes},
            **{"fit_seconds": result.seconds, "save_seconds": wall},
            **{"percent_of_seconds": 100 * wall / (result.seconds - wall)},
            "percent_of_processor": 100 * busy / (processor - busy),
        }
    )
