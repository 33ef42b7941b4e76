"""Models on this computer: the default one, fetched once, and what lies in the home directory."""

from everwarm.models.default import DEFAULT_NAME, ensure_default, list_models

__all__ = ["DEFAULT_NAME", "ensure_default", "list_models"]
