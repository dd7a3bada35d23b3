"""`MAPPING.md`: what of a service's record each attribute of 3GPP's data types shows, made from `messages`.

python -m mec_platform.enablement_api.registry_view.mapping
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec

from mec_platform.enablement_api.registry_view import messages

FILE = Path(__file__).with_name("MAPPING.md")

_TYPES: tuple[tuple[str, str, tuple[type[msgspec.Struct], ...]], ...] = (
    ("EASProfile", "3GPP TS 29.558 V18.4.0", (messages.EasProfile, messages.EasEndPoint)),
    (
        "ServiceAPIDescription",
        "3GPP TS 29.222 V18.4.0",
        (
            messages.ServiceApiDescription,
            messages.ApiStatus,
            messages.AefProfile,
            messages.ApiVersion,
            messages.InterfaceDescription,
            messages.AefLocation,
            messages.ApiServiceKpis,
        ),
    ),
)

_OPENING = """# One record, three views

A service is registered once, over Mp1 or gRPC. It is shown in full at `/registry/v1/services`, as MEC 011 has it at
`/mec_service_mgmt/v1/services`, and as two data types of 3GPP, whose attributes come from the record as below (names in
`code` are those of the full record). What a record has no value for is left out. The resources are the platform's own:
the APIs that these data types belong to are not offered.
"""


def make_mapping() -> str:
    """The whole file."""
    return "\n".join([_OPENING, *(line for each in _TYPES for line in _section(*each))])


def _section(name: str, source: str, types: tuple[type[msgspec.Struct], ...]) -> Iterator[str]:
    yield from (f"## {name} ({source})", "", "| attribute | shows |", "|---|---|")
    for message in types:
        of_type = "" if message is types[0] else f"{_standard_name(message)}."
        yield from (f"| {of_type}{name} | {what} |" for name, what in shown(message).items())
    yield from ("", "| never there | why |", "|---|---|")
    for message in types:
        of_type = "" if message is types[0] else f"{_standard_name(message)}: "
        yield from (f"| {of_type}{names} | {why} |" for names, why in messages.LEFT_OUT.get(message, {}).items())
    yield ""


def shown(message: type[msgspec.Struct]) -> dict[str, str]:
    """Attributes of a data type that may be there, and what each shows."""
    properties = msgspec.json.schema(message)["$defs"][message.__name__]["properties"]
    return {name: schema["description"] for name, schema in properties.items()}


def _standard_name(message: type[msgspec.Struct]) -> str:
    return (message.__doc__ or "").partition(" (")[0]


if __name__ == "__main__":
    FILE.write_text(make_mapping(), encoding="utf-8")
    sys.stdout.write(f"{FILE}\n")
