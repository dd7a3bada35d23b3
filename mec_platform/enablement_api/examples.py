"""A valid request body for each operation that takes one, by operation id; the OpenAPI document shows them."""

from __future__ import annotations

from typing import Any

_SERVICE: dict[str, Any] = {
    "serName": "face-recognition",
    "serCategory": {"href": "/categories/vision", "id": "vision", "name": "Computer vision", "version": "1.0"},
    "version": "2.1.0",
    "state": "ACTIVE",
    "transportInfo": {
        "id": "rest",
        "name": "REST",
        "type": "REST_HTTP",
        "protocol": "HTTP",
        "version": "1.1",
        "endpoint": {"uris": ["http://192.0.2.10:9000/faces/v1"]},
        "security": {},
    },
    "serializer": "JSON",
    "scopeOfLocality": "MEC_HOST",
    "consumedLocalOnly": True,
}

EXAMPLES: dict[str, Any] = {
    "registerApplication": {"appName": "face-recognition", "appProvider": "example.com", "appDId": "faces-2.1"},
    "confirmReady": {"indication": "READY"},
    "createService": _SERVICE | {"livenessInterval": 30},
    "replaceService": _SERVICE | {"state": "INACTIVE"},
    "sendHeartbeat": {"state": "ACTIVE"},
}
