"""Every field of `Part`, in every room: what it changes there, and that it changes nothing else.

A new field without a row fails `test_every_field_has_a_row`. A room that does not know of a field
has an empty set, which is an answer, too.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field, fields, replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from softsgx import Machine
from softsgx.cli.main import main
from softsgx.cpu import Bare, Fault, Part
from softsgx.linux import uapi
from softsgx.linux.errno import errno_text
from softsgx.runner.cpuid.cpuid import CpuidPolicy, native_xfrm
from softsgx.runner.cpuid.cpuinfo import cpuinfo_text
from softsgx.runner.emulator.blocks import Why
from softsgx.runner.errors import RunnerError
from softsgx.runner.options import Options
from softsgx.runner.session.session import part_of
from softsgx.sim import Unmodelled
from softsgx.spec.attributes import ATTR_AEXNOTIFY, ATTR_CET, ATTR_KSS
from softsgx.spec.cpuid import Registers
from softsgx.spec.leaves import EAUG, EDECCSSA, EREPORT, ETRACKC, EVERIFYREPORT2
from softsgx.spec.msr import IA32_SGXLEPUBKEYHASH
from softsgx.system import BuildError, Enclave, load
from softsgx.system.loader import default_image
from tests.cli.no_front import no_front
from tests.patience import LIMIT_S
from tests.runner.emulator.engine_rig import rig
from tests.runner.programs import Program, Workshop

SECTIONS = ((1 << 32, 256 << 20),)
Seen = dict[str, object]
NOT_MODELLED = "not modelled"


@dataclass(frozen=True)
class Row:
    """A value that is not the default; as text; and what it changes in each room.

    `run` may be a refusal instead, as a pattern of the one line.
    """

    value: Any
    text: str
    cpu: frozenset[str] = frozenset()
    linux: frozenset[str] = frozenset()
    cpuid: frozenset[str] = frozenset()
    scanner: frozenset[str] = frozenset()
    machine: frozenset[str] = frozenset()
    run: frozenset[str] | str = frozenset()
    engine: str = "unicorn"
    unmodelled: bool = False
    given: dict[str, Any] = field(default_factory=dict)  # fields without which there is none


def names(*words: str) -> frozenset[str]:
    return frozenset(words)


def unmodelled(name: str) -> Row:
    return Row(True, "1", run=f"--cpu-option: {name}=1: not modelled", unmodelled=True)


CREATES = (
    *("CREATE", "CREATE: KSS", "CREATE: AEXNOTIFY", "CREATE: EXINFO", "CREATE: AVX"),
    *("CREATE: CET", "CREATE: CPINFO", "CREATE: 2 GiB"),
)
ROWS = {
    "sgx2": Row(
        False, "0",
        cpu=names("features", "EAUG"),
        linux=names("RESTRICT"),
        cpuid=names("12.0"),
        scanner=names("RDTSC", "RDTSCP"),
        run=names("features", "RESTRICT", "RDTSC"),
    ),
    "oversub": Row(
        False, "0",
        cpu=names("features", "ETRACKC"),
        cpuid=names("12.0"),
        run=names("features"),
    ),
    "edeccssa": Row(
        False, "0",
        cpu=names("features", "EDECCSSA"),
        cpuid=names("12.0"),
        run=names("features"),
    ),
    "kss": Row(
        False, "0",
        cpu=names("ATTRIBUTES"),
        linux=names("CREATE: KSS"),
        cpuid=names("12.1"),
        run=names("ATTRIBUTES", "CREATE: KSS"),
    ),
    "aexnotify": Row(
        False, "0",
        cpu=names("ATTRIBUTES"),
        linux=names("CREATE: AEXNOTIFY"),
        cpuid=names("12.1"),
        run=names("ATTRIBUTES", "CREATE: AEXNOTIFY"),
    ),
    "exinfo": Row(
        False, "0",
        cpu=names("MISCSELECT"),
        linux=names("CREATE: EXINFO"),
        cpuid=names("12.0"),
        run=names("MISCSELECT", "CREATE: EXINFO"),
    ),
    "launch_control": Row(
        False, "0",
        cpu=names("leaf 7", "IA32_SGXLEPUBKEYHASH"),
        linux=names("open", "provision", "RESTRICT", *CREATES),
        cpuid=names("7.0", "flags"),
        machine=names("load"),
        run=names(
            *("SGX_LC", "stat", "access", "open", "load", "RESTRICT", "RDTSC", "CPUSVN"),
            *CREATES,
        ),
    ),
    "xfrm": Row(
        0b11, "3",
        cpu=names("XFRM", "XCR0"),
        linux=names("CREATE: AVX"),
        cpuid=names("12.1"),
        run=names("XFRM", "CREATE: AVX"),
        engine="native",
    ),
    "max_size_32": Row(
        20, "20",
        cpu=names("sizes"),
        cpuid=names("12.0"),
        run=names("sizes"),
    ),
    "max_size_64": Row(
        30, "30",
        cpu=names("sizes"),
        linux=names("CREATE: 2 GiB"),
        cpuid=names("12.0"),
        run=names("sizes", "CREATE: 2 GiB"),
    ),
    "cpusvn": Row(
        bytes([7] * 16), "07" * 16,
        cpu=names("CPUSVN"),
        run=names("CPUSVN"),
    ),
    "absent_leaves_fault": Row(
        True, "0",  # `run` sets it: there the other value is False
        cpu=names("EVERIFYREPORT2"),
        run=r"not modelled: ENCLU\[EVERIFYREPORT2\]",
    ),
    "cet": Row(
        True, "1",
        cpu=names("leaf 7", "ATTRIBUTES"),
        linux=names("CREATE: CET"),
        cpuid=names("12.1"),
        run=names("ATTRIBUTES", "CREATE: CET"),
    ),
    "cpinfo": Row(
        True, "1",
        cpu=names("MISCSELECT"),
        linux=names("CREATE: CPINFO"),
        cpuid=names("12.0"),
        run=names("MISCSELECT", "CREATE: CPINFO"),
        given={"cet": True},
    ),
    "enclv": unmodelled("enclv"),
    "everifyreport2": unmodelled("everifyreport2"),
    "eupdatesvn": unmodelled("eupdatesvn"),
}  # fmt: skip
MODELLED = [name for name, row in ROWS.items() if not row.unmodelled]
EVERY_FIELD = pytest.mark.parametrize("name", MODELLED)


def changed(room: Callable[[Part], Seen], name: str) -> set[str]:
    """What a room shows differently for the value of the row."""
    row = ROWS[name]
    plain = replace(Part(), **row.given)
    return differing(room(plain), room(replace(plain, **{name: row.value})))


def differing(plain: Seen, other: Seen) -> set[str]:
    return {word for word in plain | other if plain.get(word) != other.get(word)}


def outcome(act: Callable[[], object]) -> str:
    try:
        act()
    except Fault as fault:
        return f"{fault.vector} {fault.rule}"
    except Unmodelled:
        return NOT_MODELLED
    return "done"


def test_every_field_has_a_row() -> None:
    assert list(ROWS) == [f.name for f in fields(Part)]
    for name, row in ROWS.items():
        assert row.value != getattr(Part(), name), name


# cpu


def launching(part: Part) -> Part:
    """The same, but that its hash MSRs can be written: else EINIT needs Intel's token."""
    return replace(part, launch_control=True)


def cpu_room(part: Part) -> Seen:
    """What CPUID says, and what leaves and MSRs do."""
    bare = Bare(32, part=part)
    features, miscselect, _, sizes = part.cpuid(0x12, 0, ())
    permitted = part.cpuid(0x12, 1, ())
    seen: Seen = {
        "leaf 7": part.cpuid(7, 0, ()),
        "features": features,
        "MISCSELECT": miscselect,
        "sizes": sizes,
        "ATTRIBUTES": permitted[:2],
        "XFRM": permitted[2:],
        "XCR0": bare.lp.xcr0,
        "EAUG": outcome(lambda: bare.lp.encls(EAUG, 1, 1)),
        "ETRACKC": outcome(lambda: bare.lp.encls(ETRACKC, 1, 1)),
        "IA32_SGXLEPUBKEYHASH": outcome(lambda: bare.lp.rdmsr(IA32_SGXLEPUBKEYHASH[0])),
        "EVERIFYREPORT2": outcome(lambda: bare.lp.enclu(EVERIFYREPORT2)),
    }
    bare = Bare(32, part=launching(part))
    enclave = bare.enclave(pages=1)
    enclave.enter()
    seen["EDECCSSA"] = outcome(lambda: bare.lp.enclu(EDECCSSA))
    data = enclave.data[0]
    assert bare.lp.enclu(EREPORT, data, data + 512, data + 1024) is None
    page = bare.processor.epc.physical(enclave.pages[data])
    seen["CPUSVN"] = bare.processor.memory.read(page + 1024, 16)
    return seen


@EVERY_FIELD
def test_the_processor(name: str) -> None:
    assert changed(cpu_room, name) == ROWS[name].cpu


# linux


def linux_room(part: Part) -> Seen:
    """The nodes, and what the driver makes of enclaves that ask for something."""
    machine = Machine(part=part)
    host = machine.thread()

    def create(**asked: Any) -> str:
        image = default_image()
        for name, value in asked.items():
            more = getattr(image, name) if name == "attributes" else 0
            image = replace(image, **{name: value | more})
        fd = machine.run(host.open())
        if fd < 0:
            return errno_text(fd)
        secs = replace(image, segments=()).secs(1 << 45).pack()
        at = machine.run(host.alloc(2 * 4096))
        machine.run(host.store(at, secs))
        machine.run(host.store(at + 4096, uapi.SgxEnclaveCreate(src=at).pack()))
        return errno_text(machine.run(host.ioctl(fd, uapi.SGX_IOC_ENCLAVE_CREATE, at + 4096)))

    plain: dict[str, Any] = {"miscselect": 0, "size": 1 << 20}
    seen: Seen = {
        "open": machine.run(host.open()) >= 0,
        "provision": machine.run(host.open("/dev/sgx_provision")) >= 0,
        "CREATE": create(**plain),
        "CREATE: KSS": create(**plain, attributes=ATTR_KSS),
        "CREATE: AEXNOTIFY": create(**plain, attributes=ATTR_AEXNOTIFY),
        "CREATE: EXINFO": create(**plain | {"miscselect": 1}),
        "CREATE: CET": create(**plain, attributes=ATTR_CET),
        "CREATE: CPINFO": create(**plain | {"miscselect": 2}),
        "CREATE: AVX": create(**plain, xfrm=7),
        "CREATE: 2 GiB": create(**plain | {"size": 1 << 31}),
    }
    try:
        enclave = machine.run(load(host))
    except BuildError:
        return seen
    argument = uapi.SgxEnclaveRestrictPermissions()
    request = uapi.SGX_IOC_ENCLAVE_RESTRICT_PERMISSIONS
    seen["RESTRICT"] = errno_text(machine.run(enclave.ioctl(host, request, argument))[0])
    return seen


@EVERY_FIELD
def test_the_driver(name: str) -> None:
    assert changed(linux_room, name) == ROWS[name].linux


# The runner's CPUID


def cpuid_room(part: Part) -> Seen:
    policy = CpuidPolicy(part, SECTIONS, "native", native=lambda a, b: Registers(0x20, 0, 0, 0))
    leaves = ((0, 0), (1, 0), (7, 0), (0xD, 0), (0x12, 0), (0x12, 1), (0x12, 2), (0x8000_0000, 0))
    seen: Seen = {f"{leaf:x}.{subleaf}": policy.cpuid(leaf, subleaf) for leaf, subleaf in leaves}
    return seen | {"flags": cpuinfo_text("flags\t\t: fpu\n", policy)}


@EVERY_FIELD
def test_the_cpuid_of_programs(name: str) -> None:
    assert changed(cpuid_room, name) == ROWS[name].cpuid


# The reference engine's scanner


def scanner_room(part: Part) -> Seen:
    """What an enclave may execute."""
    seen: Seen = {}
    for word in ("rdtsc", "rdtscp", "rdrand rax", "cpuid", "endbr64", "xgetbv"):
        with rig(f"xor ecx, ecx; {word}; enclu", part=launching(part)) as r:
            stop = r.finish()
            seen[word.split()[0].upper()] = "done" if stop.why is Why.ENCLU else str(stop.fault)
    assert "CODE.02" in str(seen["CPUID"])
    return seen


@EVERY_FIELD
def test_the_instructions_of_enclaves(name: str) -> None:
    assert changed(cached_scanner, name) == ROWS[name].scanner


@cache
def cached_scanner(part: Part) -> Seen:
    return scanner_room(part)


# Machine


def machine_room(part: Part) -> Seen:
    """An enclave of the default kind, built and run."""
    machine = Machine(part=part)
    host = machine.thread()
    try:
        enclave: Enclave = machine.run(load(host))
    except BuildError as error:
        return {"load": str(error)}
    body = enclave.call(host, lambda t: t.store(enclave.data[0], b"stored"))
    machine.run(body)
    return {"load": "done"}


@EVERY_FIELD
def test_a_machine(name: str) -> None:
    assert changed(machine_room, name) == ROWS[name].machine


def test_a_machine_without_launch_control_has_no_device() -> None:
    assert machine_room(Part(launch_control=False)) == {"load": "open: -ENOENT"}


# The command


@pytest.fixture(scope="module")
def probe(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    workshop = Workshop(tmp_path_factory.mktemp("parts"))
    program = Program.read(Path(__file__).parent / "part_probe.c")
    report = Program(source=program.source, enclave="report", words=())
    return workshop.command(program) + workshop.command(report)[1:]


def softsgx(probe: list[str], *options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "softsgx", "run", *options, "--", *probe],
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )


def lines(done: subprocess.CompletedProcess[str]) -> Seen:
    assert done.returncode == 0, done.stdout + done.stderr
    return {name: value for name, _, value in (x.rpartition(" ") for x in done.stdout.splitlines())}


@pytest.fixture(scope="module")
def plain(probe: list[str]) -> Callable[..., Seen]:
    return cache(lambda engine, *options: lines(softsgx(probe, "--engine", engine, *options)))


@pytest.mark.parametrize("name", ROWS)
def test_the_command(probe: list[str], plain: Callable[..., Seen], name: str) -> None:
    row = ROWS[name]
    if name == "xfrm" and not native_xfrm() & 4:
        pytest.skip("no AVX here")
    given = [f"--cpu-option={word}={value:d}" for word, value in row.given.items()]
    if name == "xfrm":
        given.append("--cpu-option=xfrm=7")  # not the default on every processor that has it
    done = softsgx(probe, "--engine", row.engine, *given, f"--cpu-option={name}={row.text}")
    if isinstance(row.run, str):
        assert done.returncode == 125, done.stdout + done.stderr
        assert re.fullmatch(f"softsgx: run: {row.run}\n", done.stderr)
        return
    assert differing(plain(row.engine, *given), lines(done)) == row.run


def test_sgx1_is_its_fields(probe: list[str], plain: Callable[..., Seen]) -> None:
    """The story: RDTSC was executed inside, because the scanner did not get the option."""
    seen = lines(softsgx(probe, "--sgx1"))
    words = ("sgx2", "oversub", "edeccssa", "kss", "aexnotify")
    assert differing(plain("unicorn"), seen) == set().union(*(ROWS[w].run for w in words))
    assert seen["RDTSC"] == "0x6"


def test_xfrm_has_an_option_of_its_own(probe: list[str]) -> None:
    one = softsgx(probe, "--engine", "native", "--xfrm", "0x3")
    other = softsgx(probe, "--engine", "native", "--cpu-option", "xfrm=3")
    assert lines(one) == lines(other)
    assert lines(one)["XFRM"] == "0x3"


@pytest.mark.parametrize(
    ("engine", "options", "why"),
    [
        ("unicorn", {"xfrm": "7"}, r"--xfrm: xfrm=0x7: --engine unicorn saves x87 and SSE only"),
        ("unicorn", {"cpu_options": ["xfrm=7"]}, r"--cpu-option: xfrm=0x7: --engine unicorn"),
        ("native", {"xfrm": "0x602e7"}, r"--xfrm: xfrm=0x602e7: --engine native can have 0x\w+"),
        ("native", {"xfrm": "0x20003"}, r"--xfrm: xfrm=0x20003: .* part of AVX-512 or AMX"),
        ("native", {"xfrm": "0x67"}, r"--xfrm: xfrm=0x67: .* part of AVX-512 or AMX"),
        ("native", {"xfrm": "1"}, r"--xfrm: xfrm=1: .* lacks x87 or SSE"),
        ("native", {"xfrm": "-1"}, r"--xfrm: xfrm=-1: .* does not fit"),
        ("native", {"xfrm": "all"}, r"--xfrm: xfrm=all: a number is needed"),
        ("unicorn", {"cpu_options": ["sgx2=maybe"]}, r"--cpu-option: sgx2=maybe: 0 or 1 is needed"),
        ("unicorn", {"cpu_options": ["cpusvn=xy"]}, r"cpusvn=xy: 32 hexadecimal digits"),
        ("unicorn", {"cpu_options": ["cpusvn=00"]}, r"cpusvn=00: .* 1 bytes given, 16 needed"),
        ("unicorn", {"cpu_options": ["max_size_64=99"]}, r"max_size_64=99: .* not in 14\.\.64"),
        ("unicorn", {"cpu_options": ["max_size_64=x"]}, r"max_size_64=x: a number is needed"),
        ("unicorn", {"cpu_options": ["zzz=1"]}, r"'zzz': no such name: --cpu-option help lists"),
        (
            "unicorn",
            {"cpu_options": ["aexnotfy=1"]},
            r"'aexnotfy': no such name, did you mean aexnotify\?: --cpu-option help lists",
        ),
        ("unicorn", {"cpu_options": ["sgx2"]}, r"--cpu-option: 'sgx2': NAME=VALUE is needed"),
    ],
    ids=str,
)
def test_a_bad_value_is_one_line(engine: str, options: dict[str, Any], why: str) -> None:
    with pytest.raises(RunnerError, match=why) as refused:
        part_of(Options(engine=engine, **options))
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("name", ROWS)
def test_the_options_become_the_part(name: str) -> None:
    row = ROWS[name]
    given = [f"{word}={value:d}" for word, value in row.given.items()]
    options = Options(engine=row.engine, cpu_options=[*given, f"{name}={row.text}"])
    if row.unmodelled:
        with pytest.raises(RunnerError, match=NOT_MODELLED):
            part_of(options)
        return
    value = False if name == "absent_leaves_fault" else row.value
    assert getattr(part_of(options)[0], name) == value


def test_help_lists_every_name_with_its_value(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The story: --cpu-option took names that nothing in an installed package listed."""
    no_front(monkeypatch)
    options = ["--sgx1", "--cpu-option", "cet=1", "--cpu-option", "tcs_limit=80"]
    assert main(["run", *options, "--cpu-option", "help"]) == 0
    lines = [x for x in capsys.readouterr().out.splitlines() if not x.startswith("#")]
    part, readings = part_of(Options(sgx1=True, cpu_options=["cet=1", "tcs_limit=80"]))
    names = [x.partition("=")[0] for x in lines]
    assert names == [f.name for kind in (part, readings) for f in fields(kind)]
    assert "sgx2=0  (0 or 1)  SGX2: " in lines[0]
    assert "cet=1  (0 or 1)  Shadow stacks" in lines[names.index("cet")]
    assert "tcs_limit=80  (0 to 4096)  EDBGRD of a TCS" in lines[names.index("tcs_limit")]
    # What is listed can be given back.
    values = [x.split("  ")[0] for x in lines]
    assert part_of(Options(cpu_options=values)) == (part, readings)


def test_help_of_a_processor_that_cannot_be_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    no_front(monkeypatch)
    assert main(["run", "--cpu-option", "help", "--cpu-option", "xfrm=7"]) == 125
    assert "--cpu-option: xfrm=0x7" in capsys.readouterr().err
