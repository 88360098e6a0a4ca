"""--coverage: which lines of C were executed, as lcov."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from softsgx.cdriver.tree import DRIVER
from tests.cdriver import sources
from tests.runner.programs import Workshop, supervised


def parsed(text: str) -> dict[str, dict[str, dict[str, int]]]:
    """By file and kind of record, the counts."""
    found: dict[str, dict[str, dict[str, int]]] = {}
    for record in text.split("end_of_record\n")[:-1]:
        lines = record.splitlines()
        assert lines[0] == "TN:"
        name = lines[1].removeprefix("SF:")
        counts: dict[str, dict[str, int]] = {"FNDA": {}, "DA": {}}
        for line in lines[2:]:
            kind, _, value = line.partition(":")
            if kind == "FNDA":
                count, _, function = value.partition(",")
                counts[kind][function] = int(count)
            elif kind == "DA":
                line_number, _, count = value.partition(",")
                counts[kind][line_number] = int(count)
        total = {"LF": len(counts["DA"]), "LH": sum(map(bool, counts["DA"].values()))}
        for kind, sum_of in total.items():
            assert f"{kind}:{sum_of}" in lines
        found[name] = counts
    return found


def line_of(tree: Path, file: str, text: str) -> str:
    """The number of the only line that has a text."""
    lines = (tree / DRIVER / file).read_text(encoding="utf-8").splitlines()
    (number,) = [n for n, line in enumerate(lines, 1) if text in line]
    return str(number)


def test_the_lines_that_a_search_has_reached(
    tmp_path_factory: pytest.TempPathFactory, tmp_path: Path
) -> None:
    """In a process of its own: counts are of the whole process."""
    driver = sources.driver_object("6.12", tmp_path_factory)
    tree = sources.kernel_or_skip("6.12").top
    out = tmp_path / "out.info"
    words = ("FirstTouch", "--driver", str(driver), "--coverage", str(out), "--executions", "50")
    command = [sys.executable, "-m", "softsgx", "explore", *words]
    assert subprocess.run(command, capture_output=True, check=False).returncode == 1
    found = parsed(out.read_text(encoding="utf-8"))
    assert set(found) == {f"{DRIVER}/{name}.c" for name in ("driver", "encl", "ioctl", "main")}
    encl = found[f"{DRIVER}/encl.c"]
    assert encl["FNDA"]["sgx_encl_eaug_page"] > 0
    assert encl["FNDA"]["sgx_vma_access"] == 0
    reached = line_of(tree, "encl.c", "ret = __eaug(")
    refused = line_of(tree, "encl.c", "sgx_encl_shrink(encl, va_page);")
    lookup = line_of(tree, "encl.c", "vmret = vmf_insert_pfn(vma, addr, PFN_DOWN(phys_addr));")
    assert encl["DA"][reached] >= encl["DA"][lookup] > 0
    # The loser of the race K1 goes there, the others do not.
    assert 0 < encl["DA"][refused] < encl["DA"][reached]


def test_the_lines_that_a_program_has_reached(
    tmp_path_factory: pytest.TempPathFactory, tmp_path: Path
) -> None:
    driver = sources.driver_object("6.12", tmp_path_factory)
    out = tmp_path / "out.info"
    example = Workshop(tmp_path).example()
    done = supervised(example, "--driver", str(driver), "--coverage", str(out))
    assert done.returncode == 0, done.stderr
    text = out.read_text(encoding="utf-8")
    called = parsed(text)[f"{DRIVER}/ioctl.c"]["FNDA"]
    assert called["sgx_ioc_enclave_restrict_permissions"] > 0
    assert called["sgx_ioc_enclave_provision"] == 0
    # Each function has a line.
    assert len(re.findall(r"^FN:\d+,", text, re.MULTILINE)) == len(
        re.findall(r"^FNDA:", text, re.MULTILINE)
    )
