#!/bin/sh
# continue with everwarm at http://127.0.0.1:8642, as `everwarm launch continue --print` shows it.
# Tried with @continuedev/cli 1.5.47 on 2026-11-24. Install: npm install -g @continuedev/cli
# Its editor extension takes no configuration from outside. There, enter the model of config.yaml in your own config.yaml.
folder=$(mktemp -d)
trap 'rm -r "$folder"' EXIT
cat > "$folder"/config.yaml <<'END'
{
  "name": "everwarm",
  "version": "1.0.0",
  "schema": "v1",
  "models": [
    {
      "name": "SmolLM2-135M-Instruct",
      "provider": "openai",
      "model": "SmolLM2-135M-Instruct",
      "apiBase": "http://127.0.0.1:8642/v1",
      "apiKey": "none",
      "roles": [
        "chat",
        "edit",
        "apply"
      ],
      "capabilities": [
        "tool_use"
      ],
      "defaultCompletionOptions": {
        "contextLength": 8192,
        "maxTokens": 2048
      }
    }
  ]
}
END
cn --config "$folder"/config.yaml "$@"
