"""Reads the tokenizer of a Hugging Face model folder: tokenizer.json and the small files beside it.

tokenizer.json says how text is cut and which tokens are special. BOS and EOS are what tokenizer_config.json calls them,
else special_tokens_map.json; generation_config.json and config.json add EOS ids (some models have several). The chat
template is chat_template.jinja, else tokenizer_config.json's, where a list of named ones stands for its "default".
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from compiler.errors import ModelFileError
from compiler.models.tokenizer import ModelTokenizer, complete_tokenizer

_DEFAULT_TEMPLATE = "default"


def tokenizer_from_folder(folder: Path) -> ModelTokenizer:
    """The tokenizer of the model in `folder`.

    Raises:
        ModelFileError: no tokenizer.json, a damaged file, a tokenizer that is not BPE, or a BOS or EOS token that is
            not in the vocabulary.
    """
    names = _Names(_read_tokenizer(folder / "tokenizer.json"), folder)
    config = _read_json(folder / "tokenizer_config.json")
    stated = _read_json(folder / "special_tokens_map.json") | config
    model = _read_json(folder / "config.json")
    generation = _read_json(folder / "generation_config.json")
    bos_ids = names.ids(stated["bos_token"] if "bos_token" in stated else model.get("bos_token_id"))
    eot_ids = names.ids(stated.get("eot_token"))
    end_ids = [
        *names.ids(stated.get("eos_token")),
        *names.ids(generation.get("eos_token_id")),
        *names.ids(model.get("eos_token_id")),
    ]
    writes_bos = bool(set(bos_ids) & set(names.tokenizer.encode("").ids))
    return complete_tokenizer(
        names.tokenizer,
        bos_id=next(iter(bos_ids), None),
        end_ids=tuple(dict.fromkeys(end_ids)),
        eot_id=next(iter(eot_ids), None),
        add_bos=bool(config.get("add_bos_token", writes_bos)),
        chat_template=_read_template(folder, config),
    )


class _Names:
    """The vocabulary, asked for the ids that the small files mean."""

    def __init__(self, tokenizer: Tokenizer, folder: Path) -> None:
        self.tokenizer = tokenizer
        self._folder = folder

    def ids(self, meant: object) -> list[int]:
        """The ids of a token's text, an `AddedToken` object, an id, a list of these, or nothing."""
        if meant is None:
            return []
        if isinstance(meant, list):
            return [token for one in meant for token in self.ids(one)]
        text = meant.get("content") if isinstance(meant, dict) else meant
        token = self.tokenizer.token_to_id(text) if isinstance(text, str) else text
        if not isinstance(token, int) or self.tokenizer.id_to_token(token) is None:
            raise ModelFileError(
                f"'{self._folder}' names the special token {text!r}, which its tokenizer.json lacks; download it again"
            )
        return [token]


def _read_tokenizer(path: Path) -> Tokenizer:
    if not path.is_file():
        raise ModelFileError(
            f"'{path.parent}' has no tokenizer.json; save the model's fast tokenizer there "
            "(a tokenizer.model alone is not read)"
        )
    model = _read_json(path).get("model")
    if isinstance(model, dict) and model.get("type", "BPE") != "BPE":
        raise ModelFileError(
            f"'{path}' is a {model['type']} tokenizer; only BPE, as Llama-like models use it, is supported"
        )
    try:
        return Tokenizer.from_file(str(path))
    except Exception as error:
        reason = " ".join(str(error).split())[:200]
        raise ModelFileError(f"'{path}' is not a readable tokenizer ({reason}); download it again") from error


def _read_json(path: Path) -> dict[str, Any]:
    """A file's object; empty where there is no such file."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise ModelFileError(f"'{path}' cannot be read ({error}); download it again") from error
    if not isinstance(document, dict):
        raise ModelFileError(f"'{path}' holds no JSON object; download it again")
    return document


def _read_template(folder: Path, config: dict[str, Any]) -> str:
    path = folder / "chat_template.jinja"
    if path.is_file():
        return path.read_text(encoding="utf-8")
    stated = config.get("chat_template") or ""
    if isinstance(stated, list):
        named = {entry.get("name"): entry.get("template") for entry in stated}
        stated = named.get(_DEFAULT_TEMPLATE) or ""
    return str(stated)
