"""Ed25519 keys in PEM files, as OpenSSL reads and writes them, and signatures by them.

Sources: RFC 8032 (the signature), RFC 8410 (the keys' encoding).
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from geodtr.runtime.errors import ArchiveError, ConfigError, UserError
from geodtr.runtime.files import check_new_file, new_pair
from geodtr.runtime.files.documents import read_document
from geodtr.runtime.installation import naming_extras

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

SIGNATURE_BYTES = 64
_MAX_BYTES = 64 << 10
_BEGIN, _END = b"-----BEGIN ", b"-----END PUBLIC KEY-----"
_MADE_BY = "`geodtr-export bundle key KEY` writes KEY and KEY.pub."


def new_key(path: Path) -> Path:
    """Write a new private key to `path`, which only its owner can read, and the public key beside it.

    Returns the path of the public key. Raises OutputExists when either file exists.
    """
    from_library()
    from cryptography.hazmat.primitives import serialization as pem
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    if not path.name:
        raise ConfigError(f"{path} is a folder. Name the file that the private key is to be written to.")
    public = path.with_name(f"{path.name}.pub")
    for file in (path, public):
        check_new_file(file)
    key = Ed25519PrivateKey.generate()
    secret = key.private_bytes(pem.Encoding.PEM, pem.PrivateFormat.PKCS8, pem.NoEncryption())
    with new_pair(path, public, private=True) as (one, other):
        one.write_bytes(secret)
        other.write_bytes(as_pem([key.public_key()]))
    return public


def read_private(path: Path) -> "Ed25519PrivateKey":
    """The private key in the PEM file `path`. Raises ArchiveError when it holds none, or one with a password."""
    from_library()
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        key = load_pem_private_key(_read(path), None)
    except TypeError:
        raise ArchiveError(f"{path} is protected by a password. Remove it: openssl pkey -in {path} -out KEY") from None
    except (ValueError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, Ed25519PrivateKey):
        raise ArchiveError(f"{path} holds no Ed25519 private key in PEM format. {_MADE_BY}")
    return key


def read_public(path: Path) -> list["Ed25519PublicKey"]:
    """The public keys in the PEM file `path`. Raises ArchiveError when it holds none, or other PEM blocks."""
    keys = _public_keys(path)
    if not keys:
        raise ArchiveError(f"{path} does not hold Ed25519 public keys in PEM format. {_MADE_BY}")
    return keys


def read_trusted(path: Path) -> list["Ed25519PublicKey"]:
    """The public keys in the PEM file `path`: none where it is missing or empty. Raises ArchiveError when it holds
    other PEM blocks.
    """
    keys = _public_keys(path) if path.exists() else []
    if keys is None:
        raise ArchiveError(
            f"{path} is damaged: it holds something else than Ed25519 public keys in PEM format. Mend it; or remove it "
            "and name the keys to trust: geodtr-export bundle unpack --trust KEY.pub"
        )
    return keys


def as_pem(keys: Sequence["Ed25519PublicKey"]) -> bytes:
    """All `keys` as one PEM file."""
    from cryptography.hazmat.primitives import serialization as pem

    form = (pem.Encoding.PEM, pem.PublicFormat.SubjectPublicKeyInfo)
    return b"".join(sorted({key.public_bytes(*form) for key in keys}))


def is_signed(message: bytes, signature: bytes, keys: Sequence["Ed25519PublicKey"]) -> bool:
    """Whether one of `keys` made the signature."""
    from cryptography.exceptions import InvalidSignature

    for key in keys:
        try:
            key.verify(signature, message)
        except InvalidSignature:
            continue
        return True
    return False


def from_library() -> None:
    """Raise MissingDependency, with the command that installs it, without the library that signs."""
    with naming_extras():
        import cryptography  # noqa: F401 (only to see whether it can be imported)


def _public_keys(path: Path) -> list["Ed25519PublicKey"] | None:
    """The keys in a PEM file, none where it has no PEM blocks; None where a block is cut short or something else."""
    from_library()
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    content = _read(path)
    try:
        loaded = [load_pem_public_key(block + _END) for block in content.split(_END)[:-1]]
    except (ValueError, UnsupportedAlgorithm):
        return None
    keys = [key for key in loaded if isinstance(key, Ed25519PublicKey)]
    return keys if len(keys) == content.count(_BEGIN) else None


def _read(path: Path) -> bytes:
    try:
        return read_document(path, _MAX_BYTES)
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}). {_MADE_BY}") from None
