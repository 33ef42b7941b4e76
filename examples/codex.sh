#!/bin/sh
# codex with everwarm at http://127.0.0.1:8642, as `everwarm launch codex --print` shows it.
# Tried with @openai/codex 0.169.0 on 2026-11-24. Install: npm install -g @openai/codex
export EVERWARM_API_KEY=none
codex -c 'model_providers.everwarm={name = "everwarm", base_url = "http://127.0.0.1:8642/v1", wire_api = "responses", env_key = "EVERWARM_API_KEY", stream_idle_timeout_ms = 3600000}' -c 'model_provider="everwarm"' -c 'model="SmolLM2-135M-Instruct"' -c model_context_window=8192 -c check_for_update_on_startup=false "$@"
