"""A notebook-based research kit for modelling what users are interested in.

The names below are all that a notebook needs; each is imported from its module when it is first
used, so that `import interestkit` is quick.
"""

from importlib import import_module

__version__ = "0.1.0"

_MODULE_OF = {
    "clean": "cleaning",
    "add_sessions": "cleaning",
    "without_bursts": "cleaning",
    "load": "datasets",
    "list_datasets": "datasets",
    "read_log": "events",
    "EventLog": "events",
    "simulate": "simulation",
    "planted_interests": "simulation",
    "temporal_split": "splitting",
    "leave_last_out": "splitting",
    "Split": "splitting",
    "Features": "features",
    "fit_features": "features",
    "Modality": "modalities",
    "read_vectors": "modalities",
    "write_vectors": "modalities",
    "text_vectors": "encoders",
    "image_vectors": "encoders",
    "audio_vectors": "encoders",
    "with_new_items": "colditems",
    "audit": "auditing",
    "held_out": "heldout",
    "fit": "training",
    "write_csv": "storage",
    "prepare": "preparing",
    "Prepared": "preparing",
    "write_shards": "shards",
    "Shards": "shards",
    "make_mesh": "devices",
    "join_hosts": "devices",
    "TrainingConfig": "examples",
    "Predictor": "prediction",
    "predict_interests": "prediction",
    "Popular": "baselines",
    "MostFrequent": "baselines",
    "add_linear_part": "linear",
    "tune_linear_part": "linear",
    "ItemKNN": "neighbours",
    "EASE": "neighbours",
    "ALS": "neighbours",
    "search": "searching",
    "Uniform": "searching",
    "LogUniform": "searching",
    "Choice": "searching",
    "SPACES": "tuning",
    "tuned_baselines": "tuning",
    "model_builder": "tuning",
    "make_baselines": "tuning",
    "cold_start": "coldstart",
    "ColdStart": "coldstart",
    "recommend": "recommendation",
    "update": "updating",
    "prequential": "periods",
    "drift": "drifting",
    "export": "exporting",
    "load_scorer": "serving",
    "evaluate": "evaluation",
    "compare": "paired",
    "model_card": "modelcard",
    "training_facts": "modelcard",
    "trade_offs": "reranking",
    "Reranked": "reranking",
    "explain": "explanation.attributions",
    "faithfulness": "explanation.faithfulness",
    "counterfactual": "explanation.counterfactuals",
    "calibrate": "explanation.calibration",
    "interest_sets": "explanation.calibration",
    "probe": "explanation.probing",
    "cluster_interests": "exploration.clusters",
    "fit_novel": "exploration.novel",
    "tune_novel": "exploration.judged",
    "make_novel_baselines": "exploration.judged",
    "judge_novel": "exploration.judged",
    "transitions": "exploration.planning",
    "LearnedPlanner": "exploration.planning",
    "explore": "exploration.planning",
    "Exploring": "exploration.planning",
    "LanguagePlanner": "exploration.language",
    "Ensemble": "exploration.bandits",
    "bootstrap": "exploration.bandits",
    "RandomPlaces": "exploration.bandits",
    "off_policy_value": "exploration.bandits",
    "World": "exploration.world",
    "simulate_rounds": "exploration.loop",
    "default_policies": "exploration.loop",
    "pseudonymise": "privacy.pseudonyms",
    "Coarseness": "privacy.generalising",
    "generalise": "privacy.generalising",
    "k_anonymity": "privacy.generalising",
    "release": "privacy.release",
    "private_features": "privacy.training",
    "fit_private": "privacy.training",
    "audit_private": "privacy.audits",
    "attack_plain": "privacy.membership",
    "attack_private": "privacy.membership",
    "train_parts": "privacy.forgetting",
    "find_traces": "privacy.forgetting",
    "what_if": "widgets.what_if",
    "trade_off": "widgets.trade_off",
    "interest_map": "widgets.map",
    "compare_models": "widgets.compared",
    "TrainingMonitor": "widgets.monitor",
    "explore_users": "widgets.explorer",
}
_MODULES = ("metrics", "plots", "schema", "widgets")
__all__ = ["__version__", *_MODULE_OF, *_MODULES]


def __getattr__(name: str):
    if name in _MODULES:
        return import_module(f"interestkit.{name}")
    if name in _MODULE_OF:
        return getattr(import_module(f"interestkit.{_MODULE_OF[name]}"), name)
    raise AttributeError(f"module 'interestkit' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
