#!/bin/sh
# opencode with everwarm at http://127.0.0.1:8642, as `everwarm launch opencode --print` shows it.
# Tried with opencode-ai 1.18.33 on 2026-11-24. Install: npm install -g opencode-ai
folder=$(mktemp -d)
trap 'rm -r "$folder"' EXIT
cat > "$folder"/opencode.json <<'END'
{
  "model": "everwarm/SmolLM2-135M-Instruct",
  "small_model": "everwarm/SmolLM2-135M-Instruct",
  "autoupdate": false,
  "share": "disabled",
  "provider": {
    "everwarm": {
      "npm": "@ai-sdk/openai-compatible",
      "name": "everwarm",
      "options": {
        "baseURL": "http://127.0.0.1:8642/v1",
        "apiKey": "none",
        "timeout": false,
        "headerTimeout": false,
        "chunkTimeout": 3600000,
        "headers": {
          "X-Everwarm-Sticky-Reminders": "true"
        }
      },
      "models": {
        "SmolLM2-135M-Instruct": {
          "reasoning": false,
          "tool_call": true,
          "limit": {
            "context": 8192,
            "output": 2048
          }
        }
      }
    }
  }
}
END
export OPENCODE_CONFIG="$folder"/opencode.json
export OPENCODE_DISABLE_MODELS_FETCH=1
opencode "$@"
