"""Proof of who sent a notification: a detached JWS (RFC 7515 appendix F) by the key that signs the platform's tokens.

Receivers need no secret: the public keys are at /oauth2/jwks, and rotate with those of the tokens. The protected header
says when (`iat`) and which notification (`nid`), so that neither can be put to another body, and an old one not sent again.
`mec_apps.examples.receiver` shows the other side.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from joserfc import jws

from mec_platform.domain.credentials import SigningKey
from mec_platform.enablement_api.notifications.callbacks import Sign
from mec_platform.enablement_api.security.tokens import ALGORITHM, load_key, newest_key

SIGNATURE_HEADER = "X-MEC-Signature"

SIGNATURE_TYPE = "mec-notification+jws"
"""Nothing else that the platform signs passes for a notification, nor this for a token."""

_REGISTRY = jws.JWSRegistry(algorithms=[ALGORITHM], strict_check_header=False)


def signer(keys: Callable[[], Mapping[str, SigningKey]], unix_s: Callable[[], float]) -> Sign:
    """Signs with the newest key there is; without one notifications go unsigned, as tokens are not issued either."""

    def sign(message_id: str, body: bytes) -> dict[str, str]:
        key = newest_key(keys())
        if key is None:
            return {}
        header = {
            "alg": ALGORITHM,
            "kid": key.key_id,
            "typ": SIGNATURE_TYPE,
            "iat": int(unix_s()),
            "nid": message_id,
        }
        signed = jws.serialize_compact(header, body, load_key(key.private_jwk), registry=_REGISTRY)
        return {SIGNATURE_HEADER: jws.detach_content(signed)}

    return sign
