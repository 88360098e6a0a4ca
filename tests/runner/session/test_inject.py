"""`softsgx run --inject`: what the program sees, on both drivers, and what is said about it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from softsgx.linux.failures import PYTHON_ONLY, SITES
from softsgx.runner.run_result import ProgramFailed, run_program
from tests.cdriver import sources
from tests.patience import LIMIT_S
from tests.runner.gcc import needs_gcc
from tests.runner.programs import Workshop

# What examples/edmm says when it meets a failure. The others it does not reach.
SAYS = {
    "create_buffer": "edmm: CREATE: Cannot allocate memory",
    "shmem_file_setup": "edmm: CREATE: Cannot allocate memory",
    "sgx_encl_grow": "edmm: CREATE: Cannot allocate memory",
    "sgx_alloc_epc_page": "edmm: CREATE: Cannot allocate memory",
    "sgx_encl_page_alloc": "edmm: ADD_PAGES: Cannot allocate memory",
    "xa_insert": "edmm: ADD_PAGES: Cannot allocate memory",
    "init_page": "edmm: INIT: Cannot allocate memory",
    "crypto_alloc_shash": "edmm: INIT: Cannot allocate memory",
    "sgx_encl_mm_add": "edmm: mmap: Cannot allocate memory",
    "mmu_notifier_register": "edmm: mmap: Cannot allocate memory",
    "vmf_insert_pfn": "edmm: step 2: not what the manual and the kernel say",
    "EMODPR": "RESTRICT_PERMISSIONS(r-x): errno 14, result 7, count 0",
    "ETRACK": "RESTRICT_PERMISSIONS(r-x): errno 14, result 0, count 0",
}
EVICTED = {"sgx_encl_get_backing"}


@pytest.fixture(scope="module")
def example(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    return Workshop(tmp_path_factory.mktemp("inject")).example()


def test_every_site_is_here() -> None:
    assert {*SAYS, *EVICTED, "sgx_open"} == set(SITES)


@needs_gcc
@pytest.mark.parametrize("site", SAYS)
def test_the_program_meets_the_failure(site: str, example: list[str]) -> None:
    result = run_program(example, inject=site, code=1)
    assert SAYS[site] in result.out + result.err
    assert result.injected == {site: 1}


@needs_gcc
@pytest.mark.parametrize("site", sorted({*SAYS} - PYTHON_ONLY))
def test_the_kernels_own_driver_fails_alike(
    site: str, example: list[str], tmp_path_factory: pytest.TempPathFactory
) -> None:
    driver = sources.driver_object("6.12", tmp_path_factory)
    result = run_program(example, inject=site, options=["--driver", str(driver)], code=1)
    assert SAYS[site] in result.out + result.err
    assert result.injected == {site: 1}


def test_a_site_that_the_kernels_driver_does_not_ask_for_is_refused(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    driver = sources.driver_object("6.12", tmp_path_factory)
    done = run("--driver", str(driver), "--inject", "sgx_alloc_epc_page")
    assert done.returncode == 125
    assert done.stderr == "softsgx: run: --inject: sgx_alloc_epc_page: not with --driver\n"


@needs_gcc
def test_pages_are_evicted_in_the_end(example: list[str]) -> None:
    """Without backing memory ksgxd tries again; for ever, a run hung: WHEN has to end."""
    result = run_program(example, epc="256K", inject="sgx_encl_get_backing:when=1..40")
    assert result.injected["sgx_encl_get_backing"] == 40
    assert result.numbers["evicted"] > 0


@needs_gcc
def test_the_explanation_names_it_instead_of_an_advice(example: list[str]) -> None:
    result = run_program(example, inject="EMODPR", code=1)
    (said,) = [text for text in result.explanations if "RESTRICT_PERMISSIONS" in text]
    assert "leave out --inject EMODPR, which made it fail" in said
    assert "try again" not in said


@needs_gcc
def test_the_explanation_names_it_with_the_kernels_driver(
    example: list[str], tmp_path_factory: pytest.TempPathFactory
) -> None:
    driver = sources.driver_object("6.12", tmp_path_factory)
    result = run_program(example, inject="EMODPR", options=["--driver", str(driver)], code=1)
    (said,) = [text for text in result.explanations if "RESTRICT_PERMISSIONS" in text]
    assert "leave out --inject EMODPR, which made it fail" in said


@needs_gcc
def test_a_failure_that_does_not_happen_is_told(example: list[str]) -> None:
    with pytest.raises(ProgramFailed, match=r"EMODPR:when=7: nothing failed.* reached once"):
        run_program(example, inject=["EMODPR:when=7"])


@needs_gcc
def test_linux_6_18_hashes_the_key_without_an_allocation(example: list[str]) -> None:
    with pytest.raises(ProgramFailed, match="crypto_alloc_shash: nothing failed"):
        run_program(example, linux="6.18", inject="crypto_alloc_shash")


def test_a_failure_that_does_not_happen_is_told_after_half_a_line() -> None:
    with pytest.raises(ProgramFailed, match="reached never"):
        run_program(["/bin/sh", "-c", "printf x >&2"], inject="EMODPR")


def test_no_device_where_opening_it_fails(tmp_path: Path) -> None:
    command = ["/bin/sh", "-c", "exec 3< /dev/sgx_enclave"]
    result = run_program(command, inject="sgx_open", code=None)
    assert "emory" in result.err, "sh says: Cannot allocate memory, or Out of memory"
    assert result.injected == {"sgx_open": 1}


def run(*options: str) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-m", "softsgx", "run", *options, "--", "/bin/true"]
    return subprocess.run(line, capture_output=True, text=True, timeout=LIMIT_S, check=False)


def test_help_lists_every_site() -> None:
    done = run("--inject", "help")
    assert [line.split()[0] for line in done.stdout.splitlines()] == list(SITES)
    assert done.returncode == 0


def test_a_site_that_is_none_is_one_line() -> None:
    done = run("--inject", "EMODPT")
    assert done.returncode == 125
    assert done.stderr == (
        "softsgx: run: --inject: 'EMODPT': no such site, did you mean EMODPR?: "
        "--inject help lists all\n"
    )
