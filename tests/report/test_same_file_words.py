"""Which words of a command name files."""

from __future__ import annotations

from pathlib import Path

import pytest

from softsgx.report.same_file import named_in


@pytest.mark.parametrize("word", ["e.sgxs", "--enclave=e.sgxs", "enclave=e.sgxs", "-ee.sgxs"])
def test_a_file_is_named_alone_and_within_an_option(
    word: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`run --trace e.sgxs -- ./host -ee.sgxs` used to write the trace over the enclave."""
    monkeypatch.chdir(tmp_path)
    Path("e.sgxs").touch()
    assert named_in(["-v", "5", word, "-x"]) == ["e.sgxs"]
