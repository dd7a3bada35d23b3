"""Who may use the REST APIs of `mec serve`, over what, and how much."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import click

from mec_apps.cli.option_groups import option_group, options_of
from mec_platform.domain.quotas import Quotas
from mec_platform.enablement_api.security.rate_limit import Rate
from mec_platform.enablement_api.security.settings import DEFAULT_RATE, KEY_PERIOD_S, TOKEN_LIFE_S, SecuritySettings
from mec_platform.identity.member_authority import AuthorityFiles
from mec_platform.tls import TlsFiles

_FILE = click.Path(path_type=Path, dir_okay=False)
_COUNT = click.IntRange(1)
_option = options_of("Security")
_limit = options_of("Limits")
_QUOTAS = Quotas()


@dataclass(frozen=True, slots=True)
class Security:
    """What the options say, checked. `rate` None: `DEFAULT_RATE` where authentication is on, else no limit."""

    authenticate: bool | None
    settings: SecuritySettings
    tls: TlsFiles | None
    member_ca: AuthorityFiles | None
    public_uri: str
    operator_file: Path | None


def _make_security(
    auth: str | None,
    operator_credentials: Path | None,
    tls_cert: Path | None,
    tls_key: Path | None,
    client_ca: Path | None,
    member_ca_cert: Path | None,
    member_ca_key: Path | None,
    behind_proxy: bool,
    public_url: str,
    token_life_s: int,
    key_period_s: int,
    open_metrics: bool,
    rate_limit: float | None,
    rate_burst: int | None,
) -> Security:
    if (tls_cert is None) != (tls_key is None):
        raise click.UsageError("--tls-cert and --tls-key belong together")
    if client_ca is not None and tls_cert is None:
        raise click.UsageError("--client-ca needs --tls-cert and --tls-key")
    if (member_ca_cert is None) != (member_ca_key is None):
        raise click.UsageError("--member-ca-cert and --member-ca-key belong together")
    member_ca = AuthorityFiles(member_ca_cert, member_ca_key) if member_ca_cert and member_ca_key else None
    tls = TlsFiles(certificate=tls_cert, key=tls_key, client_ca=client_ca) if tls_cert and tls_key else None
    settings = SecuritySettings(
        token_life_s=token_life_s,
        key_period_s=key_period_s,
        behind_proxy=behind_proxy,
        open_metrics=open_metrics,
        rate=_rate(rate_limit, rate_burst),
    )
    authenticate = None if auth is None else auth == "on"
    return Security(authenticate, settings, tls, member_ca, public_url.rstrip("/"), operator_credentials)


def _rate(per_s: float | None, burst: int | None) -> Rate | None:
    if per_s is None and burst is None:
        return None
    per_s = per_s or DEFAULT_RATE.per_s
    return Rate(per_s, burst or max(1, round(2 * per_s)))


def _make_quotas(
    services_per_app: int, subscriptions_per_app: int, apps_per_client: int, watches_per_client: int
) -> Quotas:
    return Quotas(
        services_per_app=services_per_app,
        subscriptions_per_app=subscriptions_per_app,
        apps_per_client=apps_per_client,
        watches_per_client=watches_per_client,
    )


security_options = option_group(
    "security",
    _make_security,
    _option("--auth", type=click.Choice(["on", "off"]), help="Ask for tokens (default: off on loopback, else on)."),
    _option(
        "--operator-credentials",
        type=_FILE,
        help="Where the first operator's credentials are written, or read where the file is there "
        "(default: STATE.operator.json).",
    ),
    _option("--tls-cert", type=_FILE, help="Certificate (PEM), with the chain up to its authority; see mec certs."),
    _option("--tls-key", type=_FILE, help="Its key. Both are read again at SIGHUP."),
    _option(
        "--client-ca", type=_FILE, help="Mutual TLS: only clients with a certificate that this authority has signed."
    ),
    _option(
        "--member-ca-cert",
        type=_FILE,
        help="Authority (PEM) of nodes and gateways, as of mec certs init: gRPC speaks mutual TLS (default: an authority of "
        "its own in STATE.certs, where other machines reach --host).",
    ),
    _option("--member-ca-key", type=_FILE, help="Its key, with which members that join get their certificates."),
    _option("--behind-proxy", is_flag=True, help="A proxy ends TLS; the last X-Forwarded-For is the client's address."),
    _option("--public-url", default="", help="Address under which clients reach the platform, for links and tokens."),
    _option("--token-life-s", default=TOKEN_LIFE_S, show_default=True, type=click.IntRange(60, 86_400)),
    _option("--key-period-s", default=KEY_PERIOD_S, show_default=True, type=click.IntRange(3600)),
    _option("--open-metrics", is_flag=True, help="Ask for no token at /metrics."),
    _limit(
        "--rate-limit",
        type=click.FloatRange(0, min_open=True),
        help=f"Requests per second of a client, or of an address without one (default: {DEFAULT_RATE.per_s:g} with "
        "--auth on, else none).",
    ),
    _limit("--rate-burst", type=_COUNT, help="Requests that it may make at once (default: twice --rate-limit)."),
)

quota_options = option_group(
    "quotas",
    _make_quotas,
    _limit("--services-per-app", default=_QUOTAS.services_per_app, show_default=True, type=_COUNT),
    _limit("--subscriptions-per-app", default=_QUOTAS.subscriptions_per_app, show_default=True, type=_COUNT),
    _limit("--apps-per-client", default=_QUOTAS.apps_per_client, show_default=True, type=_COUNT),
    _limit("--watches-per-client", default=_QUOTAS.watches_per_client, show_default=True, type=_COUNT),
)
