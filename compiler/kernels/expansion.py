"""Makes TVM expand inline functions at the speed that kernels of thousands of expansions need.

TVM describes every frame of the Python stack, source lines included, to find the parser that an inline function belongs
to, and parses the function's source anew for each use. Inside `quick_expansion` it looks at the frames alone, and keeps
what it has parsed; what comes out is the same.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

from tvm.script.parser.core.parser import ScriptMacro


@contextmanager
def quick_expansion() -> Iterator[None]:
    """Holds while kernels are parsed; not for several threads at once."""
    slow_parser, slow_definition = ScriptMacro._find_parser_def, ScriptMacro.get_macro_def
    ScriptMacro._find_parser_def = _find_parser
    ScriptMacro.get_macro_def = cache(slow_definition)
    try:
        yield
    finally:
        ScriptMacro._find_parser_def, ScriptMacro.get_macro_def = slow_parser, slow_definition


def _find_parser(macro: ScriptMacro) -> Any:
    frame = sys._getframe()
    while frame is not None:
        parser = frame.f_globals.get(ScriptMacro.parser_object_name)
        if parser is not None:
            return parser
        frame = frame.f_back
    raise RuntimeError("an inline function is expanded outside a kernel")
