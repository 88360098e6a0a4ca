"""Damaged files: the enclave commands read them or refuse them in one line; they never crash."""

from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from softsgx.cli import measure, show, sign
from softsgx.cli.errors import UsageError
from softsgx.cli.main import Parser
from tests.cli.enclave_files import contents

FILES = ["app", "exec", "selftest", "app.sgxs", "app.sig"]
HEADERS = {"app": 64 + 3 * 56, "exec": 64 + 2 * 56, "selftest": 64 + 3 * 56}
EXTRA = {"selftest": ["--layout", "selftest"], "app": ["--relocate-to", "0x40000000"]}

# Position, and the byte there; the second kind of damage hits the structured part more often.
Flips = list[tuple[float, int]]
FLIPS = st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), max_size=4)


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fuzz")


def damaged(name: str, flips: Flips, keep: float, *, headers: bool) -> bytes:
    data = bytearray(contents()[name])
    reach = HEADERS.get(name, len(data)) if headers else len(data)
    for place, value in flips:
        data[int(place * reach)] = value
    return bytes(data[: int(keep * len(data) + 0.5)])


def refusal(command: ModuleType, argv: list[str]) -> str:
    """The text of the UsageError, or ""; other exceptions pass through."""
    parser = Parser(prog="softsgx")
    command.register(parser)
    try:
        code = command.run(parser.parse_args(argv))
    except UsageError as refused:
        return str(refused)
    assert code in (0, 1)
    return ""


def check(command: ModuleType, *argv: str) -> None:
    """A refusal of the file argv[0] is one line that begins with its name."""
    line = refusal(command, list(argv))
    assert line == "" or line.startswith(f"{argv[0]}: ")
    assert "\n" not in line


@pytest.mark.parametrize("name", FILES)
@given(flips=FLIPS, keep=st.just(1.0) | st.floats(0, 1), headers=st.booleans())
@example(flips=[], keep=1.0, headers=False)
@example(flips=[], keep=0.0, headers=False)
@settings(max_examples=150)
def test_show(name: str, directory: Path, flips: Flips, keep: float, headers: bool) -> None:
    path = directory / name
    path.write_bytes(damaged(name, flips, keep, headers=headers))
    check(show, str(path), *EXTRA.get(name, []))


@pytest.mark.parametrize("name", FILES)
@given(flips=FLIPS, keep=st.just(1.0) | st.floats(0, 1))
@settings(max_examples=40)
def test_measure_and_sign(name: str, directory: Path, flips: Flips, keep: float) -> None:
    path, key, out = directory / name, directory / "key.pem", directory / "out"
    path.write_bytes(damaged(name, flips, keep, headers=False))
    key.write_bytes(contents()["key.pem"])
    check(measure, str(path))
    check(sign, str(path), "--key", str(key), "-o", str(out))


@given(flips=FLIPS, keep=st.just(1.0) | st.floats(0, 1))
@settings(max_examples=40)
def test_sign_with_a_damaged_key(directory: Path, flips: Flips, keep: float) -> None:
    path, key = directory / "app", directory / "key.pem"
    path.write_bytes(contents()["app"])
    key.write_bytes(damaged("key.pem", flips, keep, headers=False))
    line = refusal(sign, [str(path), "--key", str(key), "-o", str(directory / "out")])
    assert line == "" or line.startswith(f"{key}: key: ")
