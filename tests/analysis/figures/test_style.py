"""Losses must be told apart by readers with any common color vision, and in grayscale print."""

from itertools import combinations

import matplotlib as mpl
import numpy as np
import pytest

from analysis.figures.style import LOSS_STYLES, TooManyVariants, publication, variant_styles

# Machado, Oliveira & Fernandes 2009, severity 1.0, on linear RGB.
VISION = {
    "normal": np.eye(3),
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}


def linear_rgb(color: str) -> np.ndarray:
    channel = np.array([int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)])
    return np.where(channel <= 0.04045, channel / 12.92, ((channel + 0.055) / 1.055) ** 2.4)


def oklab(rgb: np.ndarray) -> np.ndarray:
    """Ottosson 2020, https://bottosson.github.io/posts/oklab/"""
    to_lms = np.array([
        [0.4122214708, 0.5363325363, 0.0514459929],
        [0.2119034982, 0.6806995451, 0.1073969566],
        [0.0883024619, 0.2817188376, 0.6299787005],
    ])  # fmt: skip
    to_lab = np.array([
        [0.2104542553, 0.7936177850, -0.0040720468],
        [1.9779984951, -2.4285922050, 0.4505937099],
        [0.0259040371, 0.7827717662, -0.8086757660],
    ])  # fmt: skip
    return to_lab @ np.cbrt(to_lms @ rgb)


@pytest.mark.parametrize("theme", ["color", "color_dark"])
@pytest.mark.parametrize("vision", VISION)
def test_any_two_losses_differ_for_every_reader(theme, vision):
    seen = {
        name: oklab(np.clip(np.asarray(VISION[vision]) @ linear_rgb(getattr(style, theme)), 0, 1))
        for name, style in LOSS_STYLES.items()
    }
    distance = {pair: np.linalg.norm(seen[pair[0]] - seen[pair[1]]) for pair in combinations(seen, 2)}
    closest = min(distance, key=distance.__getitem__)
    # The Okabe-Ito palette reaches 0.076 by this measure; tritanopia is rarer by a factor of hundreds.
    assert distance[closest] > (0.09 if vision == "tritanopia" else 0.12), (closest, distance[closest])


@pytest.mark.parametrize("theme", ["color", "color_dark"])
def test_greyscale_print_keeps_losses_apart(theme):
    lightness = sorted(oklab(linear_rgb(getattr(style, theme)))[0] for style in LOSS_STYLES.values())
    assert np.diff(lightness).min() > 0.06


def test_markers_are_distinct_too():
    others = ["my.module:f", "online/logistic", "rloo", "best_of_n", "a-7b-chat", "b", "c", "d"]
    styles = variant_styles([*LOSS_STYLES, *others]).values()
    for look in ("marker", "symbol", "color", "color_dark"):
        assert len({getattr(style, look) for style in styles}) == len(styles) == 14


def test_order_is_fixed_whatever_the_input_order():
    assert list(variant_styles(["zeta:f", "savage", "logistic"])) == ["logistic", "savage", "zeta:f"]


def test_too_many_other_variants_are_refused_with_their_number():
    with pytest.raises(TooManyVariants, match="9 variants beside the built-in losses"):
        variant_styles([f"mine:f{i}" for i in range(9)])


def test_publication_settings_end_with_the_context():
    before = dict(mpl.rcParams)
    with publication():
        assert mpl.rcParams["pdf.fonttype"] == 42
    assert dict(mpl.rcParams) == before
