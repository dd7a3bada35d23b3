"""What can go wrong between an application and the MEC platform.

MecError
+-- PlatformUnreachable    nothing answers at the platform's address, or not in time
+-- PlatformUntrusted      its certificate is signed by nobody that is trusted, or names another host
+-- CredentialsError       a file with credentials or certificates cannot be used
+-- UnexpectedAnswer       something answers there that is no MEC platform
+-- RequestRefused         the platform understood and said no; `status` and `detail` are its own words
    +-- NotRegistered      404: the platform does not know, or no longer knows, what was named
    +-- NotAuthorised      401 or 403: the credentials are missing or wrong, or do not permit this
"""

from __future__ import annotations

from mec_platform.domain.errors import MendableError


class MecError(MendableError):
    """Base of every error of the SDK."""


class PlatformUnreachable(MecError):
    """Retrying later may help; starting the platform certainly does."""

    def __init__(self, platform_url: str, reason: str) -> None:
        super().__init__(
            f"no MEC platform answers at {platform_url} ({reason});"
            " start one with `mec serve`, or pass the address of one that runs as platform_url"
        )
        self.platform_url = platform_url


class PlatformUntrusted(MecError):
    """Whoever answers may be somebody else than the platform."""

    def __init__(self, platform_url: str, reason: str) -> None:
        super().__init__(
            f"the TLS certificate of {platform_url} is not trusted ({reason});"
            " pass the certificate of its authority, such as the ca.crt of `mec certs`, as ca"
        )
        self.platform_url = platform_url


class CredentialsError(MecError):
    """The message names the file and says what is wrong with it."""


class UnexpectedAnswer(MecError):
    """The address leads to some other server, or to a platform of another version."""

    def __init__(self, url: str, reason: str) -> None:
        super().__init__(f"the answer of {url} is not one of a MEC platform: {reason}; check platform_url")


class RequestRefused(MecError):
    """An answer with status 400 or above."""

    def __init__(self, request: str, status: int, detail: str) -> None:
        super().__init__(f"{request} was refused with status {status}: {detail}")
        self.status = status
        self.detail = detail


class NotRegistered(RequestRefused):
    """Status 404."""


class NotAuthorised(RequestRefused):
    """Status 401 or 403."""
