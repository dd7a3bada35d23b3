"""What must be true before the platform listens where other machines reach it: pure, decided once, at the start.

The REST APIs then ask for tokens, over TLS. gRPC asks for nothing, so it stays on loopback unless its network is trusted.
"""

from __future__ import annotations

from dataclasses import dataclass

from mec_platform.rpc.endpoints import AddressError, is_loopback

LOOPBACK = "127.0.0.1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Exposure:
    """Where REST and gRPC listen, whether other machines reach REST, and whether it asks for tokens."""

    rest_host: str
    grpc_host: str
    reachable: bool
    authenticate: bool


def decide_exposure(
    host: str, *, authenticate: bool | None, tls: bool, behind_proxy: bool, allow_remote: bool
) -> Exposure:
    """What to do for an operator who wants to listen on `host`; `authenticate` None: as is right there.

    Raises:
        AddressError: that would let other machines in without proof or in the clear; the message says what would not.
    """
    local = is_loopback(host)
    reachable = behind_proxy or not local
    if authenticate is None:
        authenticate = reachable
    if reachable and not authenticate:
        raise AddressError(
            f"--auth off is for loopback only, and {'--behind-proxy' if local else host} lets other machines in; "
            "leave it out, and give clients credentials with `mec client create`"
        )
    if not local and not tls and not behind_proxy:
        raise AddressError(
            f"{host} can be reached from other machines, and tokens must not travel in the clear: make a certificate with "
            "`mec certs` and pass --tls-cert and --tls-key, or say --behind-proxy where a proxy ends TLS; "
            "or listen on 127.0.0.1"
        )
    return Exposure(
        rest_host=host,
        grpc_host=host if local or allow_remote else LOOPBACK,
        reachable=reachable,
        authenticate=authenticate,
    )
