"""Operations: what a stream consists of, and how a stream is drawn.

An operation is plain data, so that a stream can be printed, shortened and told again. Its numbers
choose among what there is when it is executed: an operation that finds nothing to act on does
nothing, so every part of a stream is a stream.
"""

from __future__ import annotations

from random import Random
from typing import Final, NamedTuple

from softsgx.spec.status import SGX_UNMASKED_EVENT

CPUS: Final = 3
ENCLAVES: Final = 2  # at a time; mostly the first is worked with
PAGES: Final = 32
BIG_PAGES: Final = 1024  # of the second, if it is big
VA_SLOTS: Final = 512


class Failure(NamedTuple):
    """Lets the kernel or the processor fail, at the `nth` time from now (from 0), so many `times`.

    `site` is a place of `Kernel.fail`, or a leaf; then `how` is what it does: "#GP", "#PF", or the
    number of a status code.
    """

    site: str
    how: str = ""
    nth: int = 0
    times: int = 1


class Op(NamedTuple):
    """One operation of the thread on logical processor `cpu`.

    `pause` is the number of the point at which it is left alone, in flight, until it is continued;
    0: it goes on until it ends or waits.
    """

    name: str
    cpu: int = 0
    args: tuple[int, ...] = (0,)
    pause: int = 0
    fail: Failure | None = None

    def __repr__(self) -> str:
        more = f", pause={self.pause}" if self.pause else ""
        more += f", fail={self.fail!r}" if self.fail else ""
        return f"Op({self.name!r}, {self.cpu}, {self.args!r}{more})"


class Setting(NamedTuple):
    """The machine of a stream: the size of EPC in pages, whether the processor has SGX2.

    `big`: one of the enclaves needs more than one VA page.
    """

    epc: int = 96
    sgx2: bool = True
    big: bool = False


STORES: Final = (
    *("load", "store", "fetch", "accept", "accept_new", "claim", "emodpe", "copy", "pause"),
    *("raise", "tcs"),
)
"""What enclave code does; an operation `enter` has triples of a number below, a page, a value."""

# How often each operation is drawn, and the bounds of its arguments after the enclave's number.
# "p" is a page, "n" and "m" a number of pages, "v" any small number, "s" what is spoilt: mostly
# nothing.
_DRAWN: Final[dict[str, tuple[int, str]]] = {
    "open": (3, ""),
    "open_provision": (1, ""),
    "dup": (1, ""),
    "close": (1, "v"),
    "pass_fd": (1, "v"),
    "load": (6, "v"),
    "build": (14, "s"),
    "create": (1, "s"),
    "add": (2, "pns"),
    "init": (1, "s"),
    "provision": (1, "v"),
    "unknown": (1, "v"),
    "restrict": (14, "pnvs"),
    "modify": (14, "pnvs"),
    "remove": (14, "pns"),
    "mmap": (4, "pmvs"),
    "munmap": (2, "pms"),
    "mprotect": (5, "pmvs"),
    "mremap": (1, "pmvs"),
    "madvise": (2, "pmvs"),
    "map": (8, "v"),
    "touch": (14, "pv"),
    "enter": (30, ""),
    "resume": (5, ""),
    "cycle": (10, "pv"),
    "fork": (2, "v"),
    "thread": (3, "v"),
    "process": (2, ""),
    "exit": (1, ""),
    "exec": (1, ""),
    "signal": (4, "v"),
    "debug": (4, "pv"),
    "go": (16, ""),
    "ksgxd": (6, ""),
    "reclaim": (5, ""),
    "age": (5, ""),
    "limit": (1, "v"),
    "persona": (1, "v"),
    "noexec": (1, "v"),
}
NAMES: Final = tuple(_DRAWN)
_WEIGHTS: Final = tuple(weight for weight, _ in _DRAWN.values())
# In a stream about building these are more frequent.
_BUILDING: Final = {
    **dict.fromkeys(("build", "create", "add", "init", "load"), 8),
    **dict.fromkeys(("open", "close", "open_provision", "provision", "noexec", "signal"), 5),
}
_BUILDING_WEIGHTS: Final = tuple(_DRAWN[name][0] * _BUILDING.get(name, 1) for name in NAMES)

# What an operation can be made to fail at.
_RECLAIM: Final = "EBLOCK EWB ETRACK EREMOVE sgx_encl_get_backing"
_BUILD: Final = (
    "ECREATE EADD EEXTEND EINIT EPA EREMOVE create_buffer shmem_file_setup sgx_encl_grow"
)
_BUILD_TOO: Final = (
    "init_page crypto_alloc_shash sgx_encl_page_alloc xa_insert sgx_encl_mm_add "
    "mmu_notifier_register"
)
_FAULT: Final = "EAUG ELDU EPA sgx_encl_page_alloc xa_insert sgx_encl_grow vmf_insert_pfn EREMOVE"
_MAP: Final = "sgx_encl_mm_add mmu_notifier_register split_vma"
_FAILING: Final[dict[str, str]] = {
    "open": "sgx_open",
    **dict.fromkeys(
        ("load", "build", "create", "add", "init"), f"{_BUILD} {_BUILD_TOO} {_RECLAIM}"
    ),
    "restrict": f"EMODPR EMODPR ETRACK ETRACK ELDU {_RECLAIM}",
    "modify": f"EMODT EMODT ETRACK ETRACK ELDU {_RECLAIM}",
    "remove": f"EMODPR EREMOVE EREMOVE ELDU {_RECLAIM}",
    **dict.fromkeys(("touch", "enter", "resume"), f"{_FAULT} sgx_encl_get_backing"),
    "cycle": f"EMODPR EMODT ETRACK EREMOVE {_FAULT}",
    "debug": "EDBGRD EDBGWR ELDU sgx_encl_get_backing",
    **dict.fromkeys(("fork", "map", "mmap", "mprotect", "munmap", "mremap", "madvise"), _MAP),
    **dict.fromkeys(("reclaim", "ksgxd"), _RECLAIM),
    "go": f"EMODPR EMODT ETRACK EREMOVE {_FAULT} {_RECLAIM}",
}
_UNMASKED_EVENT: Final = str(SGX_UNMASKED_EVENT)
# How a leaf can fail. A status only where the leaf writes RAX.
_LEAVES: Final[dict[str, tuple[str, ...]]] = {
    **dict.fromkeys("ECREATE EADD EEXTEND EPA EAUG EDBGWR".split(), ("#GP", "#PF")),
    "EINIT": ("#GP", "#PF", "8", "16", _UNMASKED_EVENT, _UNMASKED_EVENT),
    "EREMOVE": ("#GP", "#PF", "7", "13", "14"),
    "EBLOCK": ("#GP", "#PF", "7", "10"),
    "EWB": ("#GP", "#PF", "7", "11"),
    "ELDU": ("#GP", "#PF", "7", "9"),
    "ETRACK": ("#GP", "#PF", "7", "17"),
    "EMODPR": ("#GP", "#PF", "7", "20"),
    "EMODT": ("#GP", "#PF", "7", "20"),
    "EDBGRD": ("#GP", "#PF", "21"),
}


def draw(random: Random, often: int, building: bool) -> Op:
    """One operation, mostly on the enclave with number `often`."""
    name = random.choices(NAMES, _BUILDING_WEIGHTS if building else _WEIGHTS)[0]
    enclave = often if random.random() < 0.75 else 1 - often
    args = [enclave]
    for kind in _DRAWN[name][1]:
        args.append(_argument(random, kind))
    if name in ("enter", "resume"):
        args.append(random.randrange(16))
        for _ in range(random.choice((1, 1, 2, 3, 5))):
            args += [
                random.randrange(len(STORES)),
                _argument(random, "p"),
                random.randrange(64),
            ]
    pause = random.choice((0, 0, 0, 0, 1, 2, 3, 4, 6, 9, 15))
    fail = _failure(random, name) if name in _FAILING and random.random() < 0.15 else None
    return Op(name, random.randrange(CPUS), tuple(args), pause, fail)


def _argument(random: Random, kind: str) -> int:
    """A number of a kind."""
    if kind == "p":  # mostly data pages and the beginning of the hole
        return random.randrange(PAGES) if random.random() < 0.15 else 7 + random.randrange(11)
    if kind == "n":
        return random.choice((1, 1, 1, 2, 3, 5, 8, PAGES))
    if kind == "m":  # fewer, for what takes mappings away
        return PAGES if random.random() < 0.03 else random.choice((1, 1, 1, 2, 3))
    if kind == "s":
        return random.randrange(1, 16) if random.random() < 0.2 else 0
    return random.randrange(64)


# At which use a failure comes: operations that use a site often can fail later.
_EARLY: Final = (0, 0, 0, 0, 0, 1, 1, 2, 3, 8)
_LATE: Final = (0, 0, 0, 0, 1, 1, 2, 3, 5, 8, 13, 20)
_LONG: Final = ("load", "build", "add", "go", "reclaim", "ksgxd")


def _failure(random: Random, name: str) -> Failure:
    site = random.choice(_FAILING[name].split())
    nth = random.choice(_LATE if name in _LONG else _EARLY)
    times = random.choice((1, 2, 2, 3) if site == "ETRACK" else (1, 1, 1, 1, 2, 3))
    how = random.choice(_LEAVES[site]) if site in _LEAVES else ""
    if how == _UNMASKED_EVENT:  # EINIT is tried 20 times, 50 times over, with a sleep in between
        times = random.choice((1, 19, 20, 21, 60, 1000))
    return Failure(site, how, nth, times)


def draw_setting(random: Random) -> Setting:
    """The machine of a stream: EPC between little more than one enclave and plenty."""
    epc = random.choice((20, 28, 40, 44, 48, 56, 72, 72, 96, 160))
    return Setting(epc, sgx2=random.random() < 0.97, big=random.random() < 0.03)


def episode(seed: int, number: int, length: int) -> tuple[Setting, list[Op]]:
    """The stream with a number, of a seed: it begins with a process, mostly with an enclave."""
    random = Random(f"differential {seed}/{number}")
    setting = draw_setting(random)
    building = random.random() < 0.2
    ops = [Op("process", 0)]
    if not building and random.random() < 0.9:
        ops += [Op("open"), Op("load", 0, (0, 0))]
    if setting.big or (not building and random.random() < 0.4):
        ops += [Op("open", 0, (1,)), Op("load", 0, (1, 0))]
    if random.random() < 0.5:
        ops.append(random.choice((Op("thread", 0, (0, 1)), Op("fork", 0, (0, 1)))))
    ops += [draw(random, int(setting.big), building) for _ in range(length - len(ops))]
    return setting, ops
