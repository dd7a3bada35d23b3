"""Discovery of services by what they can do and how they are doing, ranked and explained, and of chains of them.

A question is a `query.DiscoveryQuery` or `chain_query.ChainQuery`; `discover` answers it from a state of the registry and
the KPIs of the moment. Processing order: `narrow` (sharpest index) -> `requirements` (cheap, hard) -> `conditions` (CEL;
`grammar` and `environment` say what a condition may be) -> `ranking` (by `measures`), or `chain` (shortest path over blocks).
`wire` is the counterpart for gRPC.
"""
