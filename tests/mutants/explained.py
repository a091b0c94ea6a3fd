"""Mutants that survive and do no harm, each with the reason.

Contract: the key is `str(mutant)`, the value says why no test can, or need, see it.  An entry whose mutant does not
exist any more makes a test fail.
"""

from __future__ import annotations

EXPLAINED: dict[str, str] = {}
