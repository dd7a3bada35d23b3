"""The radio network information API `/rni/v2` (ETSI GS MEC 012): queries, subscriptions, and what subscribers are told."""
