"""The tokenizer of a model, whatever format it came in: one value with all that a package says of text.

Two functions make it. Each raises ModelFileError, one line that says what to do:

    tokenizer_gguf.tokenizer_from_gguf(facts: TokenizerFacts) -> ModelTokenizer      a GGUF file
    tokenizer_folder.tokenizer_from_folder(folder: Path) -> ModelTokenizer           a Hugging Face folder

Both read the vocabulary only, so call them before the weights are packed. A package keeps `tokenizer` (`save`; the BOS
token is part of it), `special_tokens`, the ids, `stop_ids` and `chat_template`; a gateway needs nothing else.
"""

from __future__ import annotations

from dataclasses import dataclass

from tokenizers import AddedToken, Tokenizer, processors

# What published models call the token after which the other side speaks, or nobody does.
END_TOKENS = (
    "<|eot_id|>",
    "<|im_end|>",
    "<|end|>",
    "<end_of_turn>",
    "<|eom_id|>",
    "<|endoftext|>",
    "<|end_of_text|>",
    "<｜end▁of▁sentence｜>",
    "<end_of_utterance>",
)


@dataclass(frozen=True, slots=True)
class ModelTokenizer:
    """What turns text into a model's tokens and back; ids that the model does not have are None.

    `special_tokens` are the control tokens by their text. `stop_ids` end an answer: every end-of-sequence id the model
    names, its end-of-turn id, and what is known by name to be one, in ascending order. `eos_id` is the first that the
    model names. `add_bos` says whether a sequence begins with `bos_id`; `tokenizer` then writes it, unless told not to
    add special tokens. An empty `chat_template` means the model has none.
    """

    tokenizer: Tokenizer
    special_tokens: dict[str, int]
    bos_id: int | None
    eos_id: int | None
    eot_id: int | None
    stop_ids: tuple[int, ...]
    add_bos: bool
    chat_template: str

    @property
    def size(self) -> int:
        """One more than the highest id; the embedding must have at least as many rows."""
        return max(self.tokenizer.get_vocab(with_added_tokens=True).values()) + 1


def complete_tokenizer(
    tokenizer: Tokenizer,
    *,
    bos_id: int | None,
    end_ids: tuple[int, ...],
    eot_id: int | None,
    add_bos: bool,
    chat_template: str,
) -> ModelTokenizer:
    """Collects the control tokens and stop ids, and has `tokenizer` write BOS or not; it changes `tokenizer`.

    BOS, the first end-of-sequence token and the end-of-turn token are control tokens even if nothing marks them so.
    `end_ids` are the end-of-sequence ids the model names, its first one first. No end-of-sequence token is ever added:
    a prompt that ends so has nothing to be answered.
    """
    eos_id = next(iter(end_ids), None)
    marked = _special_tokens(tokenizer).values()
    unmarked = {token for token in (bos_id, eos_id, eot_id) if token is not None}.difference(marked)
    tokenizer.add_special_tokens(
        [AddedToken(tokenizer.id_to_token(token), special=True, normalized=False) for token in sorted(unmarked)]
    )
    special = _special_tokens(tokenizer)
    known = [special[name] for name in END_TOKENS if name in special]
    eot_id = eot_id if eot_id is not None else next(iter(known), None)
    tokenizer.post_processor = None
    if add_bos and bos_id is not None:
        bos = tokenizer.id_to_token(bos_id)
        tokenizer.post_processor = processors.TemplateProcessing(single=[bos, "$A"], special_tokens=[(bos, bos_id)])
    return ModelTokenizer(
        tokenizer=tokenizer,
        special_tokens=special,
        bos_id=bos_id,
        eos_id=eos_id,
        eot_id=eot_id,
        stop_ids=tuple(sorted({*end_ids, *known, *([] if eot_id is None else [eot_id])})),
        add_bos=add_bos and bos_id is not None,
        chat_template=chat_template,
    )


def _special_tokens(tokenizer: Tokenizer) -> dict[str, int]:
    added = sorted(tokenizer.get_added_tokens_decoder().items())
    return {entry.content: token for token, entry in added if entry.special}
