"""Sentences of the documents that promise something, and figures in running text."""

from __future__ import annotations

import re

import pytest

from softsgx.system.scenarios.names import all_shipped
from tests.docs.test_not_modelled import is_there
from tools.documents import ROOT

# A sentence of a document, or its beginning, and the tests that check what it promises.
CLAIMS = {
    "Unmodified SGX programs run on a machine without SGX.": (
        "tests/runner/test_programs.py::test_program",
        "tests/tools/test_conformance.py::",
    ),
    "can fail here as they do on hardware: there is no simulation mode": (
        "tests/programs/edmm_probe.c::main",
        "tests/cpu/leaf/test_eaccept.py::test_eaccept_refuses",
    ),
    "the code of its enclaves is executed by an emulator whose only": (
        "tests/runner/emulator/test_memory.py::",
    ),
    "When something is refused, `--explain` says by which layer": (
        "tests/docs/test_blocks.py::test_what_is_made_is_what_would_be_made_now",
        "tests/system/explain/test_explain.py::",
    ),
    "with an EPC so small that their enclaves are evicted and reloaded": (
        "tests/tools/test_conformance.py::",
    ),
    "It runs in containers with their default seccomp profile, too, as root or not.": (
        "tests/runner/test_container.py::test_demo_runs_under_the_default_profile",
        "tests/runner/test_denied.py::test_demo_runs_as_another_user",
    ),
    "makes an image that runs the demo": (
        "tests/container/test_dockerfile.py::"
        "test_the_image_runs_the_demo_under_the_default_profile",
    ),
    "What `explore` finds is a schedule string; `--replay` brings it back": (
        "tests/cli/test_explore.py::test_a_violation_is_exit_code_1_and_its_replay_shows_it_again",
    ),
    "Every leaf of SGX1, SGX2 and the oversubscription set, check by check": (
        "tests/cpu/test_rules.py::test_every_rule_has_rows_and_every_row_a_rule",
    ),
    "Where the manual can be read in two ways, [a switch]": (
        "tests/cpu/test_rules.py::test_the_list_of_readings_is_current",
    ),
    "asking for it raises `Unmodelled`": (
        "tests/docs/test_not_modelled.py::test_every_refusal_has_a_test",
    ),
}


def words(path: str) -> str:
    """A document as one line."""
    return " ".join((ROOT / path).read_text(encoding="utf-8").split())


@pytest.mark.parametrize("claim", CLAIMS)
def test_every_claim_names_its_tests(claim: str) -> None:
    said = [words(path) for path in ("README.md", "docs/run.md", "docs/python.md")]
    assert any(claim in text for text in said), "the sentence is gone: so goes its row"
    for test in CLAIMS[claim]:
        assert is_there(test), test


def test_rows_of_stats_that_are_explained_are_printed() -> None:
    """The story: a row was renamed, and the text below the sample explained the old one."""
    text = (ROOT / "docs" / "run.md").read_text(encoding="utf-8")
    (sample,) = re.findall(r"```text\n(leaves .*?)```", text, re.DOTALL)
    paragraph = text[text.index("`leaves` counts every execution") :].split("\n\n")[0]
    named = set(re.findall(r"`([a-z ]+|CPUID, ENCLU)`", paragraph)) - {"trapped"}
    assert len(named) == 5
    assert {name for name in named if name not in sample} == set()


def test_the_number_of_shipped_scenarios() -> None:
    (said,) = re.findall(r"Gramine and Enarx: (\d+) in all", words("docs/explore.md"))
    assert int(said) == len(all_shipped())


def test_what_reduction_saves_is_what_was_measured() -> None:
    (said,) = re.findall(r"So it saves little there, (\d+) to (\d+) %", words("docs/explore.md"))
    bench = (ROOT / "bench" / "README.md").read_text(encoding="utf-8")
    table = bench[bench.index("| scenario, races repaired |") :]
    measured = [int(found) for found in re.findall(r"\| (\d+)% \|$", table, re.MULTILINE)]
    assert [int(x) for x in said] == [min(measured), max(measured)]


def test_the_figures_of_make_bench_have_their_sections() -> None:
    """Headings and table heads are those that bench/ would write."""
    written = (ROOT / "bench" / "README.md").read_text(encoding="utf-8")
    sources = "".join(
        path.read_text(encoding="utf-8") for path in sorted((ROOT / "bench").glob("*.py"))
    )
    for title in re.findall(r"^## (.*)$", written, re.MULTILINE):
        assert f'"{title}"' in sources, title
    for head in {*re.findall(r"^(\|.*\|)\n\| ---", written, re.MULTILINE)}:
        assert head in sources, head
