"""Async Python SDK for developers of MEC applications: `MecApplication` is all that most of them need."""

from mec_apps.sdk.application import MecApplication, OfferedService
from mec_apps.sdk.errors import MecError, NotRegistered, PlatformUnreachable, RequestRefused, UnexpectedAnswer
from mec_apps.sdk.mp1 import DiscoveredService

__all__ = [
    "DiscoveredService",
    "MecApplication",
    "MecError",
    "NotRegistered",
    "OfferedService",
    "PlatformUnreachable",
    "RequestRefused",
    "UnexpectedAnswer",
]
