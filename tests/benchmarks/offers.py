"""An application instance on a platform of the benchmarks, and the services that it offers, as they go over Mp1."""

from __future__ import annotations

import json
import urllib.request
from typing import Any


def register_app(rest: str) -> str:
    """Registers an application instance; the path of its services."""
    app = _ask(f"{rest}/mec_app_support/v2/registrations", {"appName": "bench", "appProvider": "mec"})
    return f"/mec_service_mgmt/v1/applications/{app['appInstanceId']}/services"


def make_offer(name: str, version: str = "1") -> dict[str, Any]:
    """The body of a POST or PUT of a service."""
    return {
        "serName": name,
        "serCategory": {"href": "http://example.com/video", "id": "video", "name": "Video", "version": "1.0"},
        "version": version,
        "state": "ACTIVE",
        "transportId": "rest-http",
        "serializer": "JSON",
        "scopeOfLocality": "MEC_HOST",
        "consumedLocalOnly": True,
    }


def get(url: str) -> Any:
    """The JSON that a platform answers."""
    return _ask(url, None)


def _ask(url: str, body: dict[str, Any] | None) -> Any:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {} if body is None else {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.load(answer)
