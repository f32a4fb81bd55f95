"""Scenes: one or two real handwritten digits on a colour canvas, each with a place and a colour, and a sentence.

`world` says what a scene is and draws it, `grammar` writes and reads its captions, `judge` reads pictures, `metrics`
compares, `model` has the process and its stages, `command` is ``diffuse scenes``.
"""

__all__: list[str] = []
