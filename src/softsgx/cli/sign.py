"""`softsgx sign`: the SIGSTRUCT of an enclave, made with one's own key."""

import argparse
import sys
from dataclasses import replace
from pathlib import Path

from softsgx.cli import files, options
from softsgx.cli.errors import EXIT_OK, UsageError
from softsgx.image import sgxs
from softsgx.image.entering import not_entered
from softsgx.image.errors import ImageError
from softsgx.image.image import EnclaveImage
from softsgx.image.sigstruct import SignOptions, load_key, mrsigner, sign
from softsgx.spec.attributes import ATTR_AEXNOTIFY, ATTR_DEBUG, XFRM_LEGACY
from softsgx.spec.bits import MASK32, MASK64


def register(parser: argparse.ArgumentParser) -> None:
    """FILE, the key, the outputs, and what SIGSTRUCT says."""
    parser.add_argument("file", metavar="FILE", help="ELF program or SGXS stream")
    parser.add_argument(
        "--key", required=True, metavar="PEM", help="RSA-3072 private key with exponent 3"
    )
    parser.add_argument(
        "-o", dest="output", metavar="SIG", help="the SIGSTRUCT (default: FILE with suffix .sig)"
    )
    parser.add_argument("--sgxs", metavar="SGXS", help="write the SGXS stream, too")
    _add_fields(parser)
    options.add_layout(parser)


def _add_fields(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group(
        "fields of SIGSTRUCT; N is decimal, 0x..., or names of bits: MODE64BIT,KSS"
    )
    group.add_argument(
        "--attributes",
        type=options.flags("ATTRIBUTES", 64),
        metavar="N",
        help="ATTRIBUTES of the enclave (default: 0x4, and AEXNOTIFY if a TCS has it)",
    )
    u16, u32 = options.number(16), options.number(32)
    attributes, xfrm = options.flags("ATTRIBUTES", 64), options.flags("XFRM", 64)
    misc, cet = options.flags("MISCSELECT", 32), options.flags("CET_ATTRIBUTES", 8)
    fields = (
        ("--attributemask", attributes, MASK64, "bits of ATTRIBUTES that are signed"),
        ("--xfrm", xfrm, XFRM_LEGACY, "XFRM of the enclave"),
        ("--xfrmmask", xfrm, MASK64, "bits of XFRM that are signed"),
        ("--miscselect", misc, 0, "MISCSELECT of the enclave"),
        ("--miscmask", misc, MASK32, "bits of MISCSELECT that are signed"),
        ("--cet-attributes", cet, 0, "CET_ATTRIBUTES of the enclave, needs ATTRIBUTES.CET (0x40)"),
        ("--cetmask", cet, 0, "bits of CET_ATTRIBUTES that are signed"),
        ("--isvprodid", u16, 0, "product"),
        ("--isvsvn", u16, 0, "security version of the product"),
        ("--vendor", u32, 0, "0 or 0x8086"),
        ("--swdefined", u32, 0, "free for the signer"),
    )
    for name, kind, default, text in fields:
        shown = f"{text} (default: {default:#x})"
        group.add_argument(name, type=kind, default=default, metavar="N", help=shown)
    for name, text in (("--isvfamilyid", "family, needs KSS"), ("--isvextprodid", "product")):
        group.add_argument(
            name,
            type=options.identifier,
            default=bytes(16),
            metavar="HEX",
            help=f"{text}, 32 hexadecimal digits (default: zeros)",
        )
    group.add_argument(
        "--date", default="", metavar="YYYY-MM-DD", help="(default: none, DATE is 0)"
    )
    group.add_argument("--debug", action="store_true", help="set ATTRIBUTES.DEBUG (0x2)")


def run(args: argparse.Namespace) -> int:
    """Write the SIGSTRUCT; print MRENCLAVE and MRSIGNER."""
    output = args.output or str(Path(args.file).with_suffix(".sig"))
    outputs = [output, args.sgxs] if args.sgxs else [output]
    files.refuse_same([args.file, args.key], outputs)
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
    files.write(output, sig.pack())
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
        print(f"softsgx: sign: {where}: {rule}", file=sys.stderr)


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
