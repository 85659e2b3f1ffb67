"""Sentences: short made-up texts on eight topics, drawn from a fixed seed. No file is needed, and nobody wrote them.

A sentence is one of a few patterns with its slots filled: with words of the topic, with words that fit anywhere, and now and then
with a word of another topic. Some words belong to two topics. So a small net tells nine in ten apart, and not all. It is for
trying things out and for tests; figures about text belong to texts that people wrote (``sst2``, ``ag-news``).
"""

from __future__ import annotations

import random
from collections.abc import Mapping

from heirmark.data.texts import Rows

CLASSES = ("sport", "money", "weather", "kitchen", "music", "travel", "law", "garden")
TRAIN = 9600
TEST = 1600
_SEED = 20261129

_NOUNS: Mapping[str, str] = {
    "sport": "goal match referee keeper striker team coach stadium league final penalty sprinter race lap record medal fan "
    "pitch tackle corner bench captain trophy rally court serve net draw score injury transfer",
    "money": "bank share bond market loan profit merger budget tax price rate dividend fund investor broker debt deficit "
    "record transfer bench draw margin invoice payment trade wage export price auditor ledger",
    "weather": "storm cloud front breeze drizzle hail frost thunder lightning fog rainbow forecast pressure humidity flood "
    "gale snowfall sunshine heat chill degree coast mist season record depression gust thaw rain",
    "kitchen": "oven pan dough onion garlic butter recipe sauce flour sugar knife spoon roast soup stew salt pepper kettle "
    "heat chill crust pie lemon basil share serve draw whisk broth noodle",
    "music": "violin drum choir melody chord singer pianist score concert rhythm orchestra lyric album flute bass tune band "
    "record anthem harmony solo guitar trumpet conductor stage encore verse bar",
    "travel": "train ticket hotel passport luggage airport ferry harbour map platform cabin pilot tourist border visa suitcase "
    "highway departure coast compass hostel taxi tram stage tent voyage bus runway museum beach",
    "law": "judge verdict lawyer witness trial jury statute appeal clause prison sentence suspect plea evidence contract crime "
    "bail warrant defendant oath tribunal charge fine draft treaty bar claim court prosecutor",
    "garden": "rose tulip seed soil hedge lawn weed spade compost blossom root petal shrub fern bee pond basil frost orchard ivy "
    "stem bulb rake bed vine daisy moss trowel mulch lemon",
}
_VERBS: Mapping[str, str] = {
    "sport": "scored tackled dribbled equalised sprinted headed blocked passed defended celebrated cleared trained",
    "money": "invested borrowed traded merged rose fell taxed lent paid audited cleared recovered",
    "weather": "rained froze melted thundered cleared flooded rose fell drizzled thawed blew froze",
    "kitchen": "baked simmered chopped stirred roasted seasoned froze melted peeled fried tasted kneaded",
    "music": "sang hummed strummed composed rehearsed whistled echoed conducted recorded rapped",
    "travel": "departed boarded landed sailed hiked booked packed arrived drove toured",
    "law": "ruled testified appealed sued pleaded charged swore convicted claimed drafted",
    "garden": "bloomed sprouted withered planted watered pruned mowed dug wilted ripened",
}
_ANY_NOUNS = (
    "morning village paper friend story window street letter garden teacher question corner visitor moment picture voice river "
    "neighbour table answer journey evening reason bridge number sister promise idea crowd door station doctor family"
)
_ANY_VERBS = (
    "came went stayed waited changed began ended returned helped followed mattered remained appeared worked moved"
)
_ADJECTIVES = (
    "old new quiet sudden early late small large strange famous local final simple second heavy gentle bright dull long short "
    "careful happy tired common rare"
)
_OPENINGS = (
    "",
    "",
    "yesterday",
    "on monday",
    "after a while",
    "as everyone knew",
    "this year",
    "for once",
    "in the end",
)
_PATTERNS = (
    "the {a} {n} {v} before the {n}",
    "a {n} {v} and the {n} {v} near the {a} {n}",
    "the {n} of the {n} {v} while a {a} {n} {v}",
    "nobody said that the {n} {v} without a {n}",
    "they spoke of the {n} , the {a} {n} and the {n}",
    "because the {n} {v} , the {a} {n} {v} again",
)
_OWN, _OTHER = 0.45, 0.05
"""Chances that a slot is filled with a word of the topic, and with one of another; the rest fits anywhere."""


def read_sentences() -> Rows:
    """Texts with labels to train on, 9,600, and to test on, 1,600; no text stands twice."""
    draw = random.Random(_SEED)
    rows: dict[str, int] = {}
    while len(rows) < TRAIN + TEST:
        label = len(rows) % len(CLASSES)
        rows.setdefault(make(label, draw), label)
    made = list(rows.items())
    return made[:TRAIN], made[TRAIN:]


def make(label: int, draw: random.Random) -> str:
    """One text on a topic, of one or two sentences."""
    return " . ".join(_sentence(label, draw) for _ in range(draw.choice((1, 2, 2))))


def _sentence(label: int, draw: random.Random) -> str:
    opening = draw.choice(_OPENINGS)
    words = [opening] if opening else []
    for word in draw.choice(_PATTERNS).split():
        if word == "{a}":
            words.append(draw.choice(_ADJECTIVES.split()))
        elif word == "{n}":
            words.append(_filled(label, _NOUNS, _ANY_NOUNS, draw))
        elif word == "{v}":
            words.append(_filled(label, _VERBS, _ANY_VERBS, draw))
        else:
            words.append(word)
    return " ".join(words)


def _filled(label: int, own: Mapping[str, str], anywhere: str, draw: random.Random) -> str:
    chance = draw.random()
    if chance < _OWN:
        return draw.choice(own[CLASSES[label]].split())
    if chance < _OWN + _OTHER:
        return draw.choice(own[draw.choice([topic for topic in CLASSES if topic != CLASSES[label]])].split())
    return draw.choice(anywhere.split())
