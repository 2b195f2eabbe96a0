"""Ed25519 signatures (RFC 8032) of short documents: whoever can read a routing table still cannot write one.

An envelope is JSON with the signed text as one string, so that there is no canonical form to agree on:

    {"payload": "{…}", "signature": "base64"}
"""

import base64
import os
from pathlib import Path

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from contracts.errors import ArtifactError, NotFound, Refused


class _Envelope(msgspec.Struct, forbid_unknown_fields=True):
    payload: str
    signature: str


class Verifier:
    def __init__(self, key: bytes) -> None:
        self._key = Ed25519PublicKey.from_public_bytes(key)

    @classmethod
    def read(cls, path: Path) -> "Verifier":
        """
        Raises:
            NotFound: no such file. ArtifactError: not a public key.
        """
        try:
            return cls(base64.b64decode(path.read_bytes(), validate=True))
        except FileNotFoundError as error:
            raise NotFound(f"there is no key {path}", next_command="streamrec up") from error
        except (OSError, ValueError) as error:
            raise ArtifactError(f"{path} is not a public key: {error}") from error

    def open(self, text: str | bytes) -> str:
        """The payload of an envelope.

        Raises:
            Refused: not an envelope, or not signed by our key.
        """
        try:
            envelope = msgspec.json.decode(text, type=_Envelope)
            self._key.verify(base64.b64decode(envelope.signature, validate=True), envelope.payload.encode())
        except (msgspec.DecodeError, UnicodeError, ValueError) as error:
            raise Refused(f"not a signed document: {error}") from error
        except InvalidSignature as error:
            raise Refused("the signature is not that of our key") from error
        return envelope.payload

    def open_token(self, token: str) -> str:
        """The payload of `Signer.token`.

        Raises:
            Refused: not a token, or not signed by our key.
        """
        payload, _, signature = token.partition(".")
        try:
            raw = _unbase(payload)
            self._key.verify(_unbase(signature), raw)
            return raw.decode()
        except (ValueError, InvalidSignature) as error:
            raise Refused("not a token that was signed here") from error


class Signer:
    """Holds the private key. Whoever may read its file may order any routing."""

    def __init__(self, key: Ed25519PrivateKey) -> None:
        self._key = key
        self.public = key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)

    @classmethod
    def make(cls) -> "Signer":
        return cls(Ed25519PrivateKey.generate())

    @classmethod
    def open(cls, private: Path, public: Path) -> "Signer":
        """The key of this home; made (mode 0600) with its public half beside it on the first call.

        Raises:
            ArtifactError: the file is not a private key.
        """
        if not private.exists():
            private.parent.mkdir(parents=True, exist_ok=True)
            part = private.with_name(f".{private.name}.{os.getpid()}")
            raw = Ed25519PrivateKey.generate().private_bytes(Encoding.Raw, PrivateFormat.Raw, NoEncryption())
            with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
                file.write(base64.b64encode(raw))
                file.flush()
                os.fsync(file.fileno())
            try:
                os.link(part, private)  # fails where another process was faster: then its key holds
            except FileExistsError:
                pass
            finally:
                part.unlink(missing_ok=True)
        try:
            key = Ed25519PrivateKey.from_private_bytes(base64.b64decode(private.read_bytes(), validate=True))
        except ValueError as error:
            raise ArtifactError(f"{private} is not a private key: {error}") from error
        signer = cls(key)
        encoded = base64.b64encode(signer.public)
        if not public.exists() or public.read_bytes() != encoded:
            part = public.with_name(f".{public.name}.{os.getpid()}")
            part.write_bytes(encoded)
            part.replace(public)
        return signer

    def seal(self, payload: str) -> str:
        """An envelope for a file."""
        signature = base64.b64encode(self._key.sign(payload.encode())).decode()
        return msgspec.json.encode(_Envelope(payload, signature)).decode()

    def token(self, payload: str) -> str:
        """`base64url(payload).base64url(signature)`, for a header."""
        raw = payload.encode()
        return f"{_base(raw)}.{_base(self._key.sign(raw))}"

    @property
    def verifier(self) -> Verifier:
        return Verifier(self.public)


def _base(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")


def _unbase(text: str) -> bytes:
    return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
