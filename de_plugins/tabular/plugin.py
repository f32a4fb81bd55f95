"""Plugin "tabular": the commands for tables and the default backbone. Light: the targets are imported on first use."""

from de_core.hookspecs import BackboneInfo, CommandInfo, hookimpl

__all__ = ["de_backbones", "de_commands"]

_COMMANDS = {
    "fit": "learn a table",
    "sample": "draw rows from a fitted table",
    "impute": "fill the missing cells of a table",
    "evaluate": "judge a synthetic table beside the real one",
    "data": "write a known data set as a file",
}


@hookimpl
def de_commands() -> list[CommandInfo]:
    return [
        CommandInfo(name, f"de_plugins.tabular.commands.{name}:{name.capitalize()}", summary=summary)
        for name, summary in _COMMANDS.items()
    ]


@hookimpl
def de_backbones() -> list[BackboneInfo]:
    return [
        BackboneInfo(
            "table-mlp",
            "de_plugins.tabular.backbone:TableMLP",
            summary="a fused gated residual MLP over all columns of a table",
        )
    ]
