"""Configurations: frozen dataclasses that turn into JSON and back, take settings as text, and describe themselves.

The lowest layer: it knows nothing of what is configured, and needs no torch.
"""

from heirmark.configuration.describing import FieldHelp, describe_fields
from heirmark.configuration.encoding import JSON, canonical_json, from_json, qualified_name, to_json
from heirmark.configuration.setting import apply_settings

__all__ = [
    "JSON",
    "FieldHelp",
    "apply_settings",
    "canonical_json",
    "describe_fields",
    "from_json",
    "qualified_name",
    "to_json",
]
