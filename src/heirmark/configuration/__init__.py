"""Configurations: frozen dataclasses that check and describe themselves, turn into JSON and back, and take settings as text.

The lowest layer: it knows nothing of what is configured, and needs no torch.
"""

from heirmark.configuration.checking import checked
from heirmark.configuration.constraints import (
    Constraint,
    above,
    at_least,
    at_most,
    below,
    distinct,
    not_empty,
    within,
)
from heirmark.configuration.describing import FieldHelp, describe_fields
from heirmark.configuration.encoding import JSON, canonical_json, from_json, qualified_name, to_json
from heirmark.configuration.registry import OneOf, Registry
from heirmark.configuration.setting import apply_settings

__all__ = [
    "JSON",
    "Constraint",
    "FieldHelp",
    "OneOf",
    "Registry",
    "above",
    "apply_settings",
    "at_least",
    "at_most",
    "below",
    "canonical_json",
    "checked",
    "describe_fields",
    "distinct",
    "from_json",
    "not_empty",
    "qualified_name",
    "to_json",
    "within",
]
