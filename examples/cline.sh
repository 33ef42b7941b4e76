#!/bin/sh
# cline with everwarm at http://127.0.0.1:8642, as `everwarm launch cline --print` shows it.
# Tried with cline 3.0.65 on 2026-11-24. Install: npm install -g cline
# Its editor extension takes no configuration from outside. There, enter provider 'OpenAI Compatible' with the base URL, key and model of providers.json.
folder=$(mktemp -d)
trap 'rm -r "$folder"' EXIT
cat > "$folder"/providers.json <<'END'
{
  "version": 1,
  "lastUsedProvider": "openai-compatible",
  "modes": {},
  "providers": {
    "openai-compatible": {
      "settings": {
        "provider": "openai-compatible",
        "apiKey": "none",
        "model": "SmolLM2-135M-Instruct",
        "baseUrl": "http://127.0.0.1:8642/v1"
      },
      "updatedAt": "2026-11-24T00:00:00.000Z",
      "tokenSource": "manual"
    }
  }
}
END
export CLINE_PROVIDER_SETTINGS_PATH="$folder"/providers.json
cline -P openai-compatible -m SmolLM2-135M-Instruct "$@"
