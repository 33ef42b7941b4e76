#!/bin/sh
# openclaw with everwarm at http://127.0.0.1:8642, as `everwarm launch openclaw --print` shows it.
# Tried with openclaw 2026.9.6 on 2026-11-24. Install: npm install -g openclaw
# Your own openclaw.json, with its channels, is not read meanwhile. Its state stays in ~/.openclaw, or where OPENCLAW_STATE_DIR says; name a profile's there.
folder=$(mktemp -d)
trap 'rm -r "$folder"' EXIT
cat > "$folder"/openclaw.json <<'END'
{
  "models": {
    "mode": "merge",
    "providers": {
      "everwarm": {
        "baseUrl": "http://127.0.0.1:8642/v1",
        "apiKey": "none",
        "api": "openai-completions",
        "timeoutSeconds": 3600,
        "models": [
          {
            "id": "SmolLM2-135M-Instruct",
            "name": "SmolLM2-135M-Instruct",
            "reasoning": false,
            "input": [
              "text"
            ],
            "cost": {
              "input": 0,
              "output": 0,
              "cacheRead": 0,
              "cacheWrite": 0
            },
            "contextWindow": 8192,
            "maxTokens": 2048
          }
        ]
      }
    }
  },
  "agents": {
    "defaults": {
      "model": {
        "primary": "everwarm/SmolLM2-135M-Instruct"
      }
    }
  }
}
END
export OPENCLAW_STATE_DIR="${OPENCLAW_STATE_DIR:-~/.openclaw}"
export OPENCLAW_CONFIG_PATH="$folder"/openclaw.json
openclaw "$@"
