"""A model that was exported scores histories: NumPy and JAX's own programs, nothing that trains.

It imports NumPy, JAX, safetensors and three small modules of this package, and no table library.
"""

import json
import math
from collections.abc import Iterable, Mapping
from functools import cached_property
from numbers import Real
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
import safetensors.numpy as safetensors
from jax import export
from jaxtyping import Float, Int

from interestkit.counting import pad, power_of_two, running_counts
from interestkit.files import check_file, is_whole, locked
from interestkit.limits import check_up_to

KIND, FORMAT = "export", 1
PROGRAMS = ("next", "new", "interests")
BLOCK = 128  # users scored at a time
SMALLEST_LOG = 4096  # events are padded to a power of two, at least this: few programs


class Log(NamedTuple):
    """Histories as flat arrays, users one after the other, events of each from the oldest on.

    Any object with these names will do, such as `Histories`.
    """

    offsets: Int[np.ndarray, " users_and_one"]  # events of user n: offsets[n]..offsets[n + 1] - 1
    item: Int[np.ndarray, " events"]  # codes
    seconds: Int[np.ndarray, " events"]  # since the origin of the model
    weight: Float[np.ndarray, " events"]
    moment: Int[np.ndarray, " users"]  # of prediction, in the same seconds


class Scorer:
    """What `load_scorer` returns: scores, lists and interests for histories.

    Args:
        arrays: What the export holds.
        meta: Facts of its manifest.

    Attributes:
        items: Names of the items, in order of code.
        interests: Names of the interests.
    """

    def __init__(self, arrays: Mapping[str, np.ndarray], meta: Mapping):
        self.meta, self._arrays = dict(meta), dict(arrays)
        self.items, self.interests = (
            json.loads(self._arrays[name].tobytes()) for name in ("items.json", "interests.json")
        )
        given = ("weights.", "catalogue.")
        self._given = {n: jax.device_put(a) for n, a in arrays.items() if n.startswith(given)}
        programs = {n: self._arrays.pop(f"program.{n}").tobytes() for n in PROGRAMS}
        self._programs = {n: export.deserialize(bytearray(p)) for n, p in programs.items()}

    def __repr__(self) -> str:
        size = f"{len(self.items):,} items, {len(self.interests)} interests"
        return f"Scorer({size}, {self.meta['mode']}, fitted until {self.meta['fitted_until']})"

    @cached_property
    def _code(self) -> dict[str, int]:
        return {name: code for code, name in enumerate(self.items)}

    def log(self, users: Iterable[Iterable[tuple[str, float, str]]], *, now: float) -> Log:
        """Histories of users from plain events.

        Args:
            users: For each user the events (item, Unix seconds, kind), in any order; those at one
                instant keep theirs, as in `Features.histories`. Those with items that the model
                does not know, and those from `now` on, are left out.
            now: The moment of prediction, in Unix seconds.

        Raises:
            ValueError: If a kind has no weight, or a time is no finite number.
        """
        rows, offsets, weights = [], [0], self.meta["kind_weights"]
        users = [list(events) for events in users]
        _check_times([now, *(event[1] for events in users for event in events)])
        for events in users:
            for item, seconds, kind in sorted(events, key=lambda event: event[1]):
                if kind not in weights:
                    raise ValueError(f"kind must be one of {sorted(weights)}, got {kind!r}")
                if item in self._code and seconds < now:
                    second = int(seconds // 1) - self.meta["origin"]
                    rows.append((self._code[item], second, weights[kind]))
            offsets.append(len(rows))
        item, seconds, weight = (np.array([row[n] for row in rows]) for n in range(3))
        moment = np.full(len(offsets) - 1, int(now // 1) - self.meta["origin"])
        return Log(np.array(offsets), item, seconds, weight, moment)

    def score(self, log: Log, *, exclude_seen: bool = True) -> Float[np.ndarray, "users items"]:
        """Log-probabilities of all items to be the next one, as `Predictor.score` has them.

        Args:
            log: Whom to score for.
            exclude_seen: Score only items that are not in the history; those are -inf.

        Raises:
            ValueError: If the arrays do not fit together, a number is not finite, a code is no
                item, or a moment is before the time of the export, for which alone popularity is
                there.
        """
        return self._ask("new" if exclude_seen else "next", log)

    def rank(
        self, log: Log, *, k: int = 10, exclude_seen: bool = True
    ) -> tuple[Int[np.ndarray, "users k"], Float[np.ndarray, "users k"]]:
        """Codes and log-probabilities of the k most probable items, as `Predictor.rank`.

        Raises:
            ValueError: As `score`, or if `k` is outside 1..items.
        """
        check_up_to(len(self.items), "the catalogue", k=k)
        scores = self.score(log, exclude_seen=exclude_seen)
        codes = np.argsort(-scores, axis=1, kind="stable")[:, :k].astype(np.int32)
        best = np.take_along_axis(scores, codes, axis=1)
        return np.where(best == -np.inf, -1, codes), best

    def interests_of(self, log: Log) -> Float[np.ndarray, "users interests"]:
        """Probability of each interest in what a user does next, as `Predictor.interests`."""
        return self._ask("interests", log)

    def _ask(self, name: str, log: Log):
        log = self._checked(log)
        blocks = [self._block(log, first) for first in range(0, max(len(log.moment), 1), BLOCK)]
        rows = [np.asarray(self._programs[name].call(self._given, block))[0] for block in blocks]
        return np.concatenate(rows)[: len(log.moment)]

    def _checked(self, log: Log) -> Log:
        types = (np.int32, np.int32, np.int32, np.float32, np.int32)
        parts = [np.asarray(getattr(log, name)) for name in Log._fields]
        for name, part in zip(Log._fields, parts, strict=True):
            if part.ndim != 1 or not (
                -(2**31) < part.min(initial=0) <= part.max(initial=0) < 2**31
            ):
                raise ValueError(f"{name} must be a row of finite numbers below 2**31, got {part}")
        log = Log(*(part.astype(dtype) for part, dtype in zip(parts, types, strict=True)))
        events, users = len(log.item), len(log.moment)
        sizes = (len(log.offsets), len(log.seconds), len(log.weight), log.offsets.max(initial=0))
        rising = (np.diff(log.offsets, prepend=0) >= 0).all()
        if sizes != (users + 1, events, events, events) or not rising:
            raise ValueError(
                f"offsets must be users + 1 rising places in {events} events, with as many seconds "
                f"and weights, got {users} moments and {sizes}"
            )
        if events and not 0 <= log.item.min() <= log.item.max() < len(self.items):
            came = f"{log.item.min()}..{log.item.max()}"
            raise ValueError(f"item must be in 0..{len(self.items) - 1}, got {came}")
        if users and log.moment.min() < self.meta["since"]:
            raise ValueError(
                f"moment must be at or after {self.meta['since']} s, when popularity was taken, "
                f"got {log.moment.min()}"
            )
        return log

    def _block(self, log: Log, first: int) -> dict[str, np.ndarray]:
        """Some users as the programs read them: one block, events padded."""
        own = slice(first, first + BLOCK)
        starts, ends = log.offsets[:-1][own], log.offsets[1:][own]
        begin, end = (starts[0], ends[-1]) if len(starts) else (0, 0)
        part = slice(begin, end)
        user = np.repeat(np.arange(len(starts), dtype=np.int32), ends - starts)
        flat = (user, log.item[part], log.seconds[part], log.weight[part])
        following, counts = running_counts(*flat, self.meta["scales_days"])
        room = power_of_two(max(len(user), SMALLEST_LOG))
        rows = {"item": flat[1], "seconds": flat[2], "weight": flat[3]}
        rows |= {"following": following, "counts": counts}
        block = {name: pad(array, room) for name, array in rows.items()}
        block["user"] = pad(user, room, BLOCK)
        users = {"start": starts - begin, "end": ends - begin, "moment": log.moment[own]}
        return block | {name: pad(array, BLOCK)[None] for name, array in users.items()}


def _check_times(times: Iterable[float]) -> None:
    for time in times:
        if not isinstance(time, Real) or not math.isfinite(time):
            raise ValueError(f"times must be finite Unix seconds, got {time!r}")


def load_scorer(folder: str | Path) -> Scorer:
    """The scorer that `export` wrote to a folder, every byte checked. Nothing is unpickled.

    Its programs run as they are: take exports only from those whose code you would run.

    Raises:
        FileNotFoundError: If there is no such folder.
        ValueError: If it is no export, of a newer format, or damaged.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: there is no such folder, so no scorer can be read")
    with locked(folder.resolve().parent, shared=True):
        return _loaded(folder)


def _loaded(folder: Path) -> Scorer:
    """The scorer of a folder, nobody changing it meanwhile."""
    try:
        text = (folder / "manifest.json").read_bytes()
        manifest = json.loads(text)
        if not is_whole(text) or manifest["kind"] != KIND or "sealed" in manifest:
            raise ValueError(f"must be an export, unchanged and not encrypted, got {text[:60]!s}")
        meta, digest = manifest["meta"], manifest["files"][name := "arrays.safetensors"]
        is_newer = meta["format"] > FORMAT
    except (OSError, ValueError, LookupError, TypeError, RecursionError) as error:
        raise ValueError(f"{folder}: no export can be read ({error}); export it again") from error
    if is_newer:
        raise ValueError(f"{folder}: format must be at most {FORMAT}, got a newer one")
    check_file(folder / name, digest)
    return Scorer(safetensors.load_file(folder / name), meta)
