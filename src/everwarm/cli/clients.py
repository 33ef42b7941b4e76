"""How each agent is configured to talk to this server: pure values, made for one running server.

Nothing here is written to a person's own files. A client gets variables, flags and, where it takes
neither, files in a directory that exists only while it runs. What a client remembers of its own
conversations stays where it always is, so that they can be resumed.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

HOUR_MS: Final = 3_600_000
"""How long a client should wait for a long prefill, where it can be told."""
STICKY: Final = {"X-Everwarm-Sticky-Reminders": "true"}
"""For a client that later takes its reminders off the ends of old messages."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """The server and its model, as a client needs to know them. `model` has no slash."""

    url: str
    model: str
    context_length: int
    has_reasoning: bool = True
    key: str = "none"

    @property
    def v1(self) -> str:
        return f"{self.url}/v1"

    @property
    def max_output(self) -> int:
        """Most clients want a number; a quarter of the context leaves room for the rest."""
        return max(1, min(32_768, self.context_length // 4))


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """What a client is started with.

    `defaults`: variables that yield to a person's own. `unset`: variables that would win over ours.
    """

    args: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    defaults: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)
    unset: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Client:
    """One agent. `setup` gets the server and the directory in which the files will be.

    `version` is the one that this was made for; `tried`: the day on which it went through
    `tests/clients/live.py`, started like this, empty if it has not yet. `alone`: the arguments that
    it gets where a person gives none. `note`: what a person should know of it.
    """

    command: str
    package: str
    version: str
    setup: Callable[[Served, str], Setup]
    tried: str = ""
    alone: tuple[str, ...] = ()
    note: str = ""

    @property
    def install(self) -> str:
        """The command that installs it."""
        way = "pipx install" if self.package.startswith("aider") else "npm install -g"
        return f"{way} {self.package}"


def _json(value: object) -> str:
    return json.dumps(value, indent=2) + "\n"


def _priced(at: Served) -> dict[str, Any]:
    """A model as OpenClaw and pi describe it."""
    return {
        "id": at.model,
        "name": at.model,
        "reasoning": at.has_reasoning,
        "input": ["text"],
        "cost": {"input": 0, "output": 0, "cacheRead": 0, "cacheWrite": 0},
        "contextWindow": at.context_length,
        "maxTokens": at.max_output,
    }


def _opencode(at: Served, folder: str) -> Setup:
    limit = {"context": at.context_length, "output": at.max_output}
    model = {"reasoning": at.has_reasoning, "tool_call": True, "limit": limit}
    provider = {
        "npm": "@ai-sdk/openai-compatible",
        "name": "everwarm",
        "options": {
            "baseURL": at.v1,
            "apiKey": at.key,
            "timeout": False,
            "headerTimeout": False,
            "chunkTimeout": HOUR_MS,
            "headers": STICKY,  # plan mode and back: its notice moves from message to message
        },
        "models": {at.model: model},
    }
    config = {
        "model": f"everwarm/{at.model}",
        "small_model": f"everwarm/{at.model}",
        "autoupdate": False,
        "share": "disabled",
        "provider": {"everwarm": provider},
    }
    env = {"OPENCODE_CONFIG": f"{folder}/opencode.json", "OPENCODE_DISABLE_MODELS_FETCH": "1"}
    return Setup(env=env, files={"opencode.json": _json(config)})


def _openclaw(at: Served, folder: str) -> Setup:
    provider = {
        "baseUrl": at.v1,
        "apiKey": at.key,
        "api": "openai-completions",
        "timeoutSeconds": HOUR_MS // 1000,
        "models": [_priced(at)],
    }
    config = {
        "models": {"mode": "merge", "providers": {"everwarm": provider}},
        "agents": {"defaults": {"model": {"primary": f"everwarm/{at.model}"}}},
    }
    return Setup(
        env={"OPENCLAW_CONFIG_PATH": f"{folder}/openclaw.json"},
        # Else its state is beside the configuration, and the system prompt names that folder, which
        # is another at each start.
        defaults={"OPENCLAW_STATE_DIR": "~/.openclaw"},
        files={"openclaw.json": _json(config)},
    )


def _claude(at: Served, folder: str) -> Setup:
    names = ["", "_DEFAULT_OPUS", "_DEFAULT_SONNET", "_DEFAULT_HAIKU"]
    env = {f"ANTHROPIC{n}_MODEL": at.model for n in names} | {
        "ANTHROPIC_BASE_URL": at.url,
        "ANTHROPIC_AUTH_TOKEN": at.key,
        "CLAUDE_CODE_SUBAGENT_MODEL": at.model,
        # A block that differs from session to session at the very start of the prompt.
        "CLAUDE_CODE_ATTRIBUTION_HEADER": "0",
        "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
        # It takes an unknown model's window for a million tokens.
        "CLAUDE_CODE_AUTO_COMPACT_WINDOW": str(at.context_length),
        "API_TIMEOUT_MS": str(HOUR_MS),
        "CLAUDE_STREAM_IDLE_TIMEOUT_MS": str(HOUR_MS // 2),  # it takes no more
    }
    return Setup(env=env, unset=("ANTHROPIC_API_KEY",))


def _codex(at: Served, folder: str) -> Setup:
    provider = {
        "name": "everwarm",
        "base_url": at.v1,
        "wire_api": "responses",
        "env_key": "EVERWARM_API_KEY",
        "stream_idle_timeout_ms": HOUR_MS,
    }
    table = ", ".join(f"{k} = {json.dumps(v)}" for k, v in provider.items())
    settings = [
        f"model_providers.everwarm={{{table}}}",
        'model_provider="everwarm"',
        f"model={json.dumps(at.model)}",
        f"model_context_window={at.context_length}",
        "check_for_update_on_startup=false",
    ]
    args = [a for s in settings for a in ("-c", s)]
    return Setup(args=tuple(args), env={"EVERWARM_API_KEY": at.key})


def _pi(at: Served, folder: str) -> Setup:
    provider = {
        "baseUrl": at.v1,
        "api": "openai-completions",
        "apiKey": "EVERWARM_API_KEY",
        "models": [_priced(at)],
    }
    call = f'pi.registerProvider("everwarm", {json.dumps(provider, indent=2)});'
    return Setup(
        args=("-e", f"{folder}/everwarm.ts", "--provider", "everwarm", "--model", at.model),
        env={"EVERWARM_API_KEY": at.key},
        files={"everwarm.ts": f"export default function (pi: any) {{\n{call}\n}}\n"},
    )


def _qwen(at: Served, folder: str) -> Setup:
    config = {
        "general": {"enableAutoUpdate": False},
        "model": {"generationConfig": {"contextWindowSize": at.context_length}},
    }
    env = {
        "OPENAI_BASE_URL": at.v1,
        "OPENAI_API_KEY": at.key,
        "OPENAI_MODEL": at.model,
        # Defaults: a person's own settings go before them.
        "QWEN_CODE_SYSTEM_DEFAULTS_PATH": f"{folder}/defaults.json",
        "QWEN_CODE_API_TIMEOUT_MS": "0",
        "QWEN_STREAM_IDLE_TIMEOUT_MS": "0",
        "QWEN_STREAM_MAX_LIFETIME_MS": "0",
    }
    args = ("--auth-type", "openai", "--model", at.model)
    return Setup(args=args, env=env, files={"defaults.json": _json(config)})


def _cline(at: Served, folder: str) -> Setup:
    provider = {
        "provider": "openai-compatible",
        "apiKey": at.key,
        "model": at.model,
        "baseUrl": at.v1,
    }
    saved = {"settings": provider, "updatedAt": "2026-11-24T00:00:00.000Z", "tokenSource": "manual"}
    config = {
        "version": 1,
        "lastUsedProvider": "openai-compatible",
        "modes": {},
        "providers": {"openai-compatible": saved},
    }
    return Setup(
        args=("-P", "openai-compatible", "-m", at.model),
        env={"CLINE_PROVIDER_SETTINGS_PATH": f"{folder}/providers.json"},
        files={"providers.json": _json(config)},
    )


def _continue(at: Served, folder: str) -> Setup:
    limits = {"contextLength": at.context_length, "maxTokens": at.max_output}
    model = {
        "name": at.model,
        "provider": "openai",
        "model": at.model,
        "apiBase": at.v1,
        "apiKey": at.key,
        "roles": ["chat", "edit", "apply"],
        "capabilities": ["tool_use"],
        "defaultCompletionOptions": limits,
    }
    config = {"name": "everwarm", "version": "1.0.0", "schema": "v1", "models": [model]}
    return Setup(
        args=("--config", f"{folder}/config.yaml"),
        files={"config.yaml": _json(config)},  # JSON is YAML
    )


def _aider(at: Served, folder: str) -> Setup:
    about = {
        "max_input_tokens": at.context_length,
        "max_output_tokens": at.max_output,
        "input_cost_per_token": 0,
        "output_cost_per_token": 0,
        "litellm_provider": "openai",
        "mode": "chat",
    }
    return Setup(
        args=(
            *("--model", f"openai/{at.model}"),
            *("--model-metadata-file", f"{folder}/model.json"),
            *("--timeout", str(HOUR_MS // 1000)),
            "--no-show-model-warnings",
        ),
        env={"OPENAI_API_BASE": at.v1, "OPENAI_API_KEY": at.key},
        files={"model.json": _json({f"openai/{at.model}": about})},
    )


_TRIED: Final = "2026-11-24"
_OPENCLAW: Final = (
    "Your own openclaw.json, with its channels, is not read meanwhile. Its state stays in "
    "~/.openclaw, or where OPENCLAW_STATE_DIR says; name a profile's there."
)
_NO_SWITCH: Final = "Its editor extension takes no configuration from outside. There, enter"
_CLINE: Final = (
    f"{_NO_SWITCH} provider 'OpenAI Compatible' with the base URL, key and model of providers.json."
)
_CONTINUE: Final = f"{_NO_SWITCH} the model of config.yaml in your own config.yaml."
CLIENTS: Final = {
    "opencode": Client("opencode", "opencode-ai", "1.18.33", _opencode, _TRIED),
    "openclaw": Client(
        "openclaw", "openclaw", "2026.9.6", _openclaw, _TRIED, alone=("chat",), note=_OPENCLAW
    ),
    "claude": Client("claude", "@anthropic-ai/claude-code", "2.1.330", _claude, _TRIED),
    "codex": Client("codex", "@openai/codex", "0.169.0", _codex, _TRIED),
    "pi": Client("pi", "@mariozechner/pi-coding-agent", "0.73.1", _pi, _TRIED),
    "qwen": Client("qwen", "@qwen-code/qwen-code", "0.24.4", _qwen, _TRIED),
    "cline": Client("cline", "cline", "3.0.65", _cline, _TRIED, note=_CLINE),
    "continue": Client("cn", "@continuedev/cli", "1.5.47", _continue, _TRIED, note=_CONTINUE),
    "aider": Client("aider", "aider-chat", "0.86.2", _aider, _TRIED),
}
