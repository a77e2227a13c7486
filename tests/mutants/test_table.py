"""The table of mutants fits the present code. `make mutants` takes minutes, this test does not."""

from __future__ import annotations

import ast

import pytest

from tests.mutants.table import MUTANTS, ROOT, TESTS, Mutant


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.test)
def test_every_mutant_can_be_applied_and_has_its_test(mutant: Mutant) -> None:
    code = (ROOT / mutant.file).read_text(encoding="utf-8")
    assert code.count(mutant.search) == 1
    ast.parse(code.replace(mutant.search, mutant.replace))
    assert f"def {mutant.test}(" in (ROOT / TESTS).read_text(encoding="utf-8")
