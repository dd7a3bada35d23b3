"""The live picture in the terminal: the answer beside which layers are where, links, tokens/s and decisions."""

from __future__ import annotations

from itertools import pairwise

from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from mec_apps.cli.demo.board import Board
from mec_apps.cli.demo.scenario import Result
from mec_platform.rpc.v1 import control_plane_pb2

NODE_COLOURS = ("cyan", "magenta", "yellow", "green", "blue", "red")
EPOCH_COLOURS = ("white", "bright_cyan", "bright_magenta", "bright_yellow", "bright_green")
EVENT_STYLES = {"step": "bold", "decision": "cyan", "done": "green", "trouble": "bold red"}
ANSWER_LINES = 22
EVENT_LINES = 9


def render(board: Board) -> RenderableType:
    """The whole picture for one instant."""
    grid = Table.grid(expand=True, padding=(0, 1))
    grid.add_column(ratio=1)
    grid.add_column(ratio=1)
    title = f"{board.headline}  {len(board.tokens)} tokens  {board.tokens_per_s:.0f} tokens/s"
    left = Panel(_answer(board), title=title, border_style="bold", height=ANSWER_LINES + 2)
    right = Group(Panel(_nodes(board), title="which layers are where"), Panel(_links(board), title="links"))
    grid.add_row(left, right)
    return Group(grid, Panel(_events(board), title="what happens"))


def event_line(at_s: float, kind: str, text: str) -> Text:
    """One line of the story."""
    return Text.assemble((f"{at_s:6.1f} s  ", "dim"), (text, EVENT_STYLES.get(kind, "")))


def summary(result: Result) -> RenderableType:
    """The end of the story in numbers."""
    table = Table(title="summary", show_header=False)
    table.add_column(style="bold")
    table.add_column()
    table.add_row("tokens", str(result.tokens))
    table.add_row("tokens/s", f"{result.tokens_per_s} (undisturbed: {result.undisturbed_tokens_per_s})")
    for change in result.reconfigurations:
        moved = f"{change.moved_bytes / 1e6:.2f} MB moved, {change.replayed_tokens} tokens replayed"
        table.add_row(f"epoch {change.epoch} {change.kind}", f"pause {change.pause_ms:.1f} ms, {moved}; {change.plan}")
    table.add_row("tokens lost", str(result.tokens_lost))
    table.add_row("identical to undisturbed", "yes" if result.identical else "NO")
    table.add_row("emulated", "; ".join(result.emulated))
    return table


def _answer(board: Board) -> Text:
    text = Text()
    for piece, epoch in board.answer:
        text.append(piece, EPOCH_COLOURS[epoch % len(EPOCH_COLOURS)])
    whole = text.plain
    # Only the end fits; the width of the panel is not known here, so about 55 columns are assumed.
    room = ANSWER_LINES * 55
    return text[len(whole) - room :] if len(whole) > room else text


def _nodes(board: Board) -> RenderableType:
    seen = board.snapshot
    if seen is None:
        return Text("no word from the platform yet")
    nodes = sorted((m for m in seen.members if m.role == control_plane_pb2.MEMBER_ROLE_NODE), key=lambda m: m.name)
    colour = {node.name: NODE_COLOURS[index % len(NODE_COLOURS)] for index, node in enumerate(nodes)}
    bar = Text()
    for stage in seen.plan.stages:
        bar.append("█" * (stage.layers.stop - stage.layers.start), colour.get(stage.node, "bright_black"))
    table = Table.grid(padding=(0, 2))
    for node in nodes:
        held = [f"[{s.layers.start}, {s.layers.stop})" for s in seen.plan.stages if s.node == node.name]
        table.add_row(
            Text(node.name, colour[node.name]),
            ", ".join(held) or "idle",
            f"{node.hardware.threads} thread{'s' if node.hardware.threads > 1 else ''}",
            f"{node.block_time_us:.0f} us/block",
        )
    gone = [stage.node for stage in seen.plan.stages if stage.node not in colour]
    for name in gone:
        table.add_row(Text(name, "bold red"), "GONE")
    return Group(Text(f"epoch {seen.plan.epoch}"), bar, table)


def _links(board: Board) -> RenderableType:
    if board.snapshot is None:
        return Text("")
    in_use = [stage.node for stage in board.snapshot.plan.stages]
    used = set(pairwise(in_use))
    table = Table.grid(padding=(0, 2))
    for member in sorted(board.snapshot.members, key=lambda m: m.name):
        for link in sorted(member.links, key=lambda each: each.peer):
            style = "bold" if (member.name, link.peer) in used else "dim"
            rate = f"{link.bytes_per_s / 1e6:.3g} MB/s" + (" emulated" if link.emulated else "")
            table.add_row(
                Text(f"{member.name} -> {link.peer}", style), Text(rate, style), f"{link.round_trip_ms:.2g} ms"
            )
    return table


def _events(board: Board) -> RenderableType:
    return Group(*(event_line(*event) for event in board.events[-EVENT_LINES:]))
