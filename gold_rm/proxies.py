"""Sizes of proxy reward models: around the default policy's (2 layers of width 64), up to the gold model's own."""

from typing import NamedTuple


class Size(NamedTuple):
    """Layers, width and heads of the encoder (`gold_rm.train.GoldTrainConfig`)."""

    layers: int
    width: int
    heads: int


SIZES: dict[str, Size] = {
    "xs": Size(1, 8, 2),
    "s": Size(1, 16, 2),
    "m": Size(1, 32, 4),
    "l": Size(2, 64, 4),
    "xl": Size(3, 96, 4),
}
