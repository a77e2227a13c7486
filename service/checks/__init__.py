"""What `levelsync doctor` and the two scripts check in the database: a function each, grouped in tuples."""

from service.checks.curriculum import CURRICULUM, WARNINGS
from service.checks.edge_cases import EDGE_CASES
from service.checks.installation import BEFORE_MIGRATION, INSTALLATION, application_columns
from service.checks.result import Check, Checker
from service.checks.rights import rights, row_security

__all__ = [
    "BEFORE_MIGRATION",
    "CURRICULUM",
    "EDGE_CASES",
    "INSTALLATION",
    "WARNINGS",
    "Check",
    "Checker",
    "application_columns",
    "rights",
    "row_security",
]
