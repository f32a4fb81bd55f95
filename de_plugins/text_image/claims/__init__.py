"""What is claimed of the method, asked of models of scenes.

`front` decides between families of trade-offs, `guidance` measures a grid of guidances, `arms` trains two ways at equal
cost, `figures` draws, `command` is ``diffuse claims``.
"""

__all__: list[str] = []
