#!/bin/sh
# pi with everwarm at http://127.0.0.1:8642, as `everwarm launch pi --print` shows it.
# Tried with @mariozechner/pi-coding-agent 0.73.1 on 2026-11-24. Install: npm install -g @mariozechner/pi-coding-agent
folder=$(mktemp -d)
trap 'rm -r "$folder"' EXIT
cat > "$folder"/everwarm.ts <<'END'
export default function (pi: any) {
pi.registerProvider("everwarm", {
  "baseUrl": "http://127.0.0.1:8642/v1",
  "api": "openai-completions",
  "apiKey": "EVERWARM_API_KEY",
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
});
}
END
export EVERWARM_API_KEY=none
pi -e "$folder"/everwarm.ts --provider everwarm --model SmolLM2-135M-Instruct "$@"
