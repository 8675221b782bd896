"""Random and damaged files against everything that reads or writes one, hour after hour.

    python benchmarks/fuzz.py                       # an hour of processor time for each target
    TMPDIR=/dev/shm python benchmarks/fuzz.py --seconds 60 --only csv parquet

Each target has a process of its own. It starts from whole files and changes them: under `atheris`
(`pip install atheris`, Python 3.11 to 3.13) by what the code has not yet gone through, without it
at random. What reached new code stays in `runs/fuzz/TARGET/corpus`, where the next run goes on, so
that short runs with other seeds add up. A crash is any exception but ValueError and
FileNotFoundError, a process that ends, HTML that runs something, a spreadsheet formula, or more
than 256 MB while one input is read (on Linux; elsewhere, more than ever before in that run). Inputs
that crash are kept in `runs/fuzz/TARGET` and can be tried again: `--again runs/fuzz/csv/crash-...`.
"""

import argparse
import contextlib
import importlib.util
import json
import os
import random
import resource
import shutil
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator
from pathlib import Path

from fuzz_targets import TARGETS

ROOT = Path(__file__).resolve().parents[1]
RUNS = ROOT / "runs" / "fuzz"
ROOM = 256 << 20  # bytes more while one input is read
LONGEST = 16_384  # bytes of an input
ALLOWED = (ValueError, FileNotFoundError)
_WORDS = [
    b"nan",
    b"-inf",
    b"1e400",
    b"\xef\xbb\xbf",
    b'"',
    b"\n",
    b"\0",
    b"::",
    b"[",
    b"{",
    b"null",
]
_WORDS += [
    b"9" * 30,
    b"../",
    b"\xd9\xa1",
    b"PAR1",
    b"\xff\xff\xff\x7f",
    b"-1",
    b"true",
    b"=1+1",
    b"\r",
]
_ODD = [None, True, -1, 0, 1.5, 1e308, 2**31, 2**63, 2**70, "", "../x", "nan", "2024", "x" * 300]
_ODD += [[], {}, [[]], [0, 0], [2**40], [None], {"": 0}, "F16", "I64", "U8"]


def running_of(name: str) -> Path:
    """The input that a target is at; TMPDIR=/dev/shm keeps it, and all else, off the disk."""
    return Path(tempfile.gettempdir()) / f"fuzz-{name}-running"


def highest(*, anew: bool = False) -> int:
    """Most bytes of memory that the process has had, on Linux since the last `anew`.

    What atheris itself keeps of each run (some 400 bytes) would else look like memory of the kit.
    """
    if anew and (forget := Path("/proc/self/clear_refs")).exists():
        forget.write_text("5")
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10


class Watch:
    """Runs one target on inputs, and keeps those that crash it."""

    def __init__(self, name: str, seconds: float):
        self.name, self.seconds, self.runs, self.refused = name, seconds, 0, 0
        self.kept: dict[str, str] = {}
        self.folder = Path(tempfile.mkdtemp(prefix=f"fuzz-{name}-"))
        self.store = RUNS / name
        self.store.mkdir(parents=True, exist_ok=True)
        self.seeds = [s for s in TARGETS[name].seeds(self.folder) if len(s) <= 4 * LONGEST]
        for seed in self.seeds:
            with contextlib.suppress(*ALLOWED):
                TARGETS[name](seed, self.folder)
        self.peak, self.began = 0, time.process_time()

    def __call__(self, data: bytes) -> None:
        """One run; ends the process when the time is up."""
        self.runs += 1
        running_of(self.name).write_bytes(data)
        before = highest(anew=True)
        try:
            TARGETS[self.name](data, self.folder)
        except ALLOWED:
            self.refused += 1
        except BaseException as error:
            last = traceback.extract_tb(error.__traceback__)[-1]
            self.keep(f"{type(error).__name__} at {Path(last.filename).name}:{last.lineno}", data)
        above = highest() - before
        if above > max(self.peak, ROOM):
            self.keep(f"memory {above >> 20} MB", data)
        self.peak = max(self.peak, above)
        if time.process_time() - self.began > self.seconds:
            self.end()

    def keep(self, what: str, data: bytes) -> None:
        """Keep an input, unless one that did the same is there."""
        if what not in self.kept:
            path = self.store / f"crash-{len(self.kept)}"
            path.write_bytes(data)
            self.kept[what] = str(path.relative_to(ROOT))

    def end(self) -> None:
        """Print what was found, and end."""
        running_of(self.name).unlink(missing_ok=True)
        found = {"target": self.name, "seconds": round(time.process_time() - self.began, 1)}
        found |= {"runs": self.runs, "refused": self.refused, "megabytes": self.peak >> 20}
        print("\n" + json.dumps(found | {"crashes": self.kept}), flush=True)
        os._exit(bool(self.kept))


def changed(data: bytes, rng: random.Random) -> bytes:
    """The input with a few changes: bits, bytes, words, parts that go, come twice or move.

    One time in three something in its JSON changes, if it has any.
    """
    if rng.randrange(3) == 0 and (other := retold(data, rng)) is not None:
        return other[: 4 * LONGEST]
    data = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 4, 8))):
        at = rng.randrange(len(data) + 1)
        how = rng.randrange(6)
        if how == 0 and data:
            data[at % len(data)] ^= 1 << rng.randrange(8)
        elif how == 1 and data:
            data[at % len(data)] = rng.choice((0, 127, 128, 255, rng.randrange(256)))
        elif how == 2:
            data[at:at] = rng.choice(_WORDS)
        elif how == 3:
            del data[at : at + rng.randrange(1, 33)]
        elif how == 4:
            data[at:at] = data[at : at + rng.randrange(1, 257)] * rng.choice((1, 1, 2, 30))
        else:
            data[at : at + len(word)] = (word := rng.choice(_WORDS))
    return bytes(data[: 4 * LONGEST])


def retold(data: bytes, rng: random.Random) -> bytes | None:
    """The input with a part of its JSON that is gone, odd, or that of another place.

    Where the eight bytes before it are its length, as in safetensors, they stay so.
    """
    text = data.decode("latin-1")  # a character for each byte
    starts = [at for at, letter in enumerate(text[:LONGEST]) if letter in "{["]
    try:
        at = rng.choice([*starts[:1] * len(starts), *starts])
        value, end = json.JSONDecoder().raw_decode(text, at)
        places = [*_places(value)]
        inside, key = rng.choice(places)
    except (IndexError, ValueError, RecursionError):
        return None
    others = [other[name] for other, name in places] + _ODD
    if rng.randrange(4):
        inside[key] = json.loads(json.dumps(rng.choice(others)))
    else:
        del inside[key]
    layout = {"indent": 1} if "\n" in text[at:end] else {"separators": (",", ":")}
    part = json.dumps(value, ensure_ascii=False, **layout).encode("latin-1", "replace")
    before = data[:at]
    if before.endswith((end - at).to_bytes(8, "little")):
        before = before[:-8] + len(part).to_bytes(8, "little")
    return before + part + data[end:]


def _places(value: object) -> Iterator[tuple[dict | list, str | int]]:
    """Each place in JSON, as what it is in and its key there."""
    keys = value if isinstance(value, dict) else range(len(value) if isinstance(value, list) else 0)
    for key in keys:
        yield value, key
        yield from _places(value[key])


def watch(name: str, seconds: float, seed: int) -> None:
    """Run one target in this process until its time is up."""
    sys.path.insert(0, str(ROOT / "tests"))
    has_atheris = importlib.util.find_spec("atheris") is not None
    if has_atheris:
        import atheris

        with atheris.instrument_imports(include=["interestkit"]):
            one = Watch(name, seconds)
    else:
        one = Watch(name, seconds)
    rng = random.Random(seed)
    if not has_atheris:
        while True:
            one(changed(rng.choice(one.seeds), rng))
    corpus = one.store / "corpus"
    corpus.mkdir(exist_ok=True)
    for number, content in enumerate(one.seeds):
        (corpus / str(number)).write_bytes(content)

    def mutate(data: bytes, size: int, seed: int) -> bytes:
        own = random.Random(seed)
        if own.random() < 0.5:
            return changed(data, own)[:size]
        return atheris.Mutate(data, size)

    arguments = [sys.argv[0], str(corpus), f"-seed={seed}", f"-max_len={LONGEST}", "-verbosity=0"]
    arguments += ["-rss_limit_mb=0", "-timeout=120", "-handle_segv=0", "-handle_abrt=0"]
    atheris.Setup(arguments, one, custom_mutator=mutate)
    atheris.Fuzz()


def main() -> int:
    """Watch each target in a process of its own; 0 where none crashed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=3600, help="processor time of each target")
    parser.add_argument("--only", nargs="+", choices=TARGETS, default=list(TARGETS))
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--again", type=Path, help="an input that was kept")
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.again:
        sys.path.insert(0, str(ROOT / "tests"))
        name = options.again.resolve().parent.name
        TARGETS[name](options.again.read_bytes(), Path(tempfile.mkdtemp()))
        return 0
    if options.inside:
        watch(options.only[0], options.seconds, options.seed)
    ended = [apart(name, options.seconds, options.seed) for name in options.only]
    return int(not all(ended))


def apart(name: str, seconds: float, seed: int) -> bool:
    """Watch one target in a process of its own; True where nothing crashed."""
    command = [sys.executable, __file__, "--inside", "--only", name]
    command += ["--seconds", str(seconds), "--seed", str(seed)]
    limits = {"POLARS_MAX_THREADS": "1", "OMP_NUM_THREADS": "1", "JAX_PLATFORMS": "cpu"}
    done = subprocess.run(command, env=os.environ | limits, capture_output=True, check=False)
    last = done.stdout.decode(errors="replace").strip().splitlines()[-1:]
    if done.returncode < 0 or not last or not last[0].startswith("{"):
        ending = done.stderr.decode(errors="replace")[-600:]
        last = [f"{name}: the process ended by {done.returncode}, its input is kept\n{ending}"]
        if running_of(name).exists():
            shutil.move(running_of(name), RUNS / name / "crash-end")
    print(last[0], flush=True)
    return done.returncode == 0


if __name__ == "__main__":
    sys.exit(main())
