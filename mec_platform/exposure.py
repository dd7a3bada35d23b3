"""What must be true before the platform listens where other machines reach it: pure, decided once, at the start.

The REST APIs then ask for tokens, over TLS. gRPC speaks mutual TLS, unless an operator says that its network is trusted.
"""

from __future__ import annotations

from dataclasses import dataclass

from mec_platform.rpc.endpoints import AddressError, is_loopback


@dataclass(frozen=True, slots=True, kw_only=True)
class Exposure:
    """Where the platform listens, whether other machines reach REST, whether that asks for tokens, and whether gRPC for
    nodes and gateways speaks mutual TLS."""

    host: str
    reachable: bool
    authenticate: bool
    mutual_tls: bool


def decide_exposure(
    host: str,
    *,
    authenticate: bool | None,
    tls: bool,
    behind_proxy: bool,
    allow_remote: bool,
    member_authority: bool = False,
) -> Exposure:
    """What to do for an operator who wants to listen on `host`; `authenticate` None: as is right there.

    `member_authority` says that there is one: with it gRPC speaks mutual TLS on loopback too. `allow_remote` has it speak in
    the clear, whoever reaches it.

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
        host=host,
        reachable=reachable,
        authenticate=authenticate,
        mutual_tls=(member_authority or not local) and not allow_remote,
    )
