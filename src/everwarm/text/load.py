"""Load the text side of a model: all that is known of it without its weights, and without MLX."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from transformers import AutoTokenizer

from everwarm.errors import ConfigError, EverwarmError
from everwarm.job import ModelInfo
from everwarm.models.found import FoundModel, find, unloadable
from everwarm.text.newlines import register_tokenizers
from everwarm.text.notation import Notation, tool_parser_of
from everwarm.text.text_codec import TextCodec
from everwarm.text.upstream import text_module

_DEFAULTS: Final[dict[str, dict[str, Any]]] = {
    "muse_spark": {
        "chat_template_type": "muse_spark",
        "tool_parser_type": "muse_spark",
        "eos_token_ids": [200001, 200008],
    }
}
"""What mlx-lm's model modules say of tokenizers whose files do not (`TOKENIZER_DEFAULTS`)."""


@dataclass(frozen=True, slots=True)
class TextSide:
    """A model as the front knows it. `tokenizer`: what transformers loaded, for grammars.

    `info.nbytes` counts the weights in the files; an engine knows what they take once loaded.
    """

    codec: TextCodec
    info: ModelInfo
    directory: Path
    tokenizer: Any


def load_text(path_or_id: str, *, model_id: str | None, context_length: int | None) -> TextSide:
    """Load a directory's text side, or a Hugging Face id's, which is fetched where it is not here.

    Raises ConfigError with one sentence saying what to do.
    """
    return text_of(find(path_or_id, model_id=model_id, context_length=context_length))


def text_of(found: FoundModel) -> TextSide:
    """Load the text side of a model. Takes seconds: the first call imports transformers.

    Raises ConfigError with one sentence saying what to do.
    """
    try:
        return _load(found)
    except EverwarmError:
        raise
    # A tokenizer's files are foreign data: loaders raise anything.
    except Exception as e:
        raise unloadable(str(found.directory), e) from e


def _load(found: FoundModel) -> TextSide:
    directory, info = found.directory, found.info
    register_tokenizers()
    # Code that comes with a model is never run; without the argument we would be asked on stdin.
    tokenizer: Any = AutoTokenizer.from_pretrained(directory, trust_remote_code=False)
    codec = TextCodec(tokenizer, notation_of(tokenizer, found.config))
    _check_vocabulary(tokenizer, info.vocab_size, directory)
    codec.check_template(str(directory))
    info = replace(info, vocab_size=info.vocab_size or len(tokenizer))
    return TextSide(codec, info, directory, tokenizer)


def notation_of(tokenizer: Any, config: dict[str, Any]) -> Notation:
    """How the model writes, by its tokenizer and its config (`read_config`)."""
    defaults = _DEFAULTS.get(str(config.get("model_type")), {})
    settings = tokenizer.init_kwargs
    eos = config.get("eos_token_id")
    eos = defaults.get("eos_token_ids") if eos is None else eos
    kind = settings.get("chat_template_type") or defaults.get("chat_template_type")
    render = None
    if kind and ("chat_template_type" in settings or tokenizer.chat_template is None):
        module = text_module("chat_templates", kind)
        render = module.apply_chat_template if module else None
    parser = settings.get("tool_parser_type", defaults.get("tool_parser_type"))
    return Notation.of(
        tokenizer,
        eos_ids=[eos] if isinstance(eos, int) else eos or (),
        tool_parser=tool_parser_of(tokenizer) if parser is None else parser,
        render=render,
    )


def _check_vocabulary(tokenizer: Any, n_rows: int, directory: Path) -> None:
    """Raise ConfigError where words of the tokenizer have no row among the embeddings.

    Added tokens may have none: some text models keep the name of a token for images.
    """
    added = set(tokenizer.added_tokens_decoder)
    highest = max((i for i in tokenizer.get_vocab().values() if i not in added), default=0)
    if n_rows and highest >= n_rows:
        raise ConfigError(
            f"The tokenizer in {directory} is another model's: it has ids up to {highest:,}, and "
            f"config.json says vocab_size {n_rows:,}. Fetch the model again."
        )
