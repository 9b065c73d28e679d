"""The calibration service: processed calibrations, where they are, and which frame they fit.

>>> from niripipe import cal_service
>>> caldb = cal_service.CalibrationService()
>>> caldb.config(); caldb.init()               # doctest: +SKIP
>>> cal_service.set_calservice()               # doctest: +SKIP

The names below are loaded when first used; the database library only when a store is.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from niripipe.cal_service.config import StoreLocation, find_store
    from niripipe.cal_service.explain import Candidate, Explanation
    from niripipe.cal_service.facts import CalibrationFacts, facts_of
    from niripipe.cal_service.records import CalibrationRecord, FileData, FileList
    from niripipe.cal_service.rules import (
        ASSOCIATION_RULES,
        PROCESSED_TYPES,
        Assessment,
        AssociationRules,
        Rule,
        Verdict,
        applicable_types,
        assess,
        calibration_type,
        rules_for,
    )
    from niripipe.cal_service.service import CalibrationService, CalReturn, LocalDB, set_local_database
    from niripipe.cal_service.session import clear_calservice, get_calservice, set_calservice
    from niripipe.cal_service.user import broken_rules, choice_warning, user_calibrations

__all__ = [
    "ASSOCIATION_RULES",
    "PROCESSED_TYPES",
    "Assessment",
    "AssociationRules",
    "CalReturn",
    "CalibrationFacts",
    "CalibrationRecord",
    "CalibrationService",
    "Candidate",
    "Explanation",
    "FileData",
    "FileList",
    "LocalDB",
    "Rule",
    "StoreLocation",
    "Verdict",
    "applicable_types",
    "assess",
    "broken_rules",
    "calibration_type",
    "choice_warning",
    "clear_calservice",
    "facts_of",
    "find_store",
    "get_calservice",
    "rules_for",
    "set_calservice",
    "set_local_database",
    "user_calibrations",
]

_NAMES = {
    "config": ("StoreLocation", "find_store"),
    "explain": ("Candidate", "Explanation"),
    "facts": ("CalibrationFacts", "facts_of"),
    "records": ("CalibrationRecord", "FileData", "FileList"),
    "rules": (
        "ASSOCIATION_RULES",
        "PROCESSED_TYPES",
        "Assessment",
        "AssociationRules",
        "Rule",
        "Verdict",
        "applicable_types",
        "assess",
        "calibration_type",
        "rules_for",
    ),
    "service": ("CalReturn", "CalibrationService", "LocalDB", "set_local_database"),
    "session": ("clear_calservice", "get_calservice", "set_calservice"),
    "user": ("broken_rules", "choice_warning", "user_calibrations"),
}
_HOMES = {name: module for module, names in _NAMES.items() for name in names}


def _load(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


if not TYPE_CHECKING:
    # Type checkers see the imports above, and so find misspelt names.
    __getattr__ = _load


def __dir__() -> list[str]:
    return sorted(__all__)
