"""The calibration service: processed calibrations, where they are, and which frame they fit.

>>> from niripipe import cal_service
>>> caldb = cal_service.CalibrationService()
>>> caldb.config(); caldb.init()               # doctest: +SKIP
>>> cal_service.set_calservice()               # doctest: +SKIP

The database library is loaded when a store is first used.
"""

from __future__ import annotations

from niripipe.cal_service.config import StoreLocation, find_store
from niripipe.cal_service.explain import Candidate, Explanation
from niripipe.cal_service.facts import SKY_LIGHT, CalibrationFacts, facts_of
from niripipe.cal_service.masks import MaskOrigin, mask_origin, masks_to_unite, register_bpm
from niripipe.cal_service.records import CalibrationRecord, CalReturn, FileData, FileList
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
from niripipe.cal_service.service import CalibrationService
from niripipe.cal_service.session import (
    LocalDB,
    clear_calservice,
    get_calservice,
    load_config,
    set_calservice,
    set_local_database,
)
from niripipe.cal_service.user import broken_rules, choice_warning, user_calibrations

__all__ = [
    "ASSOCIATION_RULES",
    "PROCESSED_TYPES",
    "SKY_LIGHT",
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
    "MaskOrigin",
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
    "load_config",
    "mask_origin",
    "masks_to_unite",
    "register_bpm",
    "rules_for",
    "set_calservice",
    "set_local_database",
    "user_calibrations",
]
