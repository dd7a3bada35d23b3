"""`mec services`: the services that a platform offers, what they can do and how they are doing."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any
from urllib.parse import urlencode

import click

from mec_apps.cli.requests import json_option, print_json, run_async
from mec_apps.cli.rest_client import PlatformAddress, call, rest_options
from mec_apps.cli.service_filters import ServiceFilters, filter_options
from mec_apps.cli.tables import print_table

PATH = "registry/v1/services"

HEADINGS = ("id", "name", "version", "state", "model", "host", "trust", "load", "tokens/s", "measured", "reached at")


@click.command(epilog="Example: mec services --model smollm2 --state ACTIVE")
@filter_options
@click.option("--model", "models", multiple=True, help="Only services that run this model (repeatable).")
@rest_options
@json_option
def services(wanted: ServiceFilters, models: tuple[str, ...], platform: PlatformAddress, as_json: bool) -> None:
    """Services that are registered on the platform: what they can do, and how they are doing."""
    query = urlencode(replace(wanted, models=models).query())
    found = run_async(call(platform, "GET", f"{PATH}?{query}" if query else PATH))
    if as_json:
        print_json(found)
    elif found:
        now_s = time.time()
        print_table(HEADINGS, [describe(each, now_s) for each in found])
    else:
        click.echo("no services")


def describe(service: Mapping[str, Any], now_s: float) -> Sequence[str]:
    """A row of the table; empty where the service does not say."""
    capabilities, kpis = service.get("capabilities"), service.get("kpis", {})
    return (
        service["serviceId"],
        service["name"],
        service["version"],
        service["state"],
        "" if capabilities is None else describe_model(capabilities.get("model", ""), capabilities.get("layers")),
        service["locality"]["mecHost"],
        "" if capabilities is None else str(capabilities.get("trustLevel", 0)),
        f"{kpis['load']:.0%}" if "load" in kpis else "",
        f"{kpis['tokensPerS']:.1f}" if "tokensPerS" in kpis else "",
        describe_age(now_s - kpis["measured"]["seconds"]) if kpis else "",
        describe_endpoint(service["transport"]["endpoint"]),
    )


def describe_model(model: str, layers: Mapping[str, int] | None) -> str:
    """A model, and which of its blocks."""
    return model if layers is None else f"{model} [{layers['start']}, {layers['stop']})".lstrip()


def describe_age(seconds: float) -> str:
    """How long ago; the service's clock may be a little ahead of ours."""
    whole = max(int(seconds), 0)
    if whole < 120:
        return f"{whole} s ago"
    return f"{whole // 60} min ago" if whole < 7200 else f"{whole // 3600} h ago"


def describe_endpoint(endpoint: Mapping[str, Any]) -> str:
    """Addresses of whichever kind, with spaces between them."""
    addresses = [f"{each['host']}:{each['port']}" for each in endpoint.get("addresses", ())]
    return " ".join([*endpoint.get("uris", ()), *endpoint.get("fqdn", ()), *addresses])
