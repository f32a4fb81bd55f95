"""The sub-commands of ``diffuse`` for tables, one a file."""

__all__: list[str] = []
