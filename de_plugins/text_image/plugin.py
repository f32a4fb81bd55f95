"""Plugin "text_image": ``diffuse demo`` and ``diffuse scenes``. Light: nothing heavy is imported before one runs."""

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
        ),
        CommandInfo(
            name="scenes",
            target="de_plugins.text_image.scenes.command:Command",
            api_version=(1, 0),
            summary="pictures of coloured digits and sentences about them, learned jointly by a transformer",
        ),
    ]
