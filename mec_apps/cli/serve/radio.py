"""What `mec serve` is told of the radio network: traces to replay, where no RAN reports."""

from __future__ import annotations

from pathlib import Path

import click

from mec_apps.cli.option_groups import option_group, options_of
from mec_platform.radio.replay import ReplaySettings
from mec_platform.radio.values import Plmn, associate_of
from mec_platform.radio_access import RadioSettings

_option = options_of("Radio information")


def _read_traces(context: click.Context, parameter: click.Parameter, texts: tuple[str, ...]) -> dict[str, Path]:
    traces: dict[str, Path] = {}
    for text in texts:
        ue, separator, file = text.partition("=")
        if not separator or not file:
            raise click.BadParameter(f"{text!r} is not like 10.0.0.7=trace.txt")
        try:
            name = associate_of(ue).value
        except ValueError as error:
            raise click.BadParameter(f"{ue!r} is no UE: {error}") from error
        if name in traces:
            raise click.BadParameter(f"UE {name} has a trace already")
        traces[name] = Path(file)
    return traces


def _read_plmn(context: click.Context, parameter: click.Parameter, text: str) -> Plmn:
    try:
        return Plmn(*text.split("-"))
    except (TypeError, ValueError) as error:
        raise click.BadParameter(f"{text!r} is not like 001-01: {error}") from error


def _make_settings(
    radio_traces: dict[str, Path], radio_speed: float, radio_loops: bool, radio_plmn: Plmn
) -> RadioSettings:
    return RadioSettings(radio_traces, ReplaySettings(speed=radio_speed, loops=radio_loops, plmn=radio_plmn))


radio_options = option_group(
    "radio",
    _make_settings,
    _option(
        "--radio-trace",
        "radio_traces",
        multiple=True,
        metavar="UE=FILE",
        callback=_read_traces,
        help="Replay a trace of radio measurements as those of a UE, an address or a name; may be repeated.",
    ),
    _option(
        "--radio-speed",
        default=1.0,
        show_default=True,
        type=click.FloatRange(min=0.01, max=1000),
        help="How many times as fast as it was measured.",
    ),
    _option(
        "--radio-loop/--radio-once",
        "radio_loops",
        default=True,
        show_default=True,
        help="Begin traces anew at their end, or let their UEs leave.",
    ),
    _option(
        "--radio-plmn",
        default="001-01",
        show_default=True,
        metavar="MCC-MNC",
        callback=_read_plmn,
        help="The mobile network of cells in traces, which name none; the default is the one for tests.",
    ),
)
