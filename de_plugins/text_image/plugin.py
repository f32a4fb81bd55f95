"""Plugin "text_image": its commands. Light: nothing heavy is imported before one of them runs."""

from de_core.hookspecs import CommandInfo, hookimpl

__all__ = ["de_commands"]


@hookimpl
def de_commands() -> list[CommandInfo]:
    return [
        CommandInfo(
            name="claims",
            target="de_plugins.text_image.claims.command:Command",
            api_version=(1, 0),
            summary="noisy against classifier-free guidance, stages, clocks, weights: what is claimed, on scenes",
        ),
        CommandInfo(
            name="demo",
            target="de_plugins.text_image.digits.command:Command",
            api_version=(1, 0),
            summary="joint generation on embedded handwritten digits; writes pictures and an HTML report",
        ),
        CommandInfo(
            name="emoji",
            target="de_plugins.text_image.emoji_command:Command",
            api_version=(1, 0),
            summary="1,911 named pictures, drawn by name",
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
        CommandInfo(
            name="train",
            target="de_plugins.text_image.train_command:Command",
            api_version=(1, 0),
            summary="a transformer on shards of pictures and captions, as a TOML file says, on one process or many",
        ),
    ]
