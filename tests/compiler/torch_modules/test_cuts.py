"""Where a module can be cut, which partitions share a function, and what is refused, each time by name."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from compiler.errors import ModelFileError
from compiler.torch_modules.cuts import Partition, partition
from compiler.torch_modules.lowering import import_partitions
from compiler.torch_modules.program import export_program
from tests.compiler.torch_modules.modules import MODULES


def cut(module: nn.Module, given: torch.Tensor, *points: str) -> tuple[Partition, ...]:
    return partition(export_program(module, given, "module", cut_points=points))


class _Skip(nn.Module):
    """One tensor goes round `second`."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.third = (nn.Linear(8, 8) for _ in range(3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        kept = self.first(x)
        return self.third(self.second(torch.relu(kept)) + kept)


class _Masked(nn.Module):
    """Both layers use a mask that no input decides."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(6, 6) for _ in range(2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        mask = torch.arange(6).lt(4).float()
        for layer in self.layers:
            x = layer(x) * mask
        return x


def test_cuts_lie_around_the_children_of_the_longest_list_by_default() -> None:
    names = {name: [each.name for each in cut(*make())] for name, make in MODULES.items()}
    assert names == {
        "vision": ["start", "blocks.0", "blocks.1", "blocks.2", "the rest"],
        "mixer": ["start", "1", "2", "3"],
        "audio": ["start", "front.1", "front.2", "front.3", "the rest"],
        "picture": ["start", "stem.1", "stem.2", "the rest"],
    }


def test_named_points_are_where_a_module_is_cut() -> None:
    pieces = cut(*MODULES["audio"](), "layers.1", "layers.0")
    assert [each.name for each in pieces] == ["start", "layers.0", "layers.1"]
    assert [each.input_shape for each in pieces] == [(1, 20, 64), (1, 32, 48), (1, 32, 48)]
    assert pieces[-1].output_shape == (1, 48)


def test_partitions_of_one_shape_have_one_structure_whatever_their_weights_are() -> None:
    start, first, second, third, rest = cut(*MODULES["vision"]())
    assert first.structure == second.structure == third.structure
    assert len({start.structure, first.structure, rest.structure}) == 3


def test_what_does_not_depend_on_the_input_is_made_where_it_is_used_and_crosses_no_cut() -> None:
    module, given = _Masked(), torch.randn(2, 6)
    pieces = cut(module, given, "layers.1")
    value = given
    for piece in pieces:
        value = piece.graph(value)
    assert torch.equal(value, module(given))


def test_a_cut_that_two_tensors_cross_names_the_cut_and_both() -> None:
    with pytest.raises(ModelFileError, match=r"at second: 2 tensors cross there \(linear \(2, 8\), relu \(2, 8\)\)"):
        cut(_Skip(), torch.randn(2, 8), "second")


def test_a_point_that_is_no_submodule_is_named_with_some_that_are() -> None:
    with pytest.raises(ModelFileError, match=r"no submodule fourth .* first, second, third"):
        cut(_Skip(), torch.randn(2, 8), "fourth")


def test_all_operators_that_cannot_be_compiled_are_named_in_one_message() -> None:
    class Odd(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.fft.rfft(torch.special.bessel_j0(x)).real + torch.lgamma(x[:, :5])

    program = export_program(Odd(), torch.randn(2, 8), "odd")
    with pytest.raises(ModelFileError, match=r"cannot be compiled: .*_fft_r2c.*lgamma.*special_bessel_j0"):
        import_partitions("odd", partition(program))


def test_a_module_whose_shape_depends_on_its_data_is_refused() -> None:
    class Selects(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x[x > 0]

    with pytest.raises(ModelFileError, match="depend on its data"):
        cut(Selects(), torch.randn(8))


def test_dynamic_shapes_are_refused() -> None:
    program = export_program(_Skip(), torch.randn(2, 8), "module")
    batch = torch.export.Dim("batch", min=2, max=9)
    exported = torch.export.export(_Skip(), (torch.randn(2, 8),), dynamic_shapes=({0: batch},))
    with pytest.raises(ModelFileError, match="dynamic shapes"):
        partition(type(program)("module", exported))


def test_a_module_that_is_no_function_of_one_float32_tensor_is_refused() -> None:
    class Two(nn.Module):
        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            return x, x + 1

    with pytest.raises(ModelFileError, match="returns 2"):
        cut(Two(), torch.randn(2))
    with pytest.raises(ModelFileError, match=r"the input is torch\.float64"):
        cut(nn.Linear(2, 2).double(), torch.randn(2, 2).double())
