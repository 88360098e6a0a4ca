"""Tests of a program that manages enclave memory: examples/edmm, under both engines.

make demo                                # builds it, into build/demo
pytest examples/pytest
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

BUILT = Path(os.environ.get("DEMO", "build/demo"))
PROGRAM = [BUILT / "host", BUILT / "enclave.sgxs", BUILT / "enclave.sig"]


@pytest.mark.softsgx_run(engine=["unicorn", "native"], linux=["6.1", "6.12"])
def test_pages_come_and_go(softsgx_run):
    result = softsgx_run(PROGRAM)
    assert result.leaves["EAUG"] > 0
    assert result.leaves["EMODPR"] > 0
    assert result.failed["SGX_IOC_ENCLAVE_REMOVE_PAGES -EPERM"] == 2


def test_every_restriction_is_accepted(softsgx_run):
    """After EMODPR a page is unusable until the enclave has accepted it."""
    result = softsgx_run(PROGRAM, trace=True)
    leaves = [e["leaf"] for e in result.events if e["what"] == "LeafDone"]
    assert leaves.index("EMODPR") < len(leaves) - leaves[::-1].index("EACCEPT")


def test_a_program_that_fails_says_why(softsgx_run):
    result = softsgx_run([BUILT / "host", "no-such-file", BUILT / "enclave.sig"], code=None)
    assert result.code != 0
    assert "no-such-file" in result.err
