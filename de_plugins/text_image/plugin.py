"""Plugin "text_image": the ``diffuse demo`` command. Light: nothing heavy is imported before it runs."""

from de_core.hookspecs import CommandInfo, hookimpl

__all__ = ["de_commands"]


@hookimpl
def de_commands() -> list[CommandInfo]:
    return [
        CommandInfo(
            name="demo",
            target="de_plugins.text_image.digits.command:Command",
            api_version=(1, 0),
            summary="joint generation on embedded handwritten digits; writes pictures and an HTML report",
        )
    ]
