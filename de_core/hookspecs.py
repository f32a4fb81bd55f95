"""What a plugin author imports: the hooks, the ``hookimpl`` mark, and the descriptions that the hooks return.

A plugin is a light module named by an entry point of the group ``diffuse_everything.plugins``. It describes
what it offers and imports nothing heavy; the class behind a description is imported when it is asked for::

    from de_core.hookspecs import ModalityInfo, hookimpl

    @hookimpl
    def de_modalities():
        return [ModalityInfo("torus", "de_torus.torus:Torus", summary="angles on a flat torus")]
"""

from __future__ import annotations

import re
from typing import Any, ClassVar

import attrs
import pluggy

from de_core.errors import DiffuseError

__all__ = [
    "API_VERSION",
    "HOOKS",
    "BackboneInfo",
    "CodecInfo",
    "CommandInfo",
    "ComponentInfo",
    "MetricInfo",
    "ModalityInfo",
    "hookimpl",
    "hookspec",
]

API_VERSION = (1, 0)
"""(major, minor) of the plugin interface. A plugin needs the same major, and a minor not above this one."""

PROJECT = "diffuse_everything"
hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)

_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9_.-]*[A-Za-z0-9])?")
_TARGET = re.compile(r"[^\W\d]\w*(?:\.[^\W\d]\w*)*:[^\W\d]\w*(?:\.[^\W\d]\w*)*")


def _check_name(info: ComponentInfo, _: Any, value: object) -> None:
    if not isinstance(value, str) or not _NAME.fullmatch(value):
        raise DiffuseError(
            f"{type(info).__name__}: expected a name of letters, digits, '_', '.' and '-', got {value!r}"
        )


def _check_target(info: ComponentInfo, _: Any, value: object) -> None:
    if not isinstance(value, str) or not _TARGET.fullmatch(value):
        raise DiffuseError(f"{info.kind} {info.name!r}: expected a target 'package.module:Name', got {value!r}")


def _check_api_version(info: ComponentInfo, _: Any, value: object) -> None:
    if not (isinstance(value, tuple) and len(value) == 2 and all(type(part) is int for part in value)):
        raise DiffuseError(
            f"{info.kind} {info.name!r}: expected api_version as two integers (major, minor), got {value!r}"
        )


def _check_summary(info: ComponentInfo, _: Any, value: object) -> None:
    if not isinstance(value, str) or not value.isprintable():
        raise DiffuseError(f"{info.kind} {info.name!r}: expected summary as one printable line, got {value!r}")


def _check_capabilities(info: ComponentInfo, _: Any, value: object) -> None:
    if not (isinstance(value, frozenset) and all(isinstance(item, str) for item in value)):
        raise DiffuseError(f"{info.kind} {info.name!r}: expected capabilities as a frozenset of strings, got {value!r}")


def _as_frozenset(value: Any) -> Any:
    return frozenset(value) if isinstance(value, set | list | tuple) else value


@attrs.frozen
class ComponentInfo:
    """A description of one thing that a plugin offers; nothing is imported until the thing is asked for.

    The kinds below add no field, so attrs does not build them anew: each would cost a millisecond at import.

    Args:
        name: the bare name that users write; letters, digits, ``_``, ``.`` and ``-``.
        target: where the thing is, ``"package.module:Name"``.
        api_version: the (major, minor) of the plugin interface that it was written for.
        summary: one line for ``diffuse plugins`` and ``diffuse --help``.
        capabilities: what the thing can do (see ``Modality.capabilities``).

    Raises:
        DiffuseError: a field has another form than this.
    """

    kind: ClassVar[str] = "component"
    name: str = attrs.field(validator=_check_name)
    target: str = attrs.field(validator=_check_target)
    api_version: tuple[int, int] = attrs.field(default=(1, 0), validator=_check_api_version)
    summary: str = attrs.field(default="", validator=_check_summary)
    capabilities: frozenset[str] = attrs.field(
        default=frozenset(), converter=_as_frozenset, validator=_check_capabilities
    )


class ModalityInfo(ComponentInfo):
    """A modality: the target is a subclass of ``de_core.modality.Modality``."""

    __slots__ = ()
    kind = "modality"


class CodecInfo(ComponentInfo):
    """A codec: the target turns a person's data into tensors and back."""

    __slots__ = ()
    kind = "codec"


class BackboneInfo(ComponentInfo):
    """A backbone: the target is a network class."""

    __slots__ = ()
    kind = "backbone"


class MetricInfo(ComponentInfo):
    """A metric: the target is a function of real and generated data."""

    __slots__ = ()
    kind = "metric"


class CommandInfo(ComponentInfo):
    """A sub-command of ``diffuse``: the target has ``add_arguments(parser)`` and ``run(args) -> int``."""

    __slots__ = ()
    kind = "command"


class HookSpecs:
    """The hooks. Each returns a list of descriptions; none is called in a training loop."""

    @hookspec
    def de_modalities(self) -> list[ModalityInfo]:
        """The modalities that the plugin offers."""
        ...

    @hookspec
    def de_codecs(self) -> list[CodecInfo]:
        """The codecs that the plugin offers."""
        ...

    @hookspec
    def de_backbones(self) -> list[BackboneInfo]:
        """The backbones that the plugin offers."""
        ...

    @hookspec
    def de_metrics(self) -> list[MetricInfo]:
        """The metrics that the plugin offers."""
        ...

    @hookspec
    def de_commands(self) -> list[CommandInfo]:
        """The sub-commands of ``diffuse`` that the plugin offers."""
        ...


HOOKS: dict[str, type[ComponentInfo]] = {
    "de_modalities": ModalityInfo,
    "de_codecs": CodecInfo,
    "de_backbones": BackboneInfo,
    "de_metrics": MetricInfo,
    "de_commands": CommandInfo,
}
"""Which description each hook returns."""
