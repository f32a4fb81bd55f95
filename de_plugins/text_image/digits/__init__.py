"""The demo's data set: handwritten digits seen through four state spaces at once.

Each of scikit-learn's 1,797 digits is an 8×8 picture, a caption of a few words, a digit label and the share
of ink in each of 16 tiles. `data` and `captions` make them, `judge` and `metrics` measure what a model
generates, `sections`, `pictures` and `page` show it. Nothing here imports scikit-learn or matplotlib until
its own module is imported.
"""

__all__: list[str] = []
