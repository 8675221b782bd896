"""A log to give away, called anonymised only where an attack on it finds hardly anybody again."""

import secrets
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path

import polars as pl

from interestkit import reprs
from interestkit.bounded import read_back
from interestkit.events import EventLog
from interestkit.privacy.generalising import (
    RELEASED,
    Coarseness,
    KAnonymity,
    coarse_events,
    folded_items,
    generalised,
    k_anonymity,
    with_interests,
)
from interestkit.privacy.linking import Attacker, attack_with, facts_of, linkage_attack
from interestkit.privacy.pseudonyms import KEY_BYTES, pseudonymise, pseudonyms, read_key
from interestkit.privacy.usefulness import MakeRanker, accuracy_lost, quick_ranker
from interestkit.progress import progress_bar
from interestkit.schema import ITEM, USER, check_columns
from interestkit.splitting import check_clean
from interestkit.storage import load_folder, save_folder

LIMIT = 0.01  # share of people who may be found again in a log that is called anonymised
_ATTACK_COLUMNS = {"attack": pl.String, "targets": pl.Int64}
_ATTACK_COLUMNS |= dict.fromkeys(("rate", "low", "high", "guess", "guess_high"), pl.Float64)
_ACCURACY_COLUMNS = {"target": pl.String, "metric": pl.String}
_ACCURACY_COLUMNS |= dict.fromkeys(("released", "lost", "low", "high"), pl.Float64)


@dataclass(frozen=True, kw_only=True, eq=False)
class Release:
    """A log to give away and what it protects; made by `release`.

    Args:
        log: The released log: pseudonyms, coarse times and items.
        coarseness: How coarse it is.
        attacker: What the attacker knew.
        attacks: What `linkage_attack` found.
        anonymity: How many people share their whole released history.
        accuracy: What a model loses that learns from the release: target, metric, original,
            released (means over the same users), lost (their difference within users), low,
            high (its 95 % interval) and users; without rows where it was not measured.
    """

    log: EventLog
    coarseness: Coarseness
    attacker: Attacker
    attacks: pl.DataFrame
    anonymity: KAnonymity
    accuracy: pl.DataFrame

    @property
    def verdict(self) -> str:
        """`anonymised` where no attack finds more than 1 % of the people, else `pseudonymised`.

        Nor may a guess among those who fit best be right for more: to be one of two who look
        alike is not to be anonymous. Upper ends of 95 % intervals count: few people prove nothing.
        All this is said of `attacker` alone: who knows more finds more, up to `anonymity.alone`.
        """
        worst = self.attacks.select(pl.max_horizontal("high", "guess_high").max()).item()
        return "anonymised" if worst <= LIMIT else "pseudonymised"

    def __repr__(self) -> str:
        lines = [f"Release({self.log.name!r}: {self.verdict}; {self.coarseness})"]
        lines += [
            f"  found again by {row['attack']}: {row['rate']:.1%} "
            f"[{row['low']:.1%}, {row['high']:.1%}] of {row['targets']:,}, "
            f"{row['guess']:.1%} by a guess"
            for row in self.attacks.to_dicts()
        ]
        lines.append(f"  alone in their whole history: {self.anonymity.alone:.1%}")
        lines += [
            f"  {row['target']} {row['metric']}: {row['released']:.3f}, "
            f"{row['lost']:.3f} [{row['low']:.3f}, {row['high']:.3f}] lost"
            for row in self.accuracy.to_dicts()
        ]
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        return reprs.of_release(self)

    def save(self, folder: str | Path) -> Path:
        """The folder, made as by `save_folder`, with log and findings, but no key and no name."""
        tables = {"events": self.log.events, "items": self.log.items}
        tables |= {"attacks": self.attacks, "accuracy": self.accuracy}
        meta = {"name": self.log.name, "note": self.log.note, "verdict": self.verdict}
        for part in ("coarseness", "attacker", "anonymity"):
            meta[part] = asdict(getattr(self, part))
        return save_folder(folder, kind="release", tables=tables, meta=meta)

    @classmethod
    def load(cls, folder: str | Path) -> "Release":
        """The release that `save` wrote; errors as in `storage.load_folder`."""
        stored = load_folder(folder, kind="release")
        tables, meta = dict(stored.tables), stored.meta
        with read_back(folder):
            check_columns(tables["attacks"], _ATTACK_COLUMNS, what="attacks")
            if tables["accuracy"].width:  # it was measured
                check_columns(tables["accuracy"], _ACCURACY_COLUMNS, what="accuracy")
            log = {name: tables.pop(name) for name in ("events", "items")}
            anonymity = meta["anonymity"] | {"by": tuple(meta["anonymity"]["by"])}
            return cls(
                log=EventLog(**log, name=meta["name"], note=meta["note"]),
                coarseness=Coarseness(**meta["coarseness"]),
                attacker=Attacker(**meta["attacker"]),
                anonymity=KAnonymity(**anonymity),
                **tables,
            )


def release(
    log: EventLog,
    coarseness: Coarseness | None = None,
    *,
    key: str | Path | bytes | None = None,
    name: str = "release",
    columns: Sequence[str] = (USER,),
    attacker: Attacker | None = None,
    ranker: MakeRanker | None = quick_ranker,
    progress: bool = True,
) -> Release:
    """A log to give away, attacked and judged before it leaves the house.

    The log is made coarser (`generalise`), gets pseudonyms (`pseudonymise`), and is then attacked
    as `linkage_attack` says. What is lost is measured with a model that is trained on a release
    of the events before the test period, beside one trained on those events themselves, for the
    same users and the same truth.

    Args:
        log: A log that `clean` has cleaned.
        coarseness: How coarse; None takes the defaults of `Coarseness`.
        key: As in `pseudonymise`. None takes a random key that is forgotten at once, so that
            nobody can undo the pseudonyms.
        name: Name of this release, as in `pseudonymise`.
        columns: What gets pseudonyms, as in `pseudonymise`, "user" among it. The attacker is given
            the true items all the same: most are known from elsewhere.
        attacker: What the attacker knows; None takes the defaults of `Attacker`.
        ranker: Makes the model from features and histories; None does not measure accuracy.
        progress: Show progress bars.

    Raises:
        ValueError: If an event lacks user, item or time, all events are searches, `columns` leave
            users their names, or nothing is left to release.

    Example:
        >>> from interestkit import clean, simulate
        >>> log, _ = clean(simulate(num_users=50, num_items=40, seed=1))
        >>> release(log, ranker=None, progress=False)
        Release('simulated': pseudonymised; time day, items of 5+ users)
          found again by items and times: 80.0% [66.3%, 90.0%] of 50, 89.3% by a guess
          found again by items: 24.0% [13.1%, 38.2%] of 50, 46.4% by a guess
          alone in their whole history: 100.0%
    """
    coarseness, attacker = coarseness or Coarseness(), attacker or Attacker()
    if USER not in columns:
        raise ValueError(f"columns must name 'user', as no name may be given away, got {columns}")
    key = secrets.token_bytes(KEY_BYTES) if key is None else key
    key = key if isinstance(key, bytes) else read_key(key)
    coarse, items = generalised(log, coarseness)
    if not coarse.num_events:
        raise ValueError(f"nothing is left to release: {coarseness}")
    out = pseudonymise(coarse, key, release=name, columns=columns)
    users = pseudonyms(coarse.events[USER].unique(), key, release=name)
    if ITEM in columns:
        new = pseudonyms(coarse.events[ITEM], key, release=name)
        new = new.rename({ITEM: RELEASED, RELEASED: "new"})
        items = items.join(new, on=RELEASED, how="left").select(ITEM, released="new")
    known = {"users": users, "items": items, "time": coarseness.time, "attacker": attacker}
    lost = pl.DataFrame()
    if ranker is not None:
        lost = accuracy_lost(log, coarseness, ranker=ranker, progress=progress)
    return Release(
        log=out,
        coarseness=coarseness,
        attacker=attacker,
        attacks=linkage_attack(log.events, out.events, **known, progress=progress),
        anonymity=k_anonymity(out.events),
        accuracy=lost,
    )


def coarseness_curve(
    log: EventLog,
    *,
    times: Sequence[str] = ("exact", "day", "week", "month", "none"),
    min_item_users: Sequence[int | None] = (1, 20, 100, None),
    attacker: Attacker | None = None,
    progress: bool = True,
) -> pl.DataFrame:
    """How many people are found again in a log, by how coarse it is.

    Args:
        log: A log that `clean` has cleaned.
        times: Of `Coarseness.time`.
        min_item_users: Of `Coarseness.min_item_users`.
        attacker: As in `release`; it knows items and times.
        progress: Show a progress bar.

    Returns:
        A row for each pair: time, min_item_users, items (released ones), and the columns of
        `linkage_attack`. `plots.reidentification` draws it.

    Raises:
        ValueError: As `Coarseness` and `generalise`, or if all events are searches.

    Example:
        >>> from interestkit import clean, simulate
        >>> log, _ = clean(simulate(num_users=50, num_items=40, seed=1))
        >>> few = {"times": ["day", "none"], "min_item_users": [1, None], "progress": False}
        >>> coarseness_curve(log, **few).select("time", "min_item_users", "found").rows()
        [('day', 1, 40), ('day', None, 15), ('none', 1, 12), ('none', None, 0)]
    """
    check_clean(log, before="it is made coarser")
    log = with_interests(log)
    steps = [Coarseness(time=t, min_item_users=n) for t, n in product(times, min_item_users)]
    known = {"users": log.events.select(USER, released=USER).unique()}
    known["attacker"] = attacker = attacker or Attacker()
    facts = facts_of(log.events, attacker)
    names = {least: folded_items(log, least) for least in min_item_users}
    rows = []
    for step in progress_bar(steps, label="coarseness", unit="step", enabled=progress):
        items = names[step.min_item_users]
        coarse = coarse_events(log.events, items, step.time)
        found = attack_with(facts, coarse, items=items, time=step.time, **known)
        about = {"time": step.time, "min_item_users": step.min_item_users}
        rows.append(about | {"items": coarse[ITEM].n_unique()} | found)
    return pl.DataFrame(rows, schema_overrides={"min_item_users": pl.Int64})
