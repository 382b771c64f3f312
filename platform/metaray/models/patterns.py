"""Patterns by which fields name parts of a network."""

from typing import Annotated, Any

from pydantic import BeforeValidator, Field


def _one_or_more(value: Any) -> Any:
    """A pattern alone is the only one."""
    return (value,) if isinstance(value, str) else value


Patterns = Annotated[tuple[Annotated[str, Field(min_length=1)], ...], BeforeValidator(_one_or_more)]
"""Patterns of `fnmatch`, such as `head.*` and `*.lora_*`; one alone may stand without brackets."""
SomePatterns = Annotated[Patterns, Field(min_length=1)]
"""Patterns of which there is one or more."""
