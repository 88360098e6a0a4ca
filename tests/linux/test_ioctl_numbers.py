"""Request numbers, sizes and field offsets of the argument blocks, and unknown requests."""

import pytest

from softsgx.linux import uapi
from softsgx.linux.errno import ENOTTY
from softsgx.spec.structure import Structure
from softsgx.system import Machine
from tests.linux.building import Building

NUMBERS = {
    "SGX_IOC_ENCLAVE_CREATE": 0x4008A400,
    "SGX_IOC_ENCLAVE_ADD_PAGES": 0xC030A401,
    "SGX_IOC_ENCLAVE_INIT": 0x4008A402,
    "SGX_IOC_ENCLAVE_PROVISION": 0x4008A403,
    "SGX_IOC_VEPC_REMOVE_ALL": 0x0000A404,
    "SGX_IOC_ENCLAVE_RESTRICT_PERMISSIONS": 0xC028A405,
    "SGX_IOC_ENCLAVE_MODIFY_TYPES": 0xC028A406,
    "SGX_IOC_ENCLAVE_REMOVE_PAGES": 0xC018A407,
    "V2_IOC_ENCLAVE_RELAX_PERMISSIONS": 0xC020A405,
    "V2_IOC_ENCLAVE_RESTRICT_PERMISSIONS": 0xC028A406,
    "V2_IOC_ENCLAVE_MODIFY_TYPE": 0xC028A407,
    "V2_IOC_ENCLAVE_REMOVE_PAGES": 0xC018A408,
}
LAYOUTS: list[tuple[type[Structure], list[str]]] = [
    (uapi.SgxEnclaveCreate, ["src"]),
    (uapi.SgxEnclaveAddPages, ["src", "offset", "length", "secinfo", "flags", "count"]),
    (uapi.SgxEnclaveInit, ["sigstruct"]),
    (uapi.SgxEnclaveProvision, ["fd"]),
    (
        uapi.SgxEnclaveRestrictPermissions,
        ["offset", "length", "permissions", "result", "count"],
    ),
    (uapi.SgxEnclaveModifyTypes, ["offset", "length", "page_type", "result", "count"]),
    (uapi.SgxEnclaveRemovePages, ["offset", "length", "count"]),
    (uapi.SgxEnclaveRelaxPerm, ["offset", "length", "secinfo", "count"]),
    (uapi.SgxEnclaveRestrictPerm, ["offset", "length", "secinfo", "result", "count"]),
]


@pytest.mark.parametrize(("name", "number"), NUMBERS.items())
def test_request_number(name: str, number: int) -> None:
    assert getattr(uapi, name) == number


@pytest.mark.parametrize(("structure", "names"), LAYOUTS)
def test_fields_are_64_bit_words_in_order(structure: type[Structure], names: list[str]) -> None:
    values = {name: 0x0102030405060700 + at for at, name in enumerate(names)}
    packed = structure(**values).pack()
    assert packed == b"".join(value.to_bytes(8, "little") for value in values.values())
    assert 8 * len(names) == structure.SIZE


@pytest.mark.parametrize(
    "cmd",
    [
        0,
        uapi.SGX_IOC_VEPC_REMOVE_ALL,  # of /dev/sgx_vepc only
        0x0008A400,  # CREATE without its direction
        uapi.V2_IOC_ENCLAVE_RELAX_PERMISSIONS,
        uapi.V2_IOC_ENCLAVE_REMOVE_PAGES,
        0xC028A505,  # another magic
    ],
)
def test_unknown_request_is_enotty(cmd: int) -> None:
    assert Building().at(cmd, 0) == -ENOTTY


@pytest.mark.parametrize(
    "cmd", [uapi.SGX_IOC_ENCLAVE_RESTRICT_PERMISSIONS, uapi.SGX_IOC_ENCLAVE_REMOVE_PAGES]
)
def test_v2_does_not_know_the_later_numbers(cmd: int) -> None:
    assert Building(Machine(linux="v2")).at(cmd, 0) == -ENOTTY
