"""What protects the people in a log: names, coarseness, encryption, and how far that reaches.

Each name is imported when it is first used.
"""

from interestkit.lazy import lazy_names

_MODULE_OF = {
    "pseudonymise": "pseudonyms",
    "Coarseness": "generalising",
    "generalise": "generalising",
    "k_anonymity": "generalising",
    "release": "releasing",
    "private_features": "training",
    "fit_private": "training",
    "audit_private": "audits",
    "attack_plain": "membership",
    "attack_private": "membership",
    "train_parts": "forgetting",
    "find_traces": "tracing",
    "new_key": "pseudonyms",
    "Attacker": "linking",
    "Release": "releasing",
    "coarseness_curve": "releasing",
    "FileKeys": "encryption",
    "sealed": "encryption",
    "read_log": "encryption",
    "write_log": "encryption",
    "PRIVATE": "training",
}
__getattr__, __dir__, __all__ = lazy_names(__name__, _MODULE_OF)
