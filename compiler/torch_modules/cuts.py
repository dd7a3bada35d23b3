"""Cuts an exported graph into partitions: a chain of functions of one tensor, each with its own weights.

A cut point is the path of a submodule; the cut lies in front of the first operator that belongs to it. What does not
depend on the input (a mask, position numbers) is computed by every partition that uses it and crosses no cut.
Partitions that differ in nothing but the values of their weights share one function, as decoder blocks do.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx
from torch.export.graph_signature import InputKind

from compiler.errors import ModelFileError
from compiler.torch_modules.program import TorchProgram

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Partition:
    """One piece of the chain: `graph(activations)` with its tensors as attributes `w0`, `w1` ... in `weights`' order.

    `structure` is equal for partitions that one compiled function serves; `name` tells people where it begins.
    """

    name: str
    graph: fx.GraphModule
    weights: tuple[torch.Tensor, ...]
    input_shape: Shape
    output_shape: Shape
    structure: str


def partition(program: TorchProgram) -> tuple[Partition, ...]:
    """The partitions of a program, cut at its cut points; without any, in front of and behind the children of the
    longest nn.ModuleList or nn.Sequential between whose children one tensor passes.

    Raises:
        ModelFileError: a module that is no function of one float32 tensor with fixed shapes; a cut point that names no
            submodule, or that more or less than one tensor crosses.
    """
    source = _Source(program)
    starts = source.cuts(program.cut_points)
    bounds = [0, *(position for _, position in starts), len(source.nodes)]
    names = ["start", *(name for name, _ in starts)]
    incoming = source.input
    pieces = []
    for index, name in enumerate(names):
        nodes = source.nodes[bounds[index] : bounds[index + 1]]
        last = index + 1 == len(names)
        outgoing = source.output if last else source.crossing(starts[index][0], bounds[index + 1])
        pieces.append(source.piece(name, nodes, incoming, outgoing))
        incoming = outgoing
    return tuple(pieces)


class _Source:
    """The exported graph, checked: `nodes` are the operators that depend on the input, in order."""

    def __init__(self, program: TorchProgram) -> None:
        self._name = program.name
        exported = program.exported
        signature = exported.graph_signature
        if exported.range_constraints:
            raise ModelFileError(
                f"'{self._name}' has dynamic shapes, or some that depend on its data; export it for one fixed shape"
            )
        if signature.buffers_to_mutate or signature.user_inputs_to_mutate:
            raise ModelFileError(f"'{self._name}' changes its own buffers or inputs; export it in eval mode")
        placeholders = [node for node in exported.graph.nodes if node.op == "placeholder"]
        tensors = {**exported.state_dict, **exported.constants}
        self._tensors: dict[fx.Node, torch.Tensor] = {}
        inputs = []
        for node, spec in zip(placeholders, signature.input_specs, strict=True):
            if spec.kind is InputKind.USER_INPUT:
                inputs.append(node)
            else:
                self._tensors[node] = tensors[str(spec.target)].detach()
        (returned,) = (node.args[0] for node in exported.graph.nodes if node.op == "output")
        outputs = [each for each in _flatten(returned) if isinstance(each, fx.Node)]
        if len(inputs) != 1 or len(outputs) != 1:
            raise ModelFileError(
                f"'{self._name}' takes {len(inputs)} tensors and returns {len(outputs)}; one of each is needed"
            )
        self.input, self.output = inputs[0], outputs[0]
        self._check_float32(self.input, "input")
        self._check_float32(self.output, "output")
        if any(node.op == "get_attr" for node in exported.graph.nodes):
            raise ModelFileError(f"'{self._name}' branches or loops inside its graph; export it without control flow")
        calls = [node for node in exported.graph.nodes if node.op == "call_function"]
        dependent = {self.input}
        for node in calls:
            if dependent & set(node.all_input_nodes):
                dependent.add(node)
        self.nodes = [node for node in calls if node in dependent]
        self._order = {node: index for index, node in enumerate(exported.graph.nodes)}
        for node in self.nodes:
            if not _is_fixed(node):
                raise ModelFileError(
                    f"'{self._name}': {node.target} has a shape that depends on data; only fixed shapes can be compiled"
                )

    def cuts(self, points: Sequence[str]) -> list[tuple[str, int]]:
        """(module path, index in `nodes`) of every cut, in order."""
        first: dict[str, int] = {}
        behind: dict[str, int] = {}
        for index, node in enumerate(self.nodes):
            for path in _paths(node):
                first.setdefault(path, index)
                behind[path] = index + 1
        if not points:
            starts = next(filter(self._can_cut, _lists(first, behind)), [])
        else:
            unknown = [point for point in points if point not in first]
            if unknown:
                known = ", ".join(sorted(path for path in first if path)[:12])
                raise ModelFileError(
                    f"'{self._name}' has no submodule {', '.join(unknown)} to be cut at; some that it has: {known}"
                )
            starts = [(point, first[point]) for point in points]
        # A cut in front of the first operator, or behind the last, would make an empty partition.
        inside = {index: path for path, index in reversed(starts) if 0 < index < len(self.nodes)}
        return [(inside[index], index) for index in sorted(inside)]

    def _can_cut(self, starts: Sequence[tuple[str, int]]) -> bool:
        """Whether every one of the cuts passes one tensor."""
        try:
            for path, index in starts:
                self.crossing(path, index)
        except ModelFileError:
            return False
        return True

    def crossing(self, cut: str, position: int) -> fx.Node:
        """The one tensor that goes over a cut."""
        after = set(self.nodes[position:])
        before = [self.input, *self.nodes[:position]]
        over = [node for node in before if node is self.output or any(user in after for user in node.users)]
        if len(over) != 1:
            what = ", ".join(f"{node.name} {_shape(node)}" for node in over) or "nothing"
            raise ModelFileError(
                f"'{self._name}' cannot be cut at {cut}: {len(over)} tensors cross there ({what}); "
                "a cut must pass exactly one, choose another point"
            )
        self._check_float32(over[0], f"tensor that crosses the cut at {cut}")
        return over[0]

    def piece(self, name: str, nodes: Sequence[fx.Node], incoming: fx.Node, outgoing: fx.Node) -> Partition:
        """The graph of `nodes`, with what they need that does not depend on the input."""
        wanted = self._with_constants(nodes)
        graph, copies = fx.Graph(), {}
        copies[incoming] = graph.placeholder("x")
        weights: list[torch.Tensor] = []
        described: list[str] = []
        for node in wanted:
            if node in self._tensors:
                tensor = self._tensors[node]
                copies[node] = graph.get_attr(f"w{len(weights)}")
                weights.append(tensor)
                described.append(f"weight {tensor.dtype} {tuple(tensor.shape)}")
            else:
                copies[node] = graph.node_copy(node, lambda each: copies[each])
                described.append(_describe(copies[node], copies))
        graph.output(copies[outgoing])
        root = torch.nn.Module()
        for index, tensor in enumerate(weights):
            root.register_parameter(f"w{index}", torch.nn.Parameter(tensor, requires_grad=False))
        described += [f"in {_shape(incoming)}", f"out {_shape(outgoing)} {list(copies).index(outgoing)}"]
        return Partition(
            name=name,
            graph=fx.GraphModule(root, graph),
            weights=tuple(weights),
            input_shape=_shape(incoming),
            output_shape=_shape(outgoing),
            structure=hashlib.sha256("\n".join(described).encode()).hexdigest(),
        )

    def _with_constants(self, nodes: Sequence[fx.Node]) -> list[fx.Node]:
        """`nodes` and everything behind them that the input has no part in, in the graph's order."""
        inside, waiting = set(nodes), list(nodes)
        dependent = {self.input, *self.nodes}
        while waiting:
            for needed in waiting.pop().all_input_nodes:
                if needed not in inside and needed not in dependent:
                    inside.add(needed)
                    waiting.append(needed)
        return sorted(inside, key=self._order.__getitem__)

    def _check_float32(self, node: fx.Node, what: str) -> None:
        value = node.meta["val"]
        if not isinstance(value, torch.Tensor) or value.dtype is not torch.float32:
            kind = value.dtype if isinstance(value, torch.Tensor) else type(value).__name__
            raise ModelFileError(f"'{self._name}': the {what} is {kind}; it has to be a float32 tensor")


def _paths(node: fx.Node) -> list[str]:
    """Paths of the submodules that an operator belongs to, outermost first."""
    return [path for path, _ in (node.meta.get("nn_module_stack") or {}).values()]


def _lists(first: Mapping[str, int], behind: Mapping[str, int]) -> list[list[tuple[str, int]]]:
    """Cuts around the numbered children of each submodule that has any, the submodule with most children first."""
    lists: dict[str, list[str]] = {}
    for path in sorted(first, key=first.__getitem__):
        parent, _, child = path.rpartition(".")
        if child.isdigit():
            lists.setdefault(parent, []).append(path)
    longest_first = sorted(lists.values(), key=len, reverse=True)
    return [[*((path, first[path]) for path in paths), ("the rest", behind[paths[-1]])] for paths in longest_first]


def _flatten(value: Any) -> list[Any]:
    return [each for part in value for each in _flatten(part)] if isinstance(value, (tuple, list)) else [value]


def _is_fixed(node: fx.Node) -> bool:
    values = _flatten(node.meta.get("val"))
    return all(
        not isinstance(value, (torch.SymInt, torch.SymFloat, torch.SymBool))
        and (not isinstance(value, torch.Tensor) or all(isinstance(size, int) for size in value.shape))
        for value in values
    )


def _shape(node: fx.Node) -> Shape:
    return tuple(int(size) for size in node.meta["val"].shape)


def _describe(node: fx.Node, copies: Mapping[fx.Node, fx.Node]) -> str:
    """An operator with its arguments, in words that are equal for equal structures."""
    numbers = {copy: index for index, copy in enumerate(copies.values())}
    arguments = fx.node.map_arg((node.args, node.kwargs), lambda each: _Operand(numbers[each]))
    return f"{node.target} {arguments}"


@dataclass(frozen=True)
class _Operand:
    number: int
