"""Who makes a request, for handlers: the client, what it owns, and from where it consumes.

`authentication` notes the caller; where authentication is off there is none, and nobody owns anything.
"""

from __future__ import annotations

from dataclasses import dataclass

from aiohttp import web

from mec_platform.domain.credentials import Scope
from mec_platform.domain.locality import Locality
from mec_platform.registry.state import RegistryState


@dataclass(frozen=True, slots=True)
class Caller:
    """A client that has proved who it is, and the scopes that its token carries."""

    client_id: str
    scopes: frozenset[Scope]


CALLER: web.RequestKey[Caller] = web.RequestKey("caller", Caller)


def owner_of(request: web.Request) -> str:
    """The owner of what this request creates: its client's id; empty where authentication is off."""
    caller = request.get(CALLER)
    return caller.client_id if caller else ""


def consumer_locality(request: web.Request, state: RegistryState, platform: Locality) -> Locality:
    """From where this request's caller consumes services: its application instance's place where it owns exactly one,
    else the platform's (MEC 011 clause 8.1.2.2, isLocal)."""
    caller = request.get(CALLER)
    if caller is None:
        return platform
    owned = state.apps_of(caller.client_id)
    return state.apps[next(iter(owned))].locality if len(owned) == 1 else platform
