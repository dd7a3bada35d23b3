"""The platform as the tests of its APIs see it."""

from tests.enablement_api.conftest import app_id, client, clock, host, offer, service

__all__ = ["app_id", "client", "clock", "host", "offer", "service"]
