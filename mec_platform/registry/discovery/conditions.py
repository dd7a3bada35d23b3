"""Conditions of a query, evaluated by CEL (https://cel.dev): the only place that knows the package.

`grammar` says what a condition may be and why that bounds its cost; a program sees the values of the names that the
condition uses and nothing else.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

import cel

from mec_platform.domain.capabilities import Kpis
from mec_platform.domain.locality import Locality
from mec_platform.domain.services import ServiceInfo
from mec_platform.registry.discovery.environment import Read, Scalar
from mec_platform.registry.discovery.grammar import check_condition

MOST_PROGRAMS = 256
"""Compiled conditions that are kept; consumers ask the same few again and again."""

WORK_OF_A_CALL = 10
"""What an evaluation costs beside its tokens, in tokens: about 2 us, at about 0.2 us for each."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a condition does not hold for a service: it is false, or lacks the value `missing`, or fails of `problem`."""

    missing: str = ""
    problem: str = ""


FALSE = Refusal()


@dataclass(frozen=True, slots=True)
class CompiledCondition:
    """Made by `compile_condition`. `work` grows with the time that one evaluation takes; a token counts one."""

    work: int
    _program: cel.Program
    _reads: tuple[tuple[str, Read], ...]
    _shown: Mapping[str, str]

    def refusal(self, service: ServiceInfo, kpis: Kpis | None, consumer: Locality) -> Refusal | None:
        """None where the condition holds. `kpis` None: there are none that count."""
        values: dict[str, Scalar] = {}
        missing = []
        for variable, read in self._reads:
            value = read(service, kpis, consumer)
            if value is None:
                missing.append(variable)
            else:
                values[variable] = value
        try:
            return None if self._program.execute(values) else FALSE
        except ArithmeticError as error:
            return Refusal(problem=str(error))
        except RuntimeError as error:
            # CEL's || and && do without a value where the other side decides; this one was needed.
            needed = [variable for variable in missing if f"'{variable}'" in str(error)]
            if not needed:
                raise
            return Refusal(missing=self._shown[needed[0]])


@lru_cache(maxsize=MOST_PROGRAMS)
def compile_condition(text: str) -> CompiledCondition:
    """The condition, ready to be asked; the most recent ones are kept.

    Raises:
        ConditionError: it is no condition; the message says what is wrong and which names exist.
    """
    checked = check_condition(text)
    reads = tuple((variable, name.read) for variable, name in checked.uses.items())
    return CompiledCondition(checked.work + WORK_OF_A_CALL, cel.compile(checked.text), reads, checked.shown)
