"""Give a model that has no reasoning marks for it, so that reasoning can be dictated to it.

Two control tokens that neither the chat template nor the tokenizer's own roles use are spelled
<think> and </think>. The weights are the same files; ids stay as they are.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

from everwarm.errors import ConfigError

MARKS: Final = ("<think>", "</think>")
RESPELLED: Final = (
    "This model has no marks for reasoning. For this run two control tokens that it does not use "
    "are spelled <think> and </think>; the weights are untouched."
)


def with_reasoning(model: str, into: Path) -> tuple[str, bool]:
    """The model as it is where it can reason, else a directory in `into` that shares its weights.

    Says whether it was respelled. Raises ConfigError where a model has no control tokens to spare.
    """
    source = Path(model).expanduser()
    file = source / "tokenizer.json"
    if not file.is_file():
        return model, False  # a Hugging Face id: whoever names one has a model that reasons
    tokenizer = json.loads(file.read_text(encoding="utf-8"))
    added = tokenizer.get("added_tokens", [])
    if {t["content"] for t in added} >= set(MARKS):
        return model, False
    about = json.loads((source / "tokenizer_config.json").read_text(encoding="utf-8"))
    spare = _spare(added, _used(source, about))
    if len(spare) < len(MARKS):
        raise ConfigError(
            f"{source.name} has no reasoning, and no two control tokens to spare for its marks."
        )
    return str(_respelled(source, into / source.resolve().name, tokenizer, spare)), True


def _used(source: Path, about: dict[str, Any]) -> str:
    """Everything that may name a control token."""
    files = [p for p in (source / "chat_template.jinja",) if p.is_file()]
    files += source.glob("*generation_config.json")
    return json.dumps(about) + "".join(p.read_text(encoding="utf-8") for p in files)


def _spare(added: list[dict[str, Any]], used: str) -> list[str]:
    """Control tokens that nothing names, the last two of them, opening mark first."""
    free = [t["content"] for t in added if t.get("special") and t["content"] not in used]
    return free[-len(MARKS) :]


def _respelled(source: Path, to: Path, tokenizer: dict[str, Any], spare: list[str]) -> Path:
    names = dict(zip(spare, MARKS, strict=True))
    for token in tokenizer["added_tokens"]:
        token["content"] = names.get(token["content"], token["content"])
    vocabulary = tokenizer["model"]["vocab"]
    for old, new in names.items():
        if old in vocabulary:
            vocabulary[new] = vocabulary.pop(old)
    to.mkdir(parents=True)
    for path in source.resolve().iterdir():
        if path.name != "tokenizer.json":
            (to / path.name).symlink_to(path.resolve())
    (to / "tokenizer.json").write_text(json.dumps(tokenizer), encoding="utf-8")
    return to
