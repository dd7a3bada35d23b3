"""What is counted of notifications, in the exposition format of Prometheus."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from mec_platform.domain.subscriptions import Notification, Outbox
from mec_platform.enablement_api.notifications.outcome import Away, Delivered, Failed, Outcome, Rejected

_OUTCOMES = {Delivered: "delivered", Failed: "failed", Rejected: "rejected", Away: "away"}


class NotificationMetrics(Collector):
    """Attempts as they come; what waits and what is dead is counted at each scrape."""

    def __init__(
        self,
        collectors: CollectorRegistry,
        outboxes: Callable[[], Iterable[Outbox]],
        oldest_wait_s: Callable[[], float],
        connected: Callable[[], int],
    ) -> None:
        self._outboxes = outboxes
        self._oldest_wait_s = oldest_wait_s
        self._connected = connected
        self._attempts = Counter(
            "mec_notification_attempts", "Attempts to deliver notifications", ["topic", "outcome"], registry=collectors
        )
        self._seconds = Histogram(
            "mec_notification_attempt_seconds", "Time until a target has answered", registry=collectors
        )
        collectors.register(self)

    def observe(self, notification: Notification, outcome: Outcome, seconds: float) -> None:
        """Counts one attempt; where nobody was connected there was none."""
        self._attempts.labels(topic_of(notification), _OUTCOMES[type(outcome)]).inc()
        if not isinstance(outcome, Away):
            self._seconds.observe(seconds)

    def collect(self) -> Iterable[GaugeMetricFamily]:
        """Called by prometheus_client at each scrape."""
        outboxes = list(self._outboxes())
        for name, text, value in (
            ("waiting", "Notifications that have not been delivered yet", sum(len(each.waiting) for each in outboxes)),
            ("dead_letters", "Notifications that will not be delivered", sum(len(each.dead) for each in outboxes)),
            ("oldest_wait_seconds", "How long one subscription has waited for its next one", self._oldest_wait_s()),
            ("websockets", "Subscribers that are connected", self._connected()),
        ):
            yield GaugeMetricFamily(f"mec_notification_{name}", text, value=value)


def topic_of(notification: Notification) -> str:
    """A label: what the notification is about."""
    if notification.termination is not None:
        return "app_termination"
    if notification.radio is not None:
        return "radio_information"
    if notification.expiry is not None:
        return "expiry"
    return "service_availability" if notification.services else "test"
