"""Leaf numbers and names of ENCLS, ENCLU, ENCLV; which CPUID bit announces each.

SDM 3D, 37.6 "Enclave Instructions and Intel SGX", 37.7.2 "Intel SGX Resource Enumeration Leaves".
A leaf is named by its family and number: `ENCLS_LEAVES[0x0E]` is EMODPR, of SGX2.
"""

from typing import Final

# ENCLS, CPL 0
ECREATE: Final = 0x00
EADD: Final = 0x01
EINIT: Final = 0x02
EREMOVE: Final = 0x03
EDBGRD: Final = 0x04
EDBGWR: Final = 0x05
EEXTEND: Final = 0x06
ELDB: Final = 0x07
ELDU: Final = 0x08
EBLOCK: Final = 0x09
EPA: Final = 0x0A
EWB: Final = 0x0B
ETRACK: Final = 0x0C
EAUG: Final = 0x0D
EMODPR: Final = 0x0E
EMODT: Final = 0x0F
ERDINFO: Final = 0x10
ETRACKC: Final = 0x11
ELDBC: Final = 0x12
ELDUC: Final = 0x13
EUPDATESVN: Final = 0x18

# ENCLU, CPL 3
EREPORT: Final = 0x00
EGETKEY: Final = 0x01
EENTER: Final = 0x02
ERESUME: Final = 0x03
EEXIT: Final = 0x04
EACCEPT: Final = 0x05
EMODPE: Final = 0x06
EACCEPTCOPY: Final = 0x07
EVERIFYREPORT2: Final = 0x08
EDECCSSA: Final = 0x09

# ENCLV, VMX root or guest with the control
EDECVIRTCHILD: Final = 0x00
EINCVIRTCHILD: Final = 0x01
ESETCONTEXT: Final = 0x02

# The instruction set extension that brings a leaf, as CPUID.12H.0:EAX announces it.
SGX1: Final = "SGX1"
SGX2: Final = "SGX2"
OVERSUB: Final = "OVERSUB"
KEY_EDECCSSA: Final = "EDECCSSA"
KEY_EVERIFYREPORT2: Final = "EVERIFYREPORT2"
KEY_EUPDATESVN: Final = "EUPDATESVN"

ENCLS_LEAVES: Final[dict[int, tuple[str, str]]] = {
    ECREATE: ("ECREATE", SGX1),
    EADD: ("EADD", SGX1),
    EINIT: ("EINIT", SGX1),
    EREMOVE: ("EREMOVE", SGX1),
    EDBGRD: ("EDBGRD", SGX1),
    EDBGWR: ("EDBGWR", SGX1),
    EEXTEND: ("EEXTEND", SGX1),
    ELDB: ("ELDB", SGX1),
    ELDU: ("ELDU", SGX1),
    EBLOCK: ("EBLOCK", SGX1),
    EPA: ("EPA", SGX1),
    EWB: ("EWB", SGX1),
    ETRACK: ("ETRACK", SGX1),
    EAUG: ("EAUG", SGX2),
    EMODPR: ("EMODPR", SGX2),
    EMODT: ("EMODT", SGX2),
    ERDINFO: ("ERDINFO", OVERSUB),
    ETRACKC: ("ETRACKC", OVERSUB),
    ELDBC: ("ELDBC", OVERSUB),
    ELDUC: ("ELDUC", OVERSUB),
    EUPDATESVN: ("EUPDATESVN", KEY_EUPDATESVN),
}

ENCLU_LEAVES: Final[dict[int, tuple[str, str]]] = {
    EREPORT: ("EREPORT", SGX1),
    EGETKEY: ("EGETKEY", SGX1),
    EENTER: ("EENTER", SGX1),
    ERESUME: ("ERESUME", SGX1),
    EEXIT: ("EEXIT", SGX1),
    EACCEPT: ("EACCEPT", SGX2),
    EMODPE: ("EMODPE", SGX2),
    EACCEPTCOPY: ("EACCEPTCOPY", SGX2),
    EVERIFYREPORT2: ("EVERIFYREPORT2", KEY_EVERIFYREPORT2),
    EDECCSSA: ("EDECCSSA", KEY_EDECCSSA),
}

ENCLV_LEAVES: Final[dict[int, str]] = {
    EDECVIRTCHILD: "EDECVIRTCHILD",
    EINCVIRTCHILD: "EINCVIRTCHILD",
    ESETCONTEXT: "ESETCONTEXT",
}

# Encodings, for decoders.
ENCLS_OPCODE: Final = bytes.fromhex("0f01cf")
ENCLU_OPCODE: Final = bytes.fromhex("0f01d7")
ENCLV_OPCODE: Final = bytes.fromhex("0f01c0")
ENCLU_LENGTH: Final = len(ENCLU_OPCODE)
