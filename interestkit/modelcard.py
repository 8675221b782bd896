"""A model card: what a model is, what it learned from, how it was judged, and what is not known."""

import importlib.metadata
import json
import os
import platform
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, is_dataclass
from datetime import UTC, date, datetime
from pathlib import Path

import numpy as np
import polars as pl

from interestkit import __version__
from interestkit.cardpage import page, read_card
from interestkit.cleaning import CleaningReport
from interestkit.evaluation import Evaluation
from interestkit.events import EventLog
from interestkit.features import Features
from interestkit.files import write_text
from interestkit.prediction import Predictor
from interestkit.schema import ITEM, TIME, USER
from interestkit.sources import DATASETS
from interestkit.splitting import Split
from interestkit.training import FitResult

SECTIONS = (  # of every card, in this order; None where nothing is known
    *("model", "intended use", "data", "cleaning", "split", "features", "training"),
    *("evaluation", "limits", "environment", "made with"),
)
_PACKAGES = ("jax", "jaxlib", "flax", "optax", "numpy", "polars")
_METHOD = (
    "Intervals are 95 % bootstrap percentiles over users, of values that are means over seeds. "
    "p_holm is the p-value of a two-sided sign-flip test over users after Holm's correction over "
    "all comparisons of the table; effect is Cohen's d_z; better and worse are shares of users."
)


@dataclass(frozen=True, kw_only=True)
class ModelCard:
    """The sections of a model card, as JSON knows them.

    Args:
        content: Title, date, and every name of `SECTIONS`, null where nothing was given.
    """

    content: Mapping[str, object]

    def __repr__(self) -> str:
        missing = f", without {', '.join(self.missing)}" if self.missing else ""
        return f"ModelCard({self.content['title']!r}{missing})"

    def _repr_html_(self) -> str:
        return page(self.content, SECTIONS, whole=False)

    @property
    def missing(self) -> list[str]:
        """Sections about which nothing was given."""
        return [name for name in SECTIONS if self.content[name] is None]

    def save(self, folder: str | Path) -> Path:
        """The folder, with model_card.json and model_card.html, one page that loads nothing."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        text = json.dumps(self.content, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
        html = page(self.content, SECTIONS)
        write_text(folder / "model_card.json", text)
        write_text(folder / "model_card.html", html)
        return folder

    @classmethod
    def load(cls, folder: str | Path) -> "ModelCard":
        """The card that `save` wrote.

        Raises:
            FileNotFoundError: If there is none.
            ValueError: If it is damaged.
        """
        return cls(content=read_card(Path(folder) / "model_card.json", SECTIONS))


def model_card(
    models: Predictor | Sequence[Predictor] | None = None,
    *,
    title: str = "Interest model",
    log: EventLog | None = None,
    cleaning: CleaningReport | pl.DataFrame | None = None,
    split: Split | None = None,
    features: Features | None = None,
    training: FitResult | Sequence[FitResult] | Mapping | None = None,
    evaluation: Evaluation | None = None,
    intended_use: str | None = None,
    limits: Sequence[str] = (),
    made_with: Mapping[str, object] | str | None = None,
    at: datetime | None = None,
) -> ModelCard:
    """A card of a model from whatever is at hand; what is not given is said to be missing.

    Args:
        models: The model, or one per seed.
        title: Name of the card.
        log: The log, before or after cleaning; without it the data are those of `split`.
        cleaning: What `clean` reported, or its table.
        split: The split.
        features: The features; None takes those of the model.
        training: What `fit` returned, of one or more seeds, or `training_facts` of it.
        evaluation: What `evaluate` returned.
        intended_use: For what and for whom the model is meant; nothing is made up.
        limits: What the model should not be used for, or cannot do; what follows from the split
            and the data is added.
        made_with: The command or the parameters of the notebooks.
        at: When the card was made; None is now.

    Returns:
        The card; undefined numbers are null, and infinite ones the text "infinite".

    Example:
        >>> card = model_card(intended_use="a test", made_with={"EPOCHS": 3})
        >>> card.content["made with"], "data" in card.missing
        ({'EPOCHS': 3}, True)

    Source:
        Mitchell et al. (2019), Model cards for model reporting, FAT*,
        doi:10.1145/3287560.3287596.
    """
    models = [models] if isinstance(models, Predictor) else list(models or [])
    features = features or (models[0].features if models else None)
    table = cleaning.table if isinstance(cleaning, CleaningReport) else cleaning
    if training is not None and not isinstance(training, Mapping):
        training = training_facts(training)
    content = {
        "title": title,
        "date": (at or datetime.now(UTC)).isoformat(timespec="seconds"),
        "format": 1,
        "model": _model(models) if models else None,
        "intended use": intended_use,
        "data": _data(log, split),
        "cleaning": None if table is None else {"rules": table.to_dicts()},
        "split": None if split is None else _split(split),
        "features": None if features is None else _features(features),
        "training": training,
        "evaluation": None if evaluation is None else _evaluation(evaluation),
        "limits": [*limits, *_known_limits(split, evaluation)] or None,
        "environment": _environment(),
        "made with": made_with or None,
    }
    return ModelCard(content=_plain(content))


def training_facts(fits: FitResult | Sequence[FitResult]) -> dict[str, object]:
    """What a card says of training, such as a notebook keeps in a JSON file for a later one.

    Args:
        fits: What `fit` returned, of one or more seeds.

    Example:
        >>> training_facts([])
        {'config': None, 'fits': []}
    """
    fits = [fits] if isinstance(fits, FitResult) else list(fits)
    rows = [
        {
            "seed": fit.seed,
            "epochs": len(fit.curve),
            "best_epoch": fit.best_epoch,
            "validation_score": _best_score(fit),
            "seconds": fit.seconds,
            "device": fit.device,
        }
        for fit in fits
    ]
    return _plain({"config": fits[0].config if fits else None, "fits": rows})


def _best_score(fit: FitResult) -> float | None:
    """The validation score of the best epoch; None after a fit without validation."""
    if "score" not in fit.curve.columns or not fit.best_epoch:
        return None
    return fit.curve.filter(pl.col("epoch") == fit.best_epoch)["score"].item()


def _model(models: Sequence[Predictor]) -> dict[str, object]:
    import jax
    from flax import nnx

    first = models[0]
    weights = jax.tree.leaves(nnx.state(first.model, nnx.Param))
    return {
        "class": type(first.model).__name__,
        "mode": first.mode,
        "parameters": sum(int(np.prod(weight.shape)) for weight in weights),
        "models": f"{len(models)} (one per seed)" if len(models) > 1 else 1,
        "config": first.model.config,
    }


def _data(log: EventLog | None, split: Split | None) -> dict[str, object] | None:
    """Size, span and origin of the data; terms only where they are known."""
    if log is None and split is None:
        return None
    parts = [log.events] if log else [split.train, split.validation, split.test]
    events = pl.concat([part.select(USER, ITEM, TIME) for part in parts])
    name = log.name if log else split.name
    facts = {
        "name": name,
        "counted": "the log" if log else "all parts of the split",
        "events": len(events),
        "users": events[USER].drop_nulls().n_unique(),
        "items": events[ITEM].drop_nulls().n_unique(),
        "first event": events[TIME].min(),
        "last event": events[TIME].max(),
    }
    known = DATASETS.get(name)
    if known is None:
        note = log.note if log and log.note else None
        return facts | {"note": note, "licence": None, "citation": None, "origin": None}
    terms = {"note": known.note, "licence": known.licence, "citation": known.citation}
    return facts | {"title": known.title} | terms | {"origin": known.homepage or None}


def _split(split: Split) -> dict[str, object]:
    cuts = {f"{part} begins": split.cut(part) for part in ("validation", "test")}
    own = {} if split.method == "temporal" else {"cut": "each user's own"}
    known = {name: cut for name, cut in cuts.items() if cut is not None}
    return {"method": split.method, **known, **own, "parts": split.summary().to_dicts()}


def _features(features: Features) -> dict[str, object]:
    return {
        "items": features.num_items,
        "candidates": int(features.is_candidate.sum()),
        "interests": features.num_interests,
        "interests come from": features.interest_source,
        "names of interests": list(features.interests),
        "content dimensions": features.content.shape[1],
        "time scales (days)": list(features.scales_days),
        "weights of kinds": features.kind_weights,
        "fitted until": features.fitted_until,
    }


def _evaluation(evaluation: Evaluation) -> dict[str, object]:
    models = evaluation.models
    gains = evaluation.gains(models[0]).to_dicts() if len(models) > 1 else None
    return {
        "part": evaluation.part,
        "length of item lists": evaluation.k,
        "length of interest lists": evaluation.interest_k,
        "model": models[0],
        "baselines": models[1:] or None,
        "judged": evaluation.notes,
        "method": _METHOD,
        "table": evaluation.table().to_dicts(),
        "gains": gains,
    }


def _known_limits(split: Split | None, evaluation: Evaluation | None) -> Iterable[str]:
    """What follows from the protocol alone."""
    if split is not None and split.method != "temporal":
        yield (
            f"The split is {split.method}: events of other users that came later were known in "
            "training, so its numbers cannot be set beside those of a split in time."
        )
    if split is not None and split.name == "simulated":
        yield "The data are simulated: no person is behind them."
    if evaluation is not None:
        yield (
            "Judged offline, on logged events of users who had a history: nobody saw the "
            "recommendations, and users without a history are not among the judged."
        )


def _environment() -> dict[str, object]:
    import jax

    kinds = dict.fromkeys(device.device_kind for device in jax.devices())
    versions = {"python": platform.python_version(), "interestkit": __version__}
    return {
        "versions": versions | {name: importlib.metadata.version(name) for name in _PACKAGES},
        "platform": platform.platform(),
        "processor cores": os.cpu_count(),
        "devices": f"{len(jax.devices())} × {', '.join(kinds)}",
    }


def _plain(value: object) -> object:
    """The same as JSON knows it: NaN is null, an infinite number is text, a time is ISO 8601."""
    if isinstance(value, float | np.floating):
        if np.isfinite(value):
            return float(value)
        return None if np.isnan(value) else "infinite" if value > 0 else "-infinite"
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, np.generic):
        return _plain(value.item())
    if isinstance(value, date):  # a datetime is one
        return value.isoformat()
    if is_dataclass(value):
        return _plain(asdict(value))
    if isinstance(value, Mapping):
        return {str(name): _plain(part) for name, part in value.items()}
    if isinstance(value, Sequence | np.ndarray | set | frozenset):
        return [_plain(part) for part in value]
    return str(value)
