"""Async Python SDK for developers of MEC applications: `MecApplication` is all that most of them need."""

from mec_apps.sdk.application import MecApplication, OfferedService
from mec_apps.sdk.errors import (
    CredentialsError,
    MecError,
    NotAuthorised,
    NotRegistered,
    PlatformUnreachable,
    PlatformUntrusted,
    RequestRefused,
    UnexpectedAnswer,
)
from mec_apps.sdk.mp1 import DiscoveredService
from mec_apps.sdk.notifications import ServiceChange, Watch
from mec_apps.sdk.session import ClientCertificate, ClientCredentials

__all__ = [
    "ClientCertificate",
    "ClientCredentials",
    "CredentialsError",
    "DiscoveredService",
    "MecApplication",
    "MecError",
    "NotAuthorised",
    "NotRegistered",
    "OfferedService",
    "PlatformUnreachable",
    "PlatformUntrusted",
    "RequestRefused",
    "ServiceChange",
    "UnexpectedAnswer",
    "Watch",
]
