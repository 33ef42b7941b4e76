"""Starts, watches and restarts the process of an engine. No MLX here."""
