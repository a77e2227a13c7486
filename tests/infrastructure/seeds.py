"""Random tests that can be run again as they were."""

from __future__ import annotations

import os
import random

SEED = "LEVELSYNC_TEST_SEED"


def new_seed() -> int:
    """Give the seed of LEVELSYNC_TEST_SEED, else a new one, and print it: pytest shows it for a test that failed."""
    seed = int(os.environ.get(SEED) or random.SystemRandom().randrange(1_000_000))
    print(f"run it again with {SEED}={seed}")  # noqa: T201 - see above
    return seed
