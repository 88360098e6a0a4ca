"""The committed bytes are what the assembler makes of the sources."""

import shutil
from pathlib import Path
from subprocess import CalledProcessError

import pytest

from tools import assemble


@pytest.mark.skipif(shutil.which("as") is None, reason="no binutils")
def test_machine_code_is_up_to_date() -> None:
    assert assemble.MACHINE_CODE.read_text(encoding="utf-8") == assemble.module(), "run make asm"


@pytest.mark.skipif(shutil.which("as") is None, reason="no binutils")
@pytest.mark.parametrize(
    ("text", "error"), [("f: jmp elsewhere\n", SystemExit), ("f: no\n", CalledProcessError)]
)
def test_sources_that_need_a_linker_or_are_wrong_are_refused(
    tmp_path: Path, text: str, error: type[BaseException]
) -> None:
    source = tmp_path / "a.s"
    source.write_text(text, encoding="utf-8")
    with pytest.raises(error):
        assemble.assemble(source, {})
