#!/bin/sh
# claude with everwarm at http://127.0.0.1:8642, as `everwarm launch claude --print` shows it.
# Tried with @anthropic-ai/claude-code 2.1.330 on 2026-11-24. Install: npm install -g @anthropic-ai/claude-code
unset ANTHROPIC_API_KEY
export ANTHROPIC_MODEL=SmolLM2-135M-Instruct
export ANTHROPIC_DEFAULT_OPUS_MODEL=SmolLM2-135M-Instruct
export ANTHROPIC_DEFAULT_SONNET_MODEL=SmolLM2-135M-Instruct
export ANTHROPIC_DEFAULT_HAIKU_MODEL=SmolLM2-135M-Instruct
export ANTHROPIC_BASE_URL=http://127.0.0.1:8642
export ANTHROPIC_AUTH_TOKEN=none
export CLAUDE_CODE_SUBAGENT_MODEL=SmolLM2-135M-Instruct
export CLAUDE_CODE_ATTRIBUTION_HEADER=0
export CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC=1
export CLAUDE_CODE_AUTO_COMPACT_WINDOW=8192
export API_TIMEOUT_MS=3600000
export CLAUDE_STREAM_IDLE_TIMEOUT_MS=1800000
claude "$@"
