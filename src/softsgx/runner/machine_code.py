"""What stub.s and vdso.s assemble to. Written by `make asm`; do not edit.

Code is a list of (label, bytes up to the next label); .eh_frame is as the assembler leaves it, with
the address of the function still to be filled in.
"""

from typing import Final

# ruff: noqa: E501
# fmt: off

STUB_CODE: Final[tuple[tuple[str, str], ...]] = (
    ("stub", ""),
    ("arrive", "488d642480"),
    ("arrive_none", "50"),
    ("arrive_rax", "51"),
    ("arrive_rax_rcx", "4153"),
    ("arrive_rax_rcx_r11", "9c"),
    ("arrive_rax_rcx_r11_rflags", "52"),
    ("search", "b8ba0000000f05488d15e78303000fb6c8"),
    ("probe", "39048a741d833c8a007406fec138c175ef"),
    ("absent", "5a"),
    ("absent_rax_rcx_r11_rflags", "9d"),
    ("absent_rax_rcx_r11", "415b"),
    ("absent_rax_rcx", "59"),
    ("absent_rax", "58"),
    ("absent_none", "488da42480000000"),
    ("int80", "cd80"),
    ("int80_done", "cc"),
    ("found", "69d100030000488d05b58f03004801c248895a1848896a284889723048897a384c8942404c894a484c8952504c8962604c896a684c8972704c897a78488b042448894210488b44240848898280000000488b44241048894258488b44241848894208488b442420488902488d8424a800000048894220488b05cd7f030048898288000000480fae82c00000004c8d1d2f8703004d8d1c8b41c70301000000"),
    ("published", "4889d34c89ddf0ff05177f0300833d507f0300007418b8ca000000488d3d027f0300be01000000ba010000000f05"),
    ("spin", "8b0d707f0300"),
    ("look", "8b550083fa03741f83e9017204f390ebef"),
    ("sleep", "b8ca0000004889efbe000000004531d20f0531c9ebd9"),
    ("reply", "c7450000000000480fae8bc0000000488d830080fcff488da3800000009dffe0"),
    ("common_end", "cc" * 3753),
    ("block", "488b05f97f0300488b0dfa7f0300488b15fb7f0300488b1dfc7f0300488b2d05800300488b3506800300488b3d078003004c8b05088003004c8b0d098003004c8b150a8003004c8b1d0b8003004c8b250c8003004c8b2d0d8003004c8b350e8003004c8b3d0f800300488b25b07f0300ff2512800300"),
    ("block_end", ""),
)

VDSO_CODE: Final[tuple[tuple[str, str], ...]] = (
    ("function", "f30f1efa554889e553"),
    ("again", "8d41fe83f8017740488b5d10b82800000048833c0300753083c0083d0001000072ef488b1b89c8488d0d00000000"),
    ("enclu", "eb1f90488b5d10c7430804000000"),
    ("outcome", "488b43184885c07524"),
    ("back", "5bc9c3"),
    ("refuse", "b8eaffffffebf6"),
    ("jump", "e900000000"),
    ("exception", "488b5d1089430866897b0c6689730e48895310ebd3"),
    ("handler", "4889e14883e4f04883ec1048891c244889cbfcffd04889dc85c07ec089c1e974ffffff"),
    ("function_end", ""),
)
VDSO_EH_FRAME: Final = "1400000000000000017a5200017810011b0c070890010000240000001c000000000000009500000000450e108602430d0641830302460a410c0708410b000000"
