"""The rules of the review language: from every state, which words may follow, how likely, and where they lead.

A review is one to four clauses about aspects of the work, then perhaps a comparison, a verdict and a closing:

    old crime novel : the villain was truly gripping but i disliked the ending . i would gladly recommend it .

Its tone (praise, mixed, panning) is drawn first and never shown; it makes the parts of a review agree.
"""

from collections.abc import Callable
from typing import NamedTuple

from bench.worlds.reviews.lexicon import EOS

TONES = ("praise", "mixed", "panning")
_GOOD_SHARE = {"praise": 0.82, "mixed": 0.5, "panning": 0.18}  # of opinions that are favorable
_GO_ON = (0.80, 0.38, 0.12, 0.0)  # probability of another clause after the first, second, ...


class State(NamedTuple):
    """Where a review stands. The tone is fixed from the start; the rest follows from the words so far.

    `good`: sign of the last opinion (None before any); `contrast`: it was followed by but or though;
    `clauses`: how many have begun.
    """

    node: str
    tone: str
    good: bool | None = None
    contrast: bool = False
    clauses: int = 0


class Branch(NamedTuple):
    """With `probability`, emit a word of the kind `slot` (a literal word is its own slot) and go to `state`."""

    probability: float
    slot: str
    state: State


Rule = Callable[[State], list[Branch]]


def start_state(tone: str) -> State:
    return State("start", tone)


def branches(state: State) -> list[Branch]:
    """What may follow in `state`; the probabilities add to one, and no word is in two branches."""
    return [branch for branch in _RULES[state.node](state) if branch.probability > 0]


def _scaled(share: float, options: list[Branch]) -> list[Branch]:
    return [option._replace(probability=option.probability * share) for option in options]


def _opinion(state: State, slot: str, good_share: float, node: str, *, flip: bool = False) -> list[Branch]:
    """A favorable or unfavorable word; `flip` for negated ones, which mean the opposite."""
    return [
        Branch(good_share if good else 1 - good_share, f"{'good' if good != flip else 'bad'}_{slot}",
               state._replace(node=node, good=good))
        for good in (True, False)
    ]  # fmt: skip


def _good_share(state: State) -> float:
    if state.contrast:
        return 0.1 if state.good else 0.9
    return _GOOD_SHARE[state.tone]


def _clause(state: State) -> list[Branch]:
    begun = state._replace(clauses=state.clauses + 1)
    return [Branch(0.8, "the", begun._replace(node="the")), Branch(0.2, "i", begun._replace(node="i"))]


def _described(state: State) -> list[Branch]:
    """After "the <aspect> was"."""
    quality = _opinion(state, "adjective", _good_share(state), "described")
    return [
        Branch(0.10, "not", state._replace(node="not")),
        Branch(0.45, "adverb", state._replace(node="adverb")),
        *_scaled(0.45, quality),
    ]


def _after_adverb(state: State) -> list[Branch]:
    quality = _opinion(state, "adjective", _good_share(state), "described")
    return [Branch(0.1, "adverb", state._replace(node="adverbs")), *_scaled(0.9, quality)]


def _negated(state: State) -> list[Branch]:
    quality = _opinion(state, "adjective", _good_share(state), "clause_end", flip=True)
    return [Branch(0.3, "adverb", state._replace(node="not_adverb")), *_scaled(0.7, quality)]


def _after_i(state: State) -> list[Branch]:
    verbs = _opinion(state, "verb", _good_share(state), "verb")
    return [Branch(0.3, "verb_adverb", state._replace(node="i_adverb")), *_scaled(0.7, verbs)]


def _after_clause(state: State, and_node: str = "connective") -> list[Branch]:
    """A full stop, or a connective and another clause."""
    go_on = _GO_ON[state.clauses - 1]
    following = state._replace(node="connective", contrast=False)
    return [
        Branch(1 - go_on, ".", State("sentence_end", state.tone)),
        Branch(go_on * 0.35, "and", following._replace(node=and_node)),
        Branch(go_on * 0.15, "while", following),
        Branch(go_on * 0.25, ",", following),
        Branch(go_on * 0.25, "contrast", following._replace(contrast=True)),
    ]


def _after_and(state: State) -> list[Branch]:
    """After "was <adjective> and": another adjective of the same sign, or a new clause."""
    another = Branch(0.6, "good_adjective" if state.good else "bad_adjective", state._replace(node="clause_end"))
    louder = Branch(0.4, "adverb", state._replace(node="and_adverb"))
    return [*_scaled(0.3, [another, louder]), *_scaled(0.7, _clause(state))]


def _after_and_adverb(state: State) -> list[Branch]:
    return [Branch(1.0, "good_adjective" if state.good else "bad_adjective", state._replace(node="clause_end"))]


def _ending(state: State, comparison: float, verdict: float, closing: float) -> list[Branch]:
    """The optional parts still possible, with their probabilities, or the end."""
    good = _GOOD_SHARE[state.tone]
    compared = [
        Branch(0.4, "degree", state._replace(node="degree")),
        *_scaled(0.6, _opinion(state, "comparison", good, "comparison")),
    ]
    return [
        *_scaled(comparison, compared),
        Branch(verdict, "i", state._replace(node="verdict_i")),
        *_scaled(closing, _opinion(state, "closing", good, "closing")),
        Branch(1 - comparison - verdict - closing, EOS, State("end", state.tone)),
    ]


def _then(slot: str, node: str) -> Rule:
    """One word or kind of word that always follows."""
    return lambda state: [Branch(1.0, slot, state._replace(node=node))]


_RULES: dict[str, Rule] = {
    "start": lambda state: [Branch(0.15, "opener", state._replace(node="opener")), *_scaled(0.85, _clause(state))],
    "opener": _then(",", "connective"),
    "connective": _clause,
    "the": _then("aspect", "aspect"),
    "aspect": _then("was", "was"),
    "was": _described,
    "adverb": _after_adverb,
    "adverbs": lambda state: _opinion(state, "adjective", _good_share(state), "described"),
    "not": _negated,
    "not_adverb": lambda state: _opinion(state, "adjective", _good_share(state), "clause_end", flip=True),
    "i": _after_i,
    "i_adverb": lambda state: _opinion(state, "verb", _good_share(state), "verb"),
    "verb": _then("the", "verb_the"),
    "verb_the": _then("aspect", "clause_end"),
    "described": lambda state: _after_clause(state, and_node="and"),
    "and": _after_and,
    "and_adverb": _after_and_adverb,
    "clause_end": _after_clause,
    "sentence_end": lambda state: _ending(state, comparison=0.15, verdict=0.2, closing=0.15),
    "degree": lambda state: _opinion(state, "comparison", _GOOD_SHARE[state.tone], "comparison"),
    "comparison": _then("than", "than"),
    "than": _then("yardstick", "yardstick"),
    "yardstick": _then(".", "compared"),
    "compared": lambda state: _ending(state, comparison=0.0, verdict=0.2, closing=0.15),
    "verdict_i": _then("would", "would"),
    "would": lambda state: _opinion(state, "verdict", _GOOD_SHARE[state.tone], "verdict"),
    "verdict": _then("recommend", "recommend"),
    "recommend": _then("it", "it"),
    "it": _then(".", "judged"),
    "judged": lambda state: _ending(state, comparison=0.0, verdict=0.0, closing=0.25),
    "closing": _then("!", "closed"),
    "closed": lambda state: _ending(state, comparison=0.0, verdict=0.0, closing=0.1),
    "end": lambda state: [],
}
