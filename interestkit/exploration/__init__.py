"""Beyond what somebody likes already: interests without labels, and interests that are new.

Each name is imported when it is first used.
"""

from interestkit.lazy import lazy_names

_MODULE_OF = {
    "cluster_interests": "clusters",
    "fit_novel": "novel",
    "tune_novel": "judged",
    "make_novel_baselines": "judged",
    "judge_novel": "judged",
    "transitions": "planning",
    "LearnedPlanner": "planning",
    "explore": "planning",
    "Exploring": "planning",
    "LanguagePlanner": "language",
    "Ensemble": "bandits",
    "bootstrap": "bandits",
    "RandomPlaces": "bandits",
    "off_policy_value": "bandits",
    "World": "world",
    "simulate_rounds": "loop",
    "default_policies": "loop",
    "Audience": "world",
}
__getattr__, __dir__, __all__ = lazy_names(__name__, _MODULE_OF)
