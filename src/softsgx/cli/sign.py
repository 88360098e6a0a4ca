"""`softsgx sign`: the SIGSTRUCT of an enclave, made with one's own key."""

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Final

from softsgx.cli import files, options
from softsgx.cli.ends import say
from softsgx.cli.errors import EXIT_OK, UsageError, codes
from softsgx.cli.modes import Mode, Option, Table
from softsgx.cli.outputs import output
from softsgx.image import sgxs
from softsgx.image.entering import not_entered
from softsgx.image.errors import ImageError
from softsgx.image.image import EnclaveImage
from softsgx.image.sigstruct import SignOptions, load_key, mrsigner, sign
from softsgx.spec.attributes import ATTR_AEXNOTIFY, ATTR_DEBUG, XFRM_LEGACY
from softsgx.spec.bits import MASK32, MASK64

_U16, _U32 = options.number(16), options.number(32)
_ATTRIBUTES, _XFRM = options.flags("ATTRIBUTES", 64), options.flags("XFRM", 64)
_MISC, _CET = options.flags("MISCSELECT", 32), options.flags("CET_ATTRIBUTES", 8)
_FIELDS: Final = (
    ("--attributemask", _ATTRIBUTES, MASK64, "bits of ATTRIBUTES that are signed"),
    ("--xfrm", _XFRM, XFRM_LEGACY, "XFRM of the enclave"),
    ("--xfrmmask", _XFRM, MASK64, "bits of XFRM that are signed"),
    ("--miscselect", _MISC, 0, "MISCSELECT of the enclave"),
    ("--miscmask", _MISC, MASK32, "bits of MISCSELECT that are signed"),
    ("--cet-attributes", _CET, 0, "CET_ATTRIBUTES of the enclave, needs ATTRIBUTES.CET (0x40)"),
    ("--cetmask", _CET, 0, "bits of CET_ATTRIBUTES that are signed"),
    ("--isvprodid", _U16, 0, "product"),
    ("--isvsvn", _U16, 0, "security version of the product"),
    ("--vendor", _U32, 0, "0 or 0x8086"),
    ("--swdefined", _U32, 0, "free for the signer"),
)
FIELDS: Final = (
    Option(
        name="--attributes",
        type=_ATTRIBUTES,
        metavar="N",
        shown="0x4, and AEXNOTIFY if a TCS has it",
        help="ATTRIBUTES of the enclave",
    ),
    *(
        Option(name=name, type=kind, default=default, shown=f"{default:#x}", metavar="N", help=text)
        for name, kind, default, text in _FIELDS
    ),
    *(
        Option(
            name=name,
            type=options.identifier,
            default=bytes(16),
            shown="zeros",
            metavar="HEX",
            help=f"{text}, 32 hexadecimal digits",
        )
        for name, text in (("--isvfamilyid", "family, needs KSS"), ("--isvextprodid", "product"))
    ),
    Option(
        name="--date",
        default="",
        shown="none, DATE is 0",
        metavar="YYYY-MM-DD",
        help="day of signing",
    ),
    Option(name="--debug", help="set ATTRIBUTES.DEBUG (0x2)"),
)

TABLE: Final = Table(
    "sign",
    {
        "": (
            Option(name="FILE", help="ELF program or SGXS stream"),
            Option(name="--key", metavar="PEM", help="RSA-3072 private key with exponent 3"),
            Option(
                name="-o",
                dest="output",
                metavar="SIG",
                type=output,
                shown="FILE with suffix .sig",
                help="the SIGSTRUCT; - is standard output",
            ),
            Option(
                name="--sgxs",
                metavar="SGXS",
                type=output,
                help="write the SGXS stream, too; - as with -o",
            ),
        ),
        "fields of SIGSTRUCT; N is decimal, 0x..., or names of bits: MODE64BIT,KSS": FIELDS,
        options.LAYOUT_TITLE: options.LAYOUT,
    },
    (
        Mode(
            about="write a SIGSTRUCT",
            needs=("FILE", "--key"),
            options=(
                "-o", "--sgxs", *(field.name for field in FIELDS), *options.LAYOUT_NAMES,
            ),
            codes=codes("signed"),
            module=__name__,
            function="write",
        ),
    ),
)  # fmt: skip

register = TABLE.register
run = TABLE.run


def write(args: argparse.Namespace) -> int:
    """Write the SIGSTRUCT; print MRENCLAVE and MRSIGNER."""
    sig_path = args.output or str(Path(args.file).with_suffix(".sig"))
    outputs = [sig_path, args.sgxs] if args.sgxs else [sig_path]
    files.refuse_same([args.file, args.key], outputs)
    for path in outputs:
        files.expect_write(path)
    _, image = options.enclave(args)
    try:
        key = load_key(files.read(args.key))
    except ImageError as error:
        raise UsageError(f"{args.key}: {error}") from None
    try:
        image = _with_secs(image, args)
        sig = sign(image, key, _sign_options(args))
    except ImageError as error:
        raise UsageError(f"{args.file}: {error}") from None
    files.write(sig_path, sig.pack())
    if args.sgxs:
        files.write(args.sgxs, sgxs.write(image))
    _remark(image, args)
    files.show(f"MRENCLAVE  {sig.ENCLAVEHASH.hex()}\nMRSIGNER   {mrsigner(sig).hex()}\n")
    return EXIT_OK


def _remark(image: EnclaveImage, args: argparse.Namespace) -> None:
    """What EINIT accepts, and no thread can enter."""
    refused = not_entered(image.segments, image.attributes)
    if refused and args.attributemask & ATTR_AEXNOTIFY:
        more = f" and {len(refused) - 1} more" if len(refused) > 1 else ""
        where = f"{args.file}: no thread can enter by the TCS at {refused[0]:#x}{more}"
        rule = "TCS.FLAGS.AEXNOTIFY differs from ATTRIBUTES.AEXNOTIFY, so EENTER is #GP"
        say(f"softsgx: sign: {where}: {rule}")


def _with_secs(image: EnclaveImage, args: argparse.Namespace) -> EnclaveImage:
    attributes = image.attributes if args.attributes is None else args.attributes
    return replace(
        image,
        attributes=attributes | (ATTR_DEBUG if args.debug else 0),
        xfrm=args.xfrm,
        miscselect=args.miscselect,
        cet_attributes=args.cet_attributes,
    )


def _sign_options(args: argparse.Namespace) -> SignOptions:
    return SignOptions(
        vendor=args.vendor,
        date=args.date,
        swdefined=args.swdefined,
        attributemask=args.attributemask,
        xfrmmask=args.xfrmmask,
        miscmask=args.miscmask,
        cetmask=args.cetmask,
        isvprodid=args.isvprodid,
        isvsvn=args.isvsvn,
        isvfamilyid=args.isvfamilyid,
        isvextprodid=args.isvextprodid,
    )
