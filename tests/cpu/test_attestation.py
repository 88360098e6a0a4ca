"""Local attestation: one enclave reports, another verifies. SDM 3D, EREPORT, EGETKEY.

Verified with an AES-CMAC from outside the model: the reporting side and the verifying side must
agree on the key only through the two leaves.
"""

from collections.abc import Callable

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.cmac import CMAC

from softsgx.cpu.bare import EXIT
from softsgx.spec.attributes import ATTR_AEXNOTIFY, ATTR_PROVISIONKEY
from softsgx.spec.keys import KEYREQUEST, REPORT, REPORT_KEY, TARGETINFO
from softsgx.spec.leaves import EEXIT, EREPORT
from tests.cpu.keyed import ALL_KEYS, Keyed, keyed

REPORTDATA = bytes(range(64))


def pair(seed: int = 0) -> tuple[Keyed, Keyed]:
    """Two enclaves of one machine, with different measurements."""
    a = keyed(seed=seed)
    a.lp.enclu(EEXIT, EXIT)
    b = keyed(bare=a.bare, base=0x7E00_0000_0000, size=1 << 21, ISVSVN=3)
    assert a.secs.MRENCLAVE != b.secs.MRENCLAVE
    return a, b


def switch_to(k: Keyed) -> None:
    """Let the logical processor run code of this enclave."""
    if k.lp.enclave_mode:
        k.lp.enclu(EEXIT, EXIT)
    k.enclave.enter()


def target_of(k: Keyed) -> TARGETINFO:
    """What an enclave tells others about itself."""
    return TARGETINFO(
        MEASUREMENT=k.secs.MRENCLAVE,
        ATTRIBUTES=k.secs.ATTRIBUTES,
        XFRM=k.secs.XFRM,
        CONFIGSVN=k.secs.CONFIGSVN,
        MISCSELECT=k.secs.MISCSELECT,
        CONFIGID=k.secs.CONFIGID,
    )


def report(k: Keyed, target: TARGETINFO) -> bytes:
    """EREPORT by enclave `k`; the 432 bytes."""
    switch_to(k)
    k.write(0, target.pack())
    k.write(1, REPORTDATA)
    assert k.lp.enclu(EREPORT, *k.enclave.data) is None
    return k.read(2, REPORT.SIZE)


def report_key(k: Keyed, raw: bytes) -> bytes:
    """EGETKEY by enclave `k`: the key that a report for it must have been made with."""
    switch_to(k)
    return k.key(KEYREQUEST(KEYNAME=REPORT_KEY, KEYID=REPORT.unpack(raw).KEYID))


def genuine(key: bytes, raw: bytes) -> bool:
    """Whether the MAC over bytes 0..383 is right."""
    mac = CMAC(AES(key))
    mac.update(raw[:384])
    try:
        mac.verify(raw[416:432])
    except InvalidSignature:
        return False
    return True


def test_the_target_verifies_the_report() -> None:
    a, b = pair()
    raw = report(a, target_of(b))
    assert genuine(report_key(b, raw), raw)
    said = REPORT.unpack(raw)
    assert (said.MRENCLAVE, said.REPORTDATA) == (a.secs.MRENCLAVE, REPORTDATA)


def test_every_byte_of_the_body_is_covered() -> None:
    a, b = pair()
    raw = report(a, target_of(b))
    key = report_key(b, raw)
    for at in range(384):
        for bit in (0x01, 0x80):
            altered = raw[:at] + bytes([raw[at] ^ bit]) + raw[at + 1 :]
            assert not genuine(key, altered), f"byte {at}"


def test_keyid_and_mac_cannot_be_altered_either() -> None:
    """Another KEYID leads the verifier to another key."""
    a, b = pair()
    raw = report(a, target_of(b))
    for at in range(384, 432):
        altered = raw[:at] + bytes([raw[at] ^ 1]) + raw[at + 1 :]
        assert not genuine(report_key(b, altered), altered), f"byte {at}"


def test_nobody_but_the_target_verifies() -> None:
    a, b = pair()
    for_b, for_a = report(a, target_of(b)), report(a, target_of(a))
    assert not genuine(report_key(a, for_b), for_b)
    assert not genuine(report_key(b, for_a), for_a)
    assert genuine(report_key(a, for_a), for_a)


def test_the_reporter_cannot_get_the_key_of_the_target() -> None:
    a, b = pair()
    raw = report(a, target_of(b))
    assert report_key(a, raw) != report_key(b, raw)


WRONG_TARGETS: dict[str, Callable[[TARGETINFO], TARGETINFO]] = {
    "MEASUREMENT": lambda t: t.replace(MEASUREMENT=bytes(32)),
    "ATTRIBUTES": lambda t: t.replace(ATTRIBUTES=t.ATTRIBUTES ^ ATTR_AEXNOTIFY),
    "XFRM": lambda t: t.replace(XFRM=t.XFRM ^ 4),
    "MISCSELECT": lambda t: t.replace(MISCSELECT=t.MISCSELECT ^ 1),
    "CONFIGSVN": lambda t: t.replace(CONFIGSVN=t.CONFIGSVN ^ 1),
    "CONFIGID": lambda t: t.replace(CONFIGID=bytes(64)),
}


@pytest.mark.parametrize("field", WRONG_TARGETS)
def test_every_field_of_targetinfo_selects_the_key(field: str) -> None:
    a, b = pair()
    raw = report(a, WRONG_TARGETS[field](target_of(b)))
    assert not genuine(report_key(b, raw), raw)


def test_signer_and_versions_of_the_target_do_not_matter() -> None:
    """The REPORT key binds to the measurement, not to who signed it: a report may be for any."""
    a, b = pair()
    raw = report(a, target_of(b))
    key = report_key(b, raw)
    b.secs.MRSIGNER, b.secs.ISVSVN, b.secs.ISVPRODID = bytes(32), 99, 99
    assert report_key(b, raw) == key


def test_a_report_is_worth_nothing_on_another_machine() -> None:
    raw = report(pair(seed=1)[0], target_of(pair(seed=1)[1]))
    _, other = pair(seed=2)
    assert not genuine(report_key(other, raw), raw)
    _, same = pair(seed=1)
    assert genuine(report_key(same, raw), raw)


def test_keyid_is_chosen_once_per_boot() -> None:
    a, b = pair(seed=1)
    keyids = {REPORT.unpack(report(k, target_of(b))).KEYID for k in (a, b, a)}
    assert len(keyids) == 1
    c, _ = pair(seed=2)
    assert REPORT.unpack(report(c, target_of(c))).KEYID not in keyids


def test_twin_enclaves_share_everything() -> None:
    """Equal measurements, wherever they lie: either verifies what is meant for the other."""
    a = keyed()
    a.lp.enclu(EEXIT, EXIT)
    b = keyed(bare=a.bare, base=0x7E00_0000_0000)
    assert a.secs.MRENCLAVE == b.secs.MRENCLAVE
    raw = report(a, target_of(a))
    assert genuine(report_key(b, raw), raw)


def test_a_twin_of_other_attributes_is_another_target() -> None:
    a = keyed()
    a.lp.enclu(EEXIT, EXIT)
    b = keyed(bare=a.bare, base=0x7E00_0000_0000, attributes=ALL_KEYS & ~ATTR_PROVISIONKEY)
    assert a.secs.MRENCLAVE == b.secs.MRENCLAVE
    raw = report(a, target_of(a))
    assert not genuine(report_key(b, raw), raw)
