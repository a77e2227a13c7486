"""The database checks of `levelsync doctor` and of the two scripts: a function for each, grouped in tuples."""

from service.checks.curriculum import CURRICULUM, EDGE_CASES, WARNINGS
from service.checks.installation import BEFORE_MIGRATION, INSTALLATION, application_columns, rights, row_security
from service.checks.result import Checker, Finding, Verdict

__all__ = [
    "BEFORE_MIGRATION",
    "CURRICULUM",
    "EDGE_CASES",
    "INSTALLATION",
    "WARNINGS",
    "Checker",
    "Finding",
    "Verdict",
    "application_columns",
    "rights",
    "row_security",
]
