"""The old place of `de_plugins.tabular.evaluation`; goes when nothing imports it.

Importing it first hides the function `de_plugins.tabular.evaluate` behind this module: Python binds the name of a
submodule in its package.
"""

from de_plugins.tabular.evaluation import Report, evaluate

__all__ = ["Report", "evaluate"]
