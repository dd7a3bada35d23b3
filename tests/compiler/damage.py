"""What tests of damaged files ask: that a model file is read whole, or refused with a ModelFileError."""

from __future__ import annotations

from collections.abc import Callable

from compiler.errors import ModelFileError
from compiler.models.model_file import ModelFile
from compiler.models.tensors import tensor_names


def reason_of_refusal(open_model: Callable[[], ModelFile]) -> str:
    """Opens a model and reads everything in it; the message of the refusal, empty where there is none."""
    try:
        model = open_model()
        for name in tensor_names(model.spec):
            model.values(name)
        model.read_tokenizer()
    except ModelFileError as error:
        return str(error)
    return ""
