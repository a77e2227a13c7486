"""Check the edge cases in the configured database; exit 0 when all pass, else 1."""

import sys

from service.checks import EDGE_CASES
from service.checks.script import run

if __name__ == "__main__":
    sys.exit(run(EDGE_CASES))
