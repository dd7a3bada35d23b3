"""What the example of a receiver believes, and what not."""

from __future__ import annotations

import pytest
from joserfc.errors import JoseError
from joserfc.jwk import KeySet

from mec_apps.examples.receiver import verify_notification
from mec_platform.enablement_api.notifications.signing import signer
from mec_platform.enablement_api.security.tokens import generate_key, public_jwk

NOW_S = 1_700_000_000
BODY = b'{"notificationType":"TestNotification"}'
OLD, NEW = generate_key("old", 1), generate_key("new", 2)
KEYS = KeySet.import_key_set({"keys": [public_jwk(OLD), public_jwk(NEW)]})
sign = signer(lambda: {"old": OLD, "new": NEW}, lambda: NOW_S)


def test_a_receiver_learns_which_notification_it_is():
    assert verify_notification(sign("subscription-1:7", BODY), BODY, KEYS, NOW_S + 10) == "subscription-1:7"


def test_the_newest_key_signs():
    only_new = KeySet.import_key_set({"keys": [public_jwk(NEW)]})
    assert verify_notification(sign("a:1", BODY), BODY, only_new, NOW_S) == "a:1"


def test_without_keys_nothing_is_signed():
    assert signer(dict, lambda: NOW_S)("a:1", BODY) == {}


def test_another_body_is_not_believed():
    with pytest.raises(JoseError):
        verify_notification(sign("a:1", BODY), BODY + b" ", KEYS, NOW_S)


def test_another_platform_is_not_believed():
    stranger = generate_key("new", 3)
    with pytest.raises(JoseError):
        verify_notification(signer(lambda: {"new": stranger}, lambda: NOW_S)("a:1", BODY), BODY, KEYS, NOW_S)


@pytest.mark.parametrize("later_s", [301, -301])
def test_an_old_notification_is_not_believed(later_s):
    with pytest.raises(ValueError, match="last minutes"):
        verify_notification(sign("a:1", BODY), BODY, KEYS, NOW_S + later_s)
