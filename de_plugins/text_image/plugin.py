"""Plugin "text_image": ``diffuse demo``, ``prepare``, ``scenes``. Light: nothing heavy is imported before one runs."""

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
            name="prepare",
            target="de_plugins.text_image.data.command:Command",
            api_version=(1, 0),
            summary="pictures with captions of your own as shards of pixels or latents and tokens, to train on",
        ),
        CommandInfo(
            name="scenes",
            target="de_plugins.text_image.scenes.command:Command",
            api_version=(1, 0),
            summary="pictures of coloured digits and sentences about them, learned jointly by a transformer",
        ),
    ]
