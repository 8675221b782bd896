"""What a notebook shows of the objects of the kit: counts, shapes and settings in cards that fold.

Each function takes the object and reads its public parts alone, so that every module may use it.
"""

from collections.abc import Iterable, Mapping
from dataclasses import asdict
from datetime import datetime
from typing import Any

from interestkit.markup import card, gain_rows, metric_grid

_MOST_ROWS = 50


def of_log(log: Any) -> str:
    """Card of an `EventLog`."""
    table = log.events
    facts = {"events": log.num_events, "users": log.num_users, "items": log.num_items}
    kinds = table["kind"].value_counts(sort=True).to_dicts()
    columns = [
        {"column": column.name, "type": str(column.dtype), "missing": column.null_count()}
        for column in table
    ]
    facts |= _span(table) | ({"note": log.note} if log.note else {})
    return card("EventLog", log.name, facts, kinds=kinds, columns=columns)


def of_split(split: Any) -> str:
    """Card of a `Split`."""
    parts = [
        {"part": part, "events": len(table)}
        | {f"{name}s": table[name].n_unique() for name in ("user", "item")}
        | _span(table)
        for part in ("train", "validation", "test")
        if (table := getattr(split, part)) is not None
    ]
    return card("Split", split.name, {"method": split.method}, parts=parts)


def of_features(features: Any) -> str:
    """Card of `Features`."""
    facts = {
        "items": features.num_items,
        "of them candidates": int(features.is_candidate.sum()),
        "interests": f"{features.num_interests:,} from {features.interest_source}",
        "time scales": ", ".join(f"{days:,.3g} days" for days in features.scales_days),
        "fitted until": _moment(features.fitted_until),
    }
    sizes = (features.item_interests > 0).sum(axis=0).tolist()
    pairs = sorted(zip(features.interests, sizes, strict=True), key=lambda pair: -pair[1])
    interests = [{"interest": name, "items": size} for name, size in pairs[:_MOST_ROWS]]
    names = ("item_interests", "content", "popularity", "snapshot_seconds")
    arrays = _arrays((name, getattr(features, name)) for name in names)
    return card("Features", "", facts, most_common_interests=interests, arrays=arrays)


def of_predictor(predictor: Any, weights: Mapping[str, Any]) -> str:
    """Card of a `Predictor`, its weights given by name."""
    facts = {
        "item vectors": predictor.mode,
        "linear part": "none" if predictor.linear is None else "EASE",
        "weights": sum(array.size for array in weights.values()),
        "items": predictor.features.num_items,
        "interests": predictor.features.num_interests,
    }
    settings = _settings(asdict(predictor.model.config))
    return card("Predictor", "", facts, settings=settings, weights=_arrays(weights.items()))


def of_fit(result: Any) -> str:
    """Card of a `FitResult`."""
    facts = {
        "best epoch": f"{result.best_epoch} of {len(result.curve)}",
        "seed": result.seed,
        "seconds": round(result.seconds, 1),
        "device": result.device,
    }
    curve = result.curve.to_dicts()[-_MOST_ROWS:]
    return card("FitResult", "", facts, curve=curve, settings=_settings(asdict(result.config)))


def of_evaluation(evaluation: Any) -> str:
    """Card of an `Evaluation`: for each target a table of metrics by models."""
    rows = evaluation.table().to_dicts()
    facts = {
        "users": evaluation.per_user["user"].n_unique(),
        "models": ", ".join(evaluation.models),
        "lists": f"{evaluation.k} items, {evaluation.interest_k} interests",
        "notes": list(evaluation.notes) or "none",
        "cells": "mean over users [95 % interval] ± between seeds",
    }
    tables = {
        target: metric_grid([row for row in rows if row["target"] == target])
        for target in dict.fromkeys(row["target"] for row in rows)
    }
    return card("Evaluation", f"of the {evaluation.part} part", facts, **tables)


def of_comparison(comparison: Any) -> str:
    """Card of a `Comparison`: the main differences, and all of them."""
    rows = comparison.table.to_dicts()
    found = len(comparison.found())
    facts = {
        "users": f"{comparison.users:,} of the {comparison.part} part",
        "differences": f"{len(rows):,}, of which {found:,} have p_holm below 0.05",
        "cells": "mean difference within users [95 % interval] ± between seeds",
    }
    main = [row for row in rows if row["metric"].startswith("NDCG")]
    tables = {"NDCG": gain_rows(main), "all_differences": gain_rows(rows)}
    return card("Comparison", f"of {comparison.model} with all others", facts, **tables)


def of_explanation(found: Any) -> str:
    """Card of an `Explanation` or another object with facts, checks in words, and tables."""
    kind, facts, tables = found.told
    return card(kind, "", facts, **{name: rows[:_MOST_ROWS] for name, rows in tables.items()})


def of_held_out(truth: Any) -> str:
    """Card of a `HeldOut`."""
    facts = {
        "users": len(truth),
        "items in the catalogue": int((truth.relevant["code"] >= 0).sum()),
        "items that training never saw": int((truth.relevant["code"] < 0).sum()),
        "items that the user had before": int(truth.relevant["is_seen"].sum()),
    }
    return card("HeldOut", f"users of the {truth.part} part", facts)


def of_histories(histories: Any) -> str:
    """Card of `Histories`."""
    lengths = histories.lengths
    facts = {"users": len(histories), "events": len(histories.item)}
    if len(histories):
        facts["events of a user"] = f"{lengths.min():,} to {lengths.max():,}"
    return card("Histories", "", facts)


def of_k_anonymity(found: Any) -> str:
    """Card of a `KAnonymity`."""
    facts = {"users": found.users, "classes": found.classes, "smallest class": found.smallest}
    facts |= {"alone": f"{found.alone:.1%}", f"in classes below {found.k}": f"{found.below_k:.1%}"}
    return card("KAnonymity", f"by {' and '.join(found.by)}", facts)


def of_release(found: Any) -> str:
    """Card of a `Release`: its verdict, what was found again, what was lost."""
    facts = {"verdict": found.verdict, "log": repr(found.log), "coarseness": str(found.coarseness)}
    facts |= {"attacker": f"knows {found.attacker}", "whole history": repr(found.anonymity)}
    for row in found.attacks.to_dicts():
        ends = f"[{row['low']:.1%}, {row['high']:.1%}]"
        guess = f"{row['guess']:.1%} by a guess among the best"
        facts[f"found by {row['attack']}"] = f"{row['rate']:.1%} {ends}, {guess}"
    tables = {"attacks": found.attacks.to_dicts(), "accuracy": found.accuracy.to_dicts()}
    return card("Release", found.log.name, facts, **tables)


def of_privacy_card(found: Any) -> str:
    """Card of a `PrivacyCard`: the promise, what it follows from, what it does not cover."""
    missing = [{"not covered": text} for text in found.not_covered]
    name = found.facts["promise"] if found.noise_multiplier else "no promise: trained without noise"
    return card("PrivacyCard", name, found.facts, not_covered=missing)


def of_cleaning(report: Any) -> str:
    """Card of a `CleaningReport`."""
    read, *_, last = report.table.to_dicts()
    facts = {"events read": read["events_left"], "events left": last["events_left"]}
    return card("CleaningReport", "", facts, rules=report.table.to_dicts())


def _span(events: Any) -> dict[str, str]:
    times = events["time"].drop_nulls()
    return {"from": _moment(times.min()), "until": _moment(times.max())} if len(times) else {}


def _moment(time: datetime) -> str:
    return f"{time:%Y-%m-%d %H:%M} UTC"


def _arrays(arrays: Iterable[tuple[str, Any]]) -> list[dict[str, str]]:
    return [
        {"array": name, "shape": " × ".join(map(str, array.shape)), "type": str(array.dtype)}
        for name, array in arrays
    ]


def _settings(settings: Mapping[str, object]) -> list[dict[str, str]]:
    return [{"setting": name, "value": str(value)} for name, value in settings.items()]
