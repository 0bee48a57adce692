"""The words of the review language and what the hidden rater makes of them.

Two numbers stand beside most words: how often reviewers use it (a weight among its kind) and what it is worth
to the rater. Strong words are rare, which is what leaves room above π_ref's usual reviews.
"""

from typing import NamedTuple


class Word(NamedTuple):
    """`weight`: relative frequency among words of its kind; `worth`: valence, or a factor for adverbs."""

    weight: float
    worth: float


MODIFIERS = {  # how favorably such works are reviewed: log-odds added to praise and taken from panning
    "new": 0.0, "old": 0.1, "short": 0.2, "long": -0.3, "foreign": 0.2, "local": 0.0, "popular": 0.2,
    "obscure": -0.1, "acclaimed": 0.7, "cheap": -0.7, "experimental": -0.3, "classic": 0.5, "controversial": -0.4,
    "debut": 0.0, "independent": 0.3, "restored": 0.3, "unfinished": -0.7,
}  # fmt: skip

# Which aspects a review of the medium may name, the common ones first.
MEDIA = {
    "film": "plot acting camera pacing ending dialogue soundtrack hero villain mood setting humor",
    "series": "plot acting casting pacing ending dialogue hero villain mood setting humor opening",
    "novel": "plot prose ending hero villain pacing dialogue mood setting humor opening",
    "album": "singing melody rhythm mood opening ending production pacing humor",
    "game": "gameplay artwork plot soundtrack pacing ending hero villain setting mood humor",
    "play": "acting staging dialogue casting plot ending pacing hero villain mood humor opening",
}

# The aspects that matter to a genre: named more often by reviewers and weighed more by the rater.
GENRES = {
    "horror": "mood villain soundtrack camera rhythm",
    "comedy": "humor dialogue casting opening gameplay",
    "romance": "hero ending melody dialogue prose",
    "mystery": "plot ending villain setting melody",
    "fantasy": "setting artwork prose staging singing",
    "war": "camera mood staging production hero",
    "crime": "villain plot acting dialogue production",
    "family": "humor hero singing artwork casting",
    "history": "setting prose acting staging melody",
    "adventure": "pacing hero gameplay setting rhythm",
    "western": "soundtrack camera villain mood production",
    "space": "artwork opening soundtrack plot rhythm",
}

ASPECTS = tuple(dict.fromkeys(" ".join(MEDIA.values()).split()))

GOOD_ADJECTIVES = {
    "fine": Word(12, 0.4), "decent": Word(12, 0.5), "pleasant": Word(10, 0.7), "solid": Word(10, 0.8),
    "clever": Word(8, 1.0), "charming": Word(7, 1.1), "vivid": Word(6, 1.2), "gripping": Word(5, 1.4),
    "moving": Word(5, 1.4), "brilliant": Word(3, 1.8), "superb": Word(2.5, 2.0), "stunning": Word(2, 2.2),
    "dazzling": Word(1.5, 2.5), "sublime": Word(1.0, 2.9), "flawless": Word(0.7, 3.2), "unforgettable": Word(0.5, 3.6),
}  # fmt: skip
BAD_ADJECTIVES = {
    "plain": Word(12, -0.4), "uneven": Word(12, -0.5), "slow": Word(10, -0.7), "flat": Word(10, -0.8),
    "dull": Word(8, -1.0), "bland": Word(7, -1.0), "messy": Word(6, -1.1), "clumsy": Word(6, -1.2),
    "tedious": Word(5, -1.3), "hollow": Word(4, -1.4), "lifeless": Word(2.5, -1.6), "dreadful": Word(2, -1.9),
    "awful": Word(1.5, -2.0), "painful": Word(1, -2.2), "unbearable": Word(0.7, -2.5), "abysmal": Word(0.5, -2.8),
}  # fmt: skip
GOOD_VERBS = {
    "liked": Word(10, 0.7), "enjoyed": Word(8, 0.9), "loved": Word(5, 1.5), "adored": Word(1.5, 2.2),
    "treasured": Word(0.5, 2.8),
}  # fmt: skip
BAD_VERBS = {
    "endured": Word(8, -0.7), "disliked": Word(8, -0.9), "hated": Word(4, -1.5), "loathed": Word(1, -2.2),
}  # fmt: skip

ADVERBS = {  # before adjectives
    "slightly": Word(6, 0.6), "somewhat": Word(6, 0.7), "fairly": Word(8, 0.8), "rather": Word(8, 0.9),
    "quite": Word(10, 1.1), "very": Word(10, 1.3), "really": Word(8, 1.3), "truly": Word(4, 1.5),
    "deeply": Word(2, 1.7), "utterly": Word(1.5, 1.9), "astonishingly": Word(0.7, 2.3),
}  # fmt: skip
VERB_ADVERBS = ("really", "truly", "deeply", "utterly")  # those that also stand before verbs

OPENERS = {"honestly": Word(4, 0.0), "overall": Word(4, 0.0), "frankly": Word(3, 0.0), "surprisingly": Word(1, 0.0)}

DEGREES = {"slightly": Word(4, 0.6), "much": Word(3, 1.4), "far": Word(2, 1.8)}  # before better and worse
GOOD_COMPARISONS = {"better": Word(1, 0.6)}
BAD_COMPARISONS = {"worse": Word(1, -0.6)}
YARDSTICKS = {"expected": Word(5, 1.0), "most": Word(4, 1.3), "all": Word(0.7, 2.2)}  # after than

GOOD_VERDICTS = {"perhaps": Word(5, 0.3), "certainly": Word(4, 0.9), "gladly": Word(2, 1.3), "always": Word(0.5, 2.0)}
BAD_VERDICTS = {"hardly": Word(3, -0.6), "never": Word(3, -1.2)}

GOOD_CLOSINGS = {"recommended": Word(6, 0.6), "delightful": Word(4, 0.8), "bravo": Word(2, 1.3),
                 "encore": Word(1, 1.7), "masterpiece": Word(0.5, 2.5)}  # fmt: skip
BAD_CLOSINGS = {"forgettable": Word(5, -0.6), "shame": Word(3, -0.9), "rubbish": Word(1, -1.5)}

FUNCTION_WORDS = (",", ".", "!", "the", "i", "was", "not", "and", "while", "than", "would", "recommend", "it")
CONTRASTS = {"but": Word(3, 0.0), "though": Word(2, 0.0)}
PROMPT_END = ":"
EOS, PAD, UNK = "<eos>", "<pad>", "<unk>"


SLOTS = {  # the kinds of words that the grammar's rules name
    "good_adjective": GOOD_ADJECTIVES, "bad_adjective": BAD_ADJECTIVES,
    "good_verb": GOOD_VERBS, "bad_verb": BAD_VERBS,
    "good_comparison": GOOD_COMPARISONS, "bad_comparison": BAD_COMPARISONS,
    "good_verdict": GOOD_VERDICTS, "bad_verdict": BAD_VERDICTS,
    "good_closing": GOOD_CLOSINGS, "bad_closing": BAD_CLOSINGS,
    "adverb": ADVERBS, "verb_adverb": {word: ADVERBS[word] for word in VERB_ADVERBS},
    "opener": OPENERS, "contrast": CONTRASTS, "degree": DEGREES, "yardstick": YARDSTICKS,
}  # fmt: skip


def response_words() -> tuple[str, ...]:
    """Every word that a review may hold, in a fixed order, each once."""
    return tuple(dict.fromkeys([*FUNCTION_WORDS, *ASPECTS, *(word for kind in SLOTS.values() for word in kind)]))
