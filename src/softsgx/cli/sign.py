"""`softsgx sign`: the SIGSTRUCT of an enclave, made with your own key."""

import argparse
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, Final

from softsgx.cli import files, options
from softsgx.cli.declared import Mode, Option
from softsgx.cli.ends import print_stderr, print_stdout
from softsgx.cli.errors import EXIT_OK, UsageError, codes
from softsgx.cli.modes import Table
from softsgx.cli.outputs import output
from softsgx.image import sgxs
from softsgx.image.entering import not_entered
from softsgx.image.errors import ImageError
from softsgx.image.image import EnclaveImage
from softsgx.image.sigstruct import SignOptions, load_key, mrsigner, sign
from softsgx.spec.attributes import ATTR_AEXNOTIFY, ATTR_CET, ATTR_DEBUG, ATTR_MODE64BIT
from softsgx.spec.flags import flags_value, has_flags
from softsgx.spec.sigstruct import SIGSTRUCT

_BITS: Final = {field.name: 8 * field.width for field in SIGSTRUCT.FIELDS}
_DEFAULTS: Final = {f.name: f.default for kind in (EnclaveImage, SignOptions) for f in fields(kind)}

# Option, field of SIGSTRUCT, what the help says of it.
_FIELDS: Final = (
    ("--attributemask", "ATTRIBUTEMASK", "bits of ATTRIBUTES that are signed"),
    ("--xfrm", "XFRM", "XFRM of the enclave"),
    ("--xfrmmask", "XFRMMASK", "bits of XFRM that are signed"),
    ("--miscselect", "MISCSELECT", "MISCSELECT of the enclave"),
    ("--miscmask", "MISCMASK", "bits of MISCSELECT that are signed"),
    (
        "--cet-attributes",
        "CET_ATTRIBUTES",
        f"CET_ATTRIBUTES of the enclave, needs ATTRIBUTES.CET ({ATTR_CET:#x})",
    ),
    ("--cetmask", "CET_ATTRIBUTES_MASK", "bits of CET_ATTRIBUTES that are signed"),
    ("--isvprodid", "ISVPRODID", "product"),
    ("--isvsvn", "ISVSVN", "security version of the product"),
    ("--vendor", "VENDOR", "0 or 0x8086"),
    ("--swdefined", "SWDEFINED", "free for the signer"),
)


def _value(field: str) -> Callable[[str], int]:
    """An argument type: a number that fits the field, or names of its bits joined by commas."""
    as_number = options.number(_BITS[field])

    def parse(text: str) -> int:
        if text[:1].isdecimal() or not has_flags(field):
            return as_number(text)
        try:
            return flags_value(field, text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return parse


def _identifier(text: str) -> bytes:
    """An argument type: 16 bytes as 32 hexadecimal digits."""
    try:
        value = bytes.fromhex(text)
    except ValueError:
        value = b""
    if len(value) != 16:
        raise argparse.ArgumentTypeError(f"{text}: not 32 hexadecimal digits")
    return value


def _field_option(name: str, field: str, text: str) -> Option:
    default: Any = _DEFAULTS[name.lstrip("-").replace("-", "_")]
    return Option(
        name=name,
        type=_value(field),
        default=default,
        shown=f"{default:#x}",
        metavar="N",
        help=text,
    )


FIELDS: Final = (
    Option(
        name="--attributes",
        type=_value("ATTRIBUTES"),
        metavar="N",
        shown=f"{ATTR_MODE64BIT:#x}, and AEXNOTIFY if a TCS has it",
        help="ATTRIBUTES of the enclave",
    ),
    *(_field_option(*row) for row in _FIELDS),
    *(
        Option(
            name=name,
            type=_identifier,
            default=_DEFAULTS[name.lstrip("-")],
            shown="zeros",
            metavar="HEX",
            help=f"{text}, 32 hexadecimal digits",
        )
        for name, text in (("--isvfamilyid", "family, needs KSS"), ("--isvextprodid", "product"))
    ),
    Option(
        name="--date",
        default=_DEFAULTS["date"],
        shown="none, DATE is 0",
        metavar="YYYY-MM-DD",
        help="day of signing",
    ),
    Option(name="--debug", help=f"set ATTRIBUTES.DEBUG ({ATTR_DEBUG:#x})"),
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
        asked = {field.name: getattr(args, field.name) for field in fields(SignOptions)}
        sig = sign(image, key, SignOptions(**asked))
    except ImageError as error:
        raise UsageError(f"{args.file}: {error}") from None
    files.write(sig_path, sig.pack())
    if args.sgxs:
        files.write(args.sgxs, sgxs.write(image))
    _remark(image, args)
    print_stdout(f"MRENCLAVE  {sig.ENCLAVEHASH.hex()}\nMRSIGNER   {mrsigner(sig).hex()}\n")
    return EXIT_OK


def _remark(image: EnclaveImage, args: argparse.Namespace) -> None:
    """Warn of an enclave that EINIT accepts and no thread can enter."""
    refused = not_entered(image.segments, image.attributes)
    if refused and args.attributemask & ATTR_AEXNOTIFY:
        more = f" and {len(refused) - 1} more" if len(refused) > 1 else ""
        where = f"{args.file}: no thread can enter by the TCS at {refused[0]:#x}{more}"
        rule = "TCS.FLAGS.AEXNOTIFY differs from ATTRIBUTES.AEXNOTIFY, so EENTER is #GP"
        print_stderr(f"softsgx: sign: {where}: {rule}")


def _with_secs(image: EnclaveImage, args: argparse.Namespace) -> EnclaveImage:
    attributes = image.attributes if args.attributes is None else args.attributes
    return replace(
        image,
        attributes=attributes | (ATTR_DEBUG if args.debug else 0),
        xfrm=args.xfrm,
        miscselect=args.miscselect,
        cet_attributes=args.cet_attributes,
    )
