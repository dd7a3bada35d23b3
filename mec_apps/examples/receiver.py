"""How a callback makes sure that a notification comes from its platform, has not been altered, and is no old one.

The platform signs where authentication is on. Its keys are fetched once, and again when one is unknown:

    keys = KeySet.import_key_set(await (await session.get(f"{platform}/oauth2/jwks")).json())
"""

from __future__ import annotations

import base64
import time
from collections.abc import Mapping

from joserfc import jws
from joserfc.jwk import KeySet

LONGEST_WAY_S = 300


def verify_notification(headers: Mapping[str, str], body: bytes, keys: KeySet, now_unix_s: float | None = None) -> str:
    """The id of the notification: one that has been seen before is a repetition.

    Raises:
        ValueError, joserfc.errors.JoseError: it must not be believed.
    """
    protected, _, signature = headers["X-MEC-Signature"].split(".")
    payload = base64.urlsafe_b64encode(body).rstrip(b"=").decode()
    registry = jws.JWSRegistry(algorithms=["ES256"], strict_check_header=False)
    signed = jws.deserialize_compact(f"{protected}.{payload}.{signature}", keys, registry=registry)
    header = signed.headers()
    now_s = time.time() if now_unix_s is None else now_unix_s
    if header["typ"] != "mec-notification+jws" or abs(now_s - header["iat"]) > LONGEST_WAY_S:
        raise ValueError("no notification, or not one of the last minutes")
    return str(header["nid"])
