"""The two errors of the framework: the call or the data is wrong, or a plugin is."""

__all__ = ["DiffuseError", "PluginError"]


class DiffuseError(ValueError):
    """The call or the data is wrong. One plain sentence: the thing, what was expected, what came."""


class PluginError(RuntimeError):
    """A plugin is broken, incompatible, blocked or ambiguous. `__cause__` is its own error, where there is one."""
