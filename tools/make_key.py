"""Write a new RSA-3072 key with exponent 3, as SIGSTRUCT wants it: python -m tools.make_key FILE.

For enclaves of examples and tests; `openssl genrsa -3 -out FILE 3072` makes the same.
"""

import os
import sys
from typing import Final

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

EXPONENT: Final = 3
BITS: Final = 3072


def pem() -> bytes:
    """A new key as unencrypted PEM."""
    key = rsa.generate_private_key(public_exponent=EXPONENT, key_size=BITS)
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def main() -> None:
    """Write the file, readable by its owner only."""
    if len(sys.argv) != 2:
        sys.exit("usage: python -m tools.make_key FILE")
    with open(os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.write(pem())


if __name__ == "__main__":
    main()
