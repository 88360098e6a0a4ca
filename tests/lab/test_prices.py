"""Prices: built-in profiles, a user's own files, and the price of every kind of point."""

import json
from pathlib import Path

import pytest

from softsgx.lab.prices import ENTRIES, PROFILES, PriceError, Profile, checked, corners, profile
from softsgx.sim import Execution, Steps, Unmodelled, VirtualTime
from softsgx.system import Machine

DEFAULT = dict(PROFILES["default"].cycles)


def toml(table: dict[str, object]) -> str:
    return "".join(f"{name} = {value}\n" for name, value in table.items())


def test_low_never_exceeds_default_and_default_never_exceeds_high() -> None:
    for name in ENTRIES:
        low, default, high = (PROFILES[p].cycles[name] for p in ("low", "default", "high"))
        assert low <= default <= high, name


@pytest.mark.parametrize("suffix", [".toml", ".json"])
def test_a_file_of_all_entries_is_a_profile_named_after_it(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"mine{suffix}"
    path.write_text(toml({**DEFAULT}) if suffix == ".toml" else json.dumps(DEFAULT))
    assert profile(str(path)) == Profile("mine", DEFAULT, str(path))


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"EMODPR": None}, "EMODPR: missing"),
        ({"EMODPR": -1}, "EMODPR: -1 is negative"),
        ({"EMODPR": 1.5}, "EMODPR: 1.5 is no whole number of cycles"),
        ({"EMODPR": True}, "EMODPR: True is no whole number of cycles"),
        ({"clock_mhz": 0}, "clock_mhz: 0 is zero"),
        ({"EMODPX": 1}, "EMODPX: unknown entry; known are clock_mhz, EENTER"),
    ],
)
def test_a_bad_entry_is_named(change: dict[str, object], what: str) -> None:
    table = {name: value for name, value in {**DEFAULT, **change}.items() if value is not None}
    with pytest.raises(PriceError, match=f"^mine.toml: {what}"):
        checked("mine.toml", table)


@pytest.mark.parametrize(
    ("name", "text", "what"),
    [
        ("cheap", None, "no profile; known are default, low, high, or a .toml or .json file"),
        ("none.toml", None, "No such file"),
        ("bad.json", "{", "Expecting property name"),
        ("bad.toml", "=", "Invalid"),
        ("list.json", "[]", "a table of entries is needed"),
    ],
)
def test_what_is_no_profile_says_why(
    tmp_path: Path, name: str, text: str | None, what: str
) -> None:
    path = tmp_path / name
    if text is not None:
        path.write_text(text)
    with pytest.raises(PriceError, match=what):
        profile(str(path) if "." in name else name)


def test_a_kind_of_point_that_has_no_price_is_unmodelled() -> None:
    def body() -> Steps[None]:
        yield ("EWBX", None, True)

    prices = PROFILES["default"].prices(Machine().processor)
    execution = Execution(VirtualTime(prices), record=False)
    execution.spawn(body(), "T", 0)
    with pytest.raises(Unmodelled, match="no price for points of kind 'EWBX'"):
        execution.run()


def test_corners_lie_as_far_from_prices_as_low_and_high_from_default() -> None:
    low, high = corners(PROFILES["default"])
    assert (low.cycles, high.cycles) == (PROFILES["low"].cycles, PROFILES["high"].cycles)
    twice = Profile("twice", {name: 2 * price for name, price in DEFAULT.items()})
    assert corners(twice)[1].cycles == {n: 2 * c for n, c in PROFILES["high"].cycles.items()}
