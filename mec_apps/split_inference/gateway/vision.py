"""Pictures of a request to rows of the language model: decoded here, prepared as the encoder's package says, then encoded.

Nothing is fetched: a picture comes with its request. Pillow decodes PNG and JPEG, and nothing else.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import importlib.util
import io
import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from mec_apps.split_inference.encoder_package import EncoderPackage
from mec_apps.split_inference.gateway.encodings import Encodings, Rows
from mec_apps.split_inference.model_package import PackageError

MAX_PIXELS = 16_000_000
"""Of a picture as it was sent; a small file can claim to be enormous."""

MAX_PICTURES = 8
"""In one request."""

_FORMATS = {"data:image/png;base64": "PNG", "data:image/jpeg;base64": "JPEG", "data:image/jpg;base64": "JPEG"}


class PictureError(Exception):
    """A picture that cannot be used; the message is for the client."""


@dataclass(frozen=True, slots=True)
class _Preparation:
    """What an encoder wants a picture to be: size in pixels, and per channel (value / 255 - mean) / deviation."""

    height: int
    width: int
    mean: tuple[float, ...]
    deviation: tuple[float, ...]


class Vision:
    """An encoder of pictures in front of a model of `width` floats a row.

    Raises:
        PackageError: the encoder takes no pictures, its rows do not fit, or Pillow is not installed.
    """

    def __init__(self, package: EncoderPackage, encodings: Encodings, width: int) -> None:
        self._preparation = _read_preparation(package)
        self._encodings = encodings
        shape = package.boundaries[-1]
        self.rows = math.prod(shape[:-1])
        """Rows that a picture takes in the prompt."""
        if shape[-1] != width:
            raise PackageError(
                f"the encoder {package.shape.name} makes rows of {shape[-1]} floats, the language model takes {width}; "
                "export it with a projector to that width"
            )
        if importlib.util.find_spec("PIL") is None:
            raise PackageError("pictures need Pillow; run: pip install 'mec-platform[vision]'")

    async def encode(self, url: str) -> Rows:
        """Rows [rows, width] of a picture given as a data URL.

        Raises:
            PictureError: no PNG or JPEG of a bounded size. NoPlan, Overloaded, GenerationFailed: see `generation`.
        """
        tensor = await asyncio.to_thread(_prepare, url, self._preparation)
        return await self._encodings.encode(tensor)


def _read_preparation(package: EncoderPackage) -> _Preparation:
    facts: dict[str, Any] = package.input
    try:
        if facts["kind"] != "image":
            raise ValueError(f"its input is {facts['kind']}")
        found = _Preparation(
            int(facts["height"]), int(facts["width"]), tuple(map(float, facts["mean"])), tuple(map(float, facts["std"]))
        )
        if (
            package.boundaries[0] != (1, 3, found.height, found.width)
            or len(found.mean) != 3
            or len(found.deviation) != 3
        ):
            raise ValueError("its input is not [1, 3, height, width]")
    except (KeyError, TypeError, ValueError) as error:
        raise PackageError(
            f"the encoder {package.shape.name} does not say how it takes pictures ({error}); export it with "
            "input={'kind': 'image', 'height': ..., 'width': ..., 'mean': [...], 'std': [...]}"
        ) from error
    return found


def _prepare(url: str, preparation: _Preparation) -> Rows:
    """float32 [1, 3, height, width]; bilinear, whatever the picture's own proportions are."""
    from PIL import Image, UnidentifiedImageError

    head, comma, content = url.partition(",")
    if not comma or head.lower() not in _FORMATS:
        raise PictureError("a picture must be a data URL: data:image/png;base64,... or data:image/jpeg;base64,...")
    try:
        data = base64.b64decode(content, validate=True)
        with Image.open(io.BytesIO(data), formats=("PNG", "JPEG")) as picture:
            if picture.width * picture.height > MAX_PIXELS:
                raise PictureError(
                    f"the picture has {picture.width} x {picture.height} pixels; at most {MAX_PIXELS} are taken"
                )
            size = (preparation.width, preparation.height)
            pixels = np.asarray(picture.convert("RGB").resize(size, Image.Resampling.BILINEAR), np.float32)
    except binascii.Error as error:
        raise PictureError("the picture's base64 is damaged") from error
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise PictureError("the picture is no PNG or JPEG that can be read") from error
    mean, deviation = (np.array(each, np.float32) for each in (preparation.mean, preparation.deviation))
    return np.ascontiguousarray(((pixels / 255 - mean) / deviation).transpose(2, 0, 1)[None])
