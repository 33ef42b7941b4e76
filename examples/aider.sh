#!/bin/sh
# aider with everwarm at http://127.0.0.1:8642, as `everwarm launch aider --print` shows it.
# Tried with aider-chat 0.86.2 on 2026-11-24. Install: pipx install aider-chat
folder=$(mktemp -d)
trap 'rm -r "$folder"' EXIT
cat > "$folder"/model.json <<'END'
{
  "openai/SmolLM2-135M-Instruct": {
    "max_input_tokens": 8192,
    "max_output_tokens": 2048,
    "input_cost_per_token": 0,
    "output_cost_per_token": 0,
    "litellm_provider": "openai",
    "mode": "chat"
  }
}
END
export OPENAI_API_BASE=http://127.0.0.1:8642/v1
export OPENAI_API_KEY=none
aider --model openai/SmolLM2-135M-Instruct --model-metadata-file "$folder"/model.json --timeout 3600 --no-show-model-warnings "$@"
