"""Plugin "tabular": commands, codec and backbones of tables. Light: the targets are imported on first use."""

from de_core.hookspecs import BackboneInfo, CodecInfo, CommandInfo, MetricInfo, hookimpl

__all__ = ["de_backbones", "de_codecs", "de_commands", "de_metrics"]

_COMMANDS = {
    "fit": "learn a table",
    "sample": "draw rows from a fitted table",
    "impute": "fill the missing cells of a table",
    "evaluate": "judge a synthetic table beside the real one",
    "data": "write a known data set as a file",
}
_METRICS = {  # of a training table and a synthetic table; see metrics/named.py
    "shape": "likeness of single columns",
    "trend": "likeness of pairs of columns, as published",
    "trend-real-bins": "the same with the real table's bins",
    "trend-ranks": "the same with deciles and rank correlation",
    "k-way-3": "total variation of three columns at a time",
}


@hookimpl
def de_commands() -> list[CommandInfo]:
    return [
        CommandInfo(name, f"de_plugins.tabular.commands.{name}:{name.capitalize()}", summary=summary)
        for name, summary in _COMMANDS.items()
    ]


@hookimpl
def de_codecs() -> list[CodecInfo]:
    return [
        CodecInfo(
            "table",
            "de_plugins.tabular.codec:TableCodec",
            summary="a table as classes, normal numbers and shares, and back to its dtypes",
        )
    ]


@hookimpl
def de_backbones() -> list[BackboneInfo]:
    return [
        BackboneInfo(
            "table-mlp",
            "de_plugins.tabular.backbone:TableMLP",
            summary="a fused gated residual MLP over all columns of a table",
        ),
        BackboneInfo(
            "table-dit",
            "de_plugins.tabular.dit:TableDiT",
            summary="the authors' diffusion transformer, a token a column",
        ),
    ]


@hookimpl
def de_metrics() -> list[MetricInfo]:
    named = "de_plugins.tabular.metrics.named:"
    return [
        *(
            MetricInfo(f"table-{name}", named + name.replace("-", "_"), summary=summary, capabilities={"table"})
            for name, summary in _METRICS.items()
        ),
        MetricInfo("table-two-sample", f"{named}two_sample", summary="AUC of a classifier, real against synthetic"),
    ]
