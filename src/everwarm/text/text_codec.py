"""Text and tokens of one model: its tokenizer, its notation and its template."""

from __future__ import annotations

import copy
import hashlib
import json
import threading
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from functools import partial
from typing import Any

import jinja2

from everwarm.errors import ConfigError, EngineError, RequestError
from everwarm.text.notation import Notation, has_own_renderer
from everwarm.text.template import ChatTemplate, constants, refused
from everwarm.text.tokenizer import Tokenizer

_ENDS = {
    "<|return|>": "<|channel|>",
    "<|call|>": "<|channel|>",
    "<|eom_id|>": "<|eot_id|>",
    "<|eot_id|>": "<|start_header_id|>",
    "<|tool_response>": "<|tool_call>",
}
"""Tokens that end a turn in a vocabulary that also has the other: not every config says so."""


class _WindowDetokenizer:
    """Decodes a short window; what ends in an unfinished character waits for the next token."""

    def __init__(self, codec: TextCodec) -> None:
        self._codec = codec
        self._ids: list[int] = []
        self._read = 0
        self._prefix = 0

    def add(self, token: int) -> str:
        self._ids.append(token)
        return self._take(final=False)

    def finish(self) -> str:
        return self._take(final=True)

    def _take(self, *, final: bool) -> str:
        before = self._codec.decode(self._ids[self._prefix : self._read])
        now = self._codec.decode(self._ids[self._prefix :])
        if len(now) <= len(before) or (now.endswith("\ufffd") and not final):
            return ""
        self._prefix, self._read = self._read, len(self._ids)
        return now[len(before) :]


class TextCodec:
    """Implements `codec.Codec`. One lock guards the template; nothing else waits for it."""

    def __init__(self, tokenizer: Any, notation: Notation) -> None:
        self._notation, self._tokenizer = notation, tokenizer
        self._lock = threading.Lock()
        self._fingerprint = ""
        self._templates: dict[str, ChatTemplate] = {}
        # Templates that are Python code: mlx-lm's own, or a tokenizer class's own method.
        self._custom: bool = notation.render is not None or has_own_renderer(tokenizer)
        source = tokenizer.chat_template
        texts = source.values() if isinstance(source, dict) else [source]
        self.template_text = "" if self._custom else "\n".join(t for t in texts if t)
        self.think_markers = notation.think_markers
        self.tool_markers = notation.tool_markers
        self.tool_format = notation.tool_format
        markers = (*(self.think_markers or ()), *(self.tool_markers or ()))
        self._ids = Tokenizer(tokenizer, self.template_text, markers)
        self.special_texts = self._ids.special_texts
        self.control_texts = self._ids.control_texts
        ends = [t for t, beside in _ENDS.items() if {t, beside} <= set(self.special_texts)]
        own_ends = {i for t in ends for i in self.encode(t)}
        self.eos_ids: frozenset[int] = notation.eos_ids | own_ends
        added = self._tokenizer.added_tokens_decoder.values()
        plain = all(not (t.lstrip or t.rstrip or t.normalized) for t in added)
        self.splits_at_specials: bool = plain and all(map(self._splits, self.special_texts))

    @property
    def fingerprint(self) -> str:
        """What tokens and templates of this model depend on, hashed."""
        if not self._fingerprint:
            backend = getattr(self._tokenizer, "backend_tokenizer", None)
            spelled = backend.to_str() if backend else json.dumps(self._tokenizer.get_vocab())
            parts = [spelled, json.dumps(self._tokenizer.chat_template, default=str)]
            self._fingerprint = hashlib.blake2b(
                "\0".join(parts).encode(), digest_size=16
            ).hexdigest()
        return self._fingerprint

    def _splits(self, special: str) -> bool:
        probes = (("a", "b"), ("a ", " b"), ("\n", "\n"), ("é", "1"), (special, special))
        return all(
            self.encode(left + special + right) == self.encode(left) + self.encode(special + right)
            for left, right in probes
        )

    @property
    def longest_token(self) -> int:
        return self._ids.longest_token

    @property
    def template_constants(self) -> frozenset[str]:
        return constants(self.template_text)

    def encode(self, text: str) -> list[int]:
        return self._ids.encode(text)

    def encode_around(self, text: str, controls: Sequence[tuple[int, int]]) -> list[int]:
        return self._ids.encode_around(text, controls)

    def decode(self, ids: Sequence[int]) -> str:
        return self._ids.decode(ids)

    def detokenizer(self) -> _WindowDetokenizer:
        return _WindowDetokenizer(self)

    def render(
        self,
        messages: Sequence[Mapping[str, Any]],
        tools: Sequence[Mapping[str, Any]] | None,
        *,
        scaffold: bool,
        args: Mapping[str, Any],
        now: datetime | None = None,
    ) -> str:
        with self._lock:
            source = None if self._custom else self._source(bool(tools))
            if source is None:
                return self._custom_render(messages, tools, scaffold=scaffold, args=args)
            return self._template(source).render(
                messages,
                tools,
                scaffold=scaffold,
                args=self._with_thinking(args),
                now=now or datetime.now(),
            )

    def check_template(self, where: str) -> None:
        """Raise ConfigError where the template cannot run at all; `where`: its directory."""
        source = self._tokenizer.chat_template
        texts = source.values() if isinstance(source, dict) else [source]
        if self._custom:
            return
        try:
            for text in texts:
                if isinstance(text, str):
                    self._template(text)
            self.render([{"role": "user", "content": "hello"}], None, scaffold=True, args={})
        except jinja2.TemplateSyntaxError as e:
            raise ConfigError(
                f"The chat template in {where} has an error in line {e.lineno}: {e.message}. "
                "Correct it in chat_template.jinja or tokenizer_config.json."
            ) from e
        except (EngineError, RecursionError) as e:
            raise ConfigError(f"The chat template in {where} cannot be used. {e}") from e
        except RequestError:
            pass  # it may want other messages than these

    def _template(self, source: str) -> ChatTemplate:
        """Compiled, once."""
        if source not in self._templates:
            made = ChatTemplate(source, self._tokenizer.special_tokens_map)
            self._templates[source] = made
        return self._templates[source]

    def _source(self, has_tools: bool) -> str | None:
        """The template's text; some models have one of their own for tools."""
        found = self._tokenizer.chat_template
        if isinstance(found, dict):
            name = "tool_use" if has_tools and "tool_use" in found else "default"
            found = found.get(name)
        return found if isinstance(found, str) else None

    def _with_thinking(self, args: Mapping[str, Any]) -> dict[str, Any]:
        """As mlx-lm calls templates: thinking is on where the model has it, unless refused."""
        given, key = dict(args), self._notation.thinking_argument
        if key != "enable_thinking" and "enable_thinking" in given:
            given[key] = given.pop("enable_thinking")
        return {key: self.think_markers is not None} | given

    def _custom_render(
        self,
        messages: Sequence[Mapping[str, Any]],
        tools: Sequence[Mapping[str, Any]] | None,
        *,
        scaffold: bool,
        args: Mapping[str, Any],
    ) -> str:
        """A template that is Python code, which may write into what it is given."""
        try:
            text = self._renderer()(
                copy.deepcopy([dict(m) for m in messages]),
                tools=copy.deepcopy(list(tools)) if tools else None,
                add_generation_prompt=scaffold,
                **self._with_thinking(args),
            )
        except (ValueError, TypeError, KeyError, AttributeError) as e:
            raise refused(e) from e
        return str(text)

    def _renderer(self) -> Callable[..., Any]:
        if self._notation.render is not None:
            return self._notation.render
        return partial(self._tokenizer.apply_chat_template, tokenize=False, return_dict=False)

    def parse_calls(
        self, text: str, tools: Sequence[Mapping[str, Any]] | None
    ) -> list[dict[str, Any]]:
        if self._notation.tool_parser is None:
            raise ValueError("This model has no tool call format.")
        try:
            found = self._notation.tool_parser(text, list(tools) if tools else None)
        except (KeyError, TypeError, AttributeError, IndexError, SyntaxError) as e:
            raise ValueError(f"no tool call: {e}") from e
        calls = found if isinstance(found, list) else [found]
        if not all(isinstance(c, dict) and "name" in c for c in calls):
            raise ValueError(f"no tool call: {json.dumps(calls, default=str)[:80]}")
        return calls
