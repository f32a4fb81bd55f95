"""Pictures and captions of one's own.

`sources` finds them, `images` reads the pictures, `captions` tokenises, `latents` goes through an autoencoder, `shards`
writes and streams the result, `prepare` does all of it, `command` is ``diffuse prepare``. `emoji` is a set of its own.
Nothing here imports Pillow, tokenizers, pyarrow or diffusers until it needs them.
"""

__all__: list[str] = []
