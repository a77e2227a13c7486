"""Check the edge cases in the configured database; exit 0 when all pass, else 1."""

import sys

try:
    from service.checks import EDGE_CASES
    from service.checks.result import run
except ModuleNotFoundError as error:
    sys.exit(f"{error}: run it in levelsync's environment (make install, then . .venv/bin/activate)")

if __name__ == "__main__":
    sys.exit(run(EDGE_CASES))
