"""What an operator says about who may use the REST APIs and how much."""

from __future__ import annotations

from dataclasses import dataclass

from mec_platform.enablement_api.security.rate_limit import Rate

TOKEN_LIFE_S = 3600
KEY_PERIOD_S = 30 * 86_400

DEFAULT_RATE = Rate(per_s=200, burst=400)
"""For each client where clients are told apart: a busy application sends some ten requests a second."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SecuritySettings:
    """Validated by the command line.

    `issuer` is the platform's own address, which its tokens name. A signing key signs for `key_period_s`. `rate` None:
    `DEFAULT_RATE` where clients are told apart, else no limit. `behind_proxy`: requests come through a proxy that ends
    TLS, and the last address in X-Forwarded-For is the client's. `open_metrics`: /metrics asks for no token.
    """

    authenticate: bool = False
    issuer: str = "http://127.0.0.1:8081"
    token_life_s: int = TOKEN_LIFE_S
    key_period_s: int = KEY_PERIOD_S
    rate: Rate | None = None
    behind_proxy: bool = False
    open_metrics: bool = False
