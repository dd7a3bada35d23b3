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

_DNS_RULE: dict[str, Any] = {
    "dnsRuleId": "faces",
    "domainName": "faces.example.com",
    "ipAddressType": "IP_V4",
    "ipAddress": "192.0.2.10",
    "ttl": 300,
    "state": "ACTIVE",
}

_TRAFFIC_RULE: dict[str, Any] = {
    "trafficRuleId": "camera-to-faces",
    "filterType": "FLOW",
    "priority": 10,
    "trafficFilter": [{"srcAddress": ["198.51.100.0/24"], "dstPort": ["554"], "protocol": ["TCP"]}],
    "action": "FORWARD_DECAPSULATED",
    "dstInterface": [{"interfaceType": "IP", "dstIpAddress": "192.0.2.10"}],
    "state": "ACTIVE",
}

_RADIO_SUBSCRIPTION: dict[str, Any] = {
    "subscriptionType": "CellChangeSubscription",
    "callbackReference": "http://192.0.2.11:8080/handovers",
    "filterCriteriaAssocHo": {"associateId": [{"type": 1, "value": "198.51.100.7"}], "hoStatus": [3]},
}

EXAMPLES: dict[str, Any] = {
    "registerApplication": {"appName": "face-recognition", "appProvider": "example.com", "appDId": "faces-2.1"},
    "replaceRegistration": {"appName": "face-recognition", "appProvider": "example.com", "appDId": "faces-2.2"},
    "confirmReady": {"indication": "READY"},
    "confirmTermination": {"operationAction": "TERMINATING"},
    "replaceDnsRule": _DNS_RULE,
    "replaceTrafficRule": _TRAFFIC_RULE,
    "createService": _SERVICE | {"livenessInterval": 30},
    "replaceService": _SERVICE | {"state": "INACTIVE"},
    "sendHeartbeat": {"state": "ACTIVE"},
    "createAvailabilitySubscription": {
        "subscriptionType": "SerAvailabilityNotificationSubscription",
        "callbackReference": "http://192.0.2.11:8080/notifications",
        "filteringCriteria": {"serNames": ["face-recognition"], "states": ["ACTIVE", "SUSPENDED"]},
    },
    "createTerminationSubscription": {
        "subscriptionType": "AppTerminationNotificationSubscription",
        "callbackReference": "http://192.0.2.11:8080/terminations",
        "appInstanceId": "5c3dcb5b-6e1f-4d0c-9a5e-2f1d8c0b7a11",
    },
    "createRadioSubscription": _RADIO_SUBSCRIPTION,
    "replaceRadioSubscription": _RADIO_SUBSCRIPTION | {"expiryDeadline": {"seconds": 4102444800, "nanoSeconds": 0}},
    "createAppInstance": {
        "appInstanceId": "faces-1",
        "appName": "face-recognition",
        "appProvider": "example.com",
        "dnsRules": [_DNS_RULE],
        "trafficRules": [_TRAFFIC_RULE],
    },
    "terminateAppInstance": {"terminationType": "GRACEFUL", "gracefulTerminationTimeout": 30},
    "operateAppInstance": {"changeStateTo": "STOPPED", "stopType": "GRACEFUL", "gracefulStopTimeout": 30},
    "createClient": {"scopes": ["mec_app_support", "mec_service_mgmt"]},
}
