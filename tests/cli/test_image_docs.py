"""Every command of docs/image.md, run in the order of the text in one empty directory."""

import os
import re
import subprocess
import sys
from pathlib import Path

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "image.md"
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(language: str) -> list[str]:
    text = DOCUMENT.read_text(encoding="utf-8")
    return [content for kind, content in BLOCK.findall(text) if kind == language]


def run_all(directory: Path) -> dict[str, str]:
    """Standard output of each command; if one fails, the test fails with its output."""
    (source,) = blocks("c")
    (directory / "enclave.c").write_text(source, encoding="utf-8")
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    found = {}
    for command in "".join(blocks("sh")).splitlines():
        done = subprocess.run(
            ["sh", "-c", command],
            cwd=directory,
            env={**os.environ, "PATH": path},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"{command}: {done.stderr}"
        found[command] = done.stdout
    return found


def line(outputs: dict[str, str], command: str, name: str) -> str:
    (found,) = (line.split()[-1] for line in outputs[command].splitlines() if line.startswith(name))
    return found


def test_every_command_runs_and_they_agree(tmp_path: Path) -> None:
    outputs = run_all(tmp_path)
    assert len(outputs) == 15
    assert all(text for command, text in outputs.items() if command.startswith("softsgx "))
    sign = "softsgx sign enclave --key key.pem -o enclave.sig --sgxs enclave.sgxs"
    mrenclave = line(outputs, "softsgx measure enclave", "MRENCLAVE")
    assert line(outputs, "softsgx measure enclave.sgxs", "MRENCLAVE") == mrenclave
    assert line(outputs, sign, "MRENCLAVE") == mrenclave
    assert mrenclave in outputs["softsgx measure enclave --json"]
    assert mrenclave in outputs["softsgx show enclave.sig"]
    assert line(outputs, sign, "MRSIGNER") in outputs["softsgx show enclave.sig"]
    assert outputs["softsgx show --diff enclave enclave.sgxs"].endswith("\nequal\n")
    same = "ENCLAVEHASH is MRENCLAVE: the SIGSTRUCT is for this enclave"
    assert same in outputs["softsgx show --diff enclave.sig enclave.sgxs"]
    assert "\ncontents     0x0: " in outputs["softsgx show --diff enclave fixed || test $? = 1"]


def test_only_known_languages_are_used() -> None:
    languages = {kind for kind, _ in BLOCK.findall(DOCUMENT.read_text(encoding="utf-8"))}
    assert languages == {"c", "sh"}
