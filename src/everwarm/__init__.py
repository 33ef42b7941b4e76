"""everwarm: a local LLM server on MLX whose conversations never go cold."""

__version__ = "0.2.0"
