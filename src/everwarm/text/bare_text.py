"""A chat template without a tokenizer: all that is needed to derive how its model writes.

Not here: tokens. `TextCodec` is the codec of a model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from everwarm.text.template import ChatTemplate
from everwarm.text.template_bounds import RenderLimits


class TemplateText:
    """The part of a codec that a template alone has (`codec.Writing`).

    `specials`: texts of control tokens. `ends`: texts of tokens that end a turn.
    """

    def __init__(
        self,
        template: str,
        specials: Sequence[str] = (),
        ends: Sequence[str] = ("</s>",),
        limits: RenderLimits | None = None,
    ) -> None:
        self.template_text = template
        self.special_texts = tuple(specials)
        self.eos_ids = frozenset(range(len(ends)))
        self.think_markers: tuple[str, str] | None = None
        self.tool_markers: tuple[str, str] | None = None
        self.tool_format: str | None = None
        self._ends = ends
        names = {"bos_token": "<s>", "eos_token": "</s>"}
        self._template = ChatTemplate(template, names, limits)

    def decode(self, ids: Sequence[int]) -> str:
        return "".join(self._ends[i] for i in ids)

    def render(
        self,
        messages: Sequence[Mapping[str, Any]],
        tools: Sequence[Mapping[str, Any]] | None,
        *,
        scaffold: bool,
        args: Mapping[str, Any],
        now: datetime | None = None,
    ) -> str:
        return self._template.render(
            messages, tools, scaffold=scaffold, args=args, now=now or datetime.now()
        )
