#!/bin/sh
# qwen with everwarm at http://127.0.0.1:8642, as `everwarm launch qwen --print` shows it.
# Tried with @qwen-code/qwen-code 0.24.4 on 2026-11-24. Install: npm install -g @qwen-code/qwen-code
folder=$(mktemp -d)
trap 'rm -r "$folder"' EXIT
cat > "$folder"/defaults.json <<'END'
{
  "general": {
    "enableAutoUpdate": false
  },
  "model": {
    "generationConfig": {
      "contextWindowSize": 8192
    }
  }
}
END
export OPENAI_BASE_URL=http://127.0.0.1:8642/v1
export OPENAI_API_KEY=none
export OPENAI_MODEL=SmolLM2-135M-Instruct
export QWEN_CODE_SYSTEM_DEFAULTS_PATH="$folder"/defaults.json
export QWEN_CODE_API_TIMEOUT_MS=0
export QWEN_STREAM_IDLE_TIMEOUT_MS=0
export QWEN_STREAM_MAX_LIFETIME_MS=0
qwen --auth-type openai --model SmolLM2-135M-Instruct "$@"
