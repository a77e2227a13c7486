"""Check the specializations and their levels in the configured database; exit 0 when all pass, else 1."""

import sys

from service.checks import CURRICULUM
from service.checks.script import run

if __name__ == "__main__":
    sys.exit(run(CURRICULUM))
