"""Radio information of one MEC host: what RAN adapters report, the state that it leaves, and what there is to tell of it.

Adapters (`replay`, `grpc_service`) hand reports to `network`, the one shell; `radio_state` decides what changed. Who is told, and
how, is the affair of `enablement_api.radio_information`.
"""
