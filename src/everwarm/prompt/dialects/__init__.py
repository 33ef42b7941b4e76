"""How model families write reasoning and tool calls. `families.of` finds a model's dialect."""
