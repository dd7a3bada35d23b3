"""What an operator hands to a newcomer: a secret that is good once, the name that it is good for, and the authority to expect.

The fingerprint of the platform's authority is in the token, so that no file has to be carried to the newcomer's machine
before. Pure; who makes the secret and keeps its hash is `registry.joining`.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import struct
import zlib
from dataclasses import dataclass, field

from mec_platform.domain.errors import MendableError
from mec_platform.identity.names import Role, name_problem

PREFIX = "mec-join-1-"
SECRET_BYTES = 32
_HASH_BYTES = 32
_FIXED = SECRET_BYTES + _HASH_BYTES
_CHECK = struct.Struct(">I")


class JoinTokenError(MendableError):
    """This is no join token, or not a whole one."""


@dataclass(frozen=True, slots=True)
class JoinToken:
    """`authority` is the SHA-256 fingerprint of the certificate of the platform's authority."""

    name: str
    secret: bytes = field(repr=False)
    authority: bytes

    def encode(self) -> str:
        """As one word to copy."""
        content = self.secret + self.authority + self.name.encode()
        return PREFIX + base64.urlsafe_b64encode(content + _CHECK.pack(zlib.crc32(content))).rstrip(b"=").decode()

    @property
    def secret_hash(self) -> str:
        """What the platform knows the token by: SHA-256, hexadecimal, of 256 random bits."""
        return hash_secret(self.secret)


def decode_join_token(text: str) -> JoinToken:
    """The token in a text. Raises JoinTokenError, whose message repeats nothing of it."""
    text = text.strip()
    try:
        if not text.startswith(PREFIX):
            raise ValueError
        encoded = text.removeprefix(PREFIX)
        raw = base64.b64decode(encoded + "=" * (-len(encoded) % 4), altchars=b"-_", validate=True)
        content, check = raw[: -_CHECK.size], raw[-_CHECK.size :]
        if len(content) <= _FIXED or _CHECK.unpack(check) != (zlib.crc32(content),):
            raise ValueError
        name = content[_FIXED:].decode()
        token = JoinToken(name, content[:SECRET_BYTES], content[SECRET_BYTES:_FIXED])
        if name_problem(Role.MEMBER, name) is not None or token.encode() != text:
            raise ValueError  # some letters can stand for others where nothing depends on them
    except (ValueError, binascii.Error, struct.error) as error:
        raise JoinTokenError(
            "this is no join token, or not all of it; `mec join-token create NAME` at the platform makes one"
        ) from error
    return token


def hash_secret(secret: bytes) -> str:
    """SHA-256, hexadecimal."""
    return hashlib.sha256(secret).hexdigest()
