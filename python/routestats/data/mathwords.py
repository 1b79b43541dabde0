"""``mathwords``: arithmetic word problems from templates of our own.

They stand in where GSM8K cannot be had, and go by their own name everywhere, because they are
much more alike than people's problems are.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

COUNT = 500

_NAMES = (
    "Ada", "Bruno", "Chidi", "Dora", "Emil", "Farah", "Goran", "Hana", "Ines", "Jonas", "Keiko",
    "Liam", "Mira", "Nadia", "Omar", "Petra", "Quinn", "Rosa", "Samir", "Tove", "Uma", "Viktor",
)  # fmt: skip
_THINGS = (
    "apples", "pencils", "stamps", "marbles", "postcards", "buttons", "tickets", "shells", "books",
    "candles", "seeds", "bricks", "tiles", "bottles", "lamps", "ropes",
)  # fmt: skip
_PLACES = ("market", "school", "library", "harbour", "workshop", "garden", "museum", "bakery")


@dataclass(frozen=True, slots=True)
class Problem:
    """A word problem and its answer."""

    question: str
    answer: int


def problems(count: int = COUNT, seed: int = 0) -> list[Problem]:
    """The first `count` problems; equal arguments give equal problems, none twice."""
    draw = random.Random(seed)
    found: dict[str, Problem] = {}
    while len(found) < count:
        problem = _TEMPLATES[len(found) % len(_TEMPLATES)](draw)
        found.setdefault(problem.question, problem)
    return list(found.values())


def _shopping(draw: random.Random) -> Problem:
    name, thing = draw.choice(_NAMES), draw.choice(_THINGS)
    price, many, off = draw.randint(2, 9), draw.randint(6, 40), draw.randint(1, 11)
    return Problem(
        f"{name} buys {many} {thing} at ${price} each at the {draw.choice(_PLACES)}. The seller "
        f"takes ${off} off the whole bill because {name} is a regular customer. How many dollars "
        f"does {name} pay?",
        price * many - off,
    )


def _sharing(draw: random.Random) -> Problem:
    first, second = draw.sample(_NAMES, 2)
    thing, people, each = draw.choice(_THINGS), draw.randint(3, 9), draw.randint(4, 25)
    extra = draw.randint(1, people - 1)
    return Problem(
        f"{first} and {second} collected {people * each + extra} {thing} over the summer. They "
        f"share them equally among {people} friends and keep whatever cannot be shared. How many "
        f"{thing} do they keep?",
        extra,
    )


def _travel(draw: random.Random) -> Problem:
    name = draw.choice(_NAMES)
    fast, slow = draw.randint(40, 90), draw.randint(10, 39)
    first, second = draw.randint(2, 5), draw.randint(2, 6)
    return Problem(
        f"{name} drives to the {draw.choice(_PLACES)} for {first} hours at {fast} kilometres per "
        f"hour, and then goes on by bicycle for {second} hours at {slow} kilometres per hour. How "
        "many kilometres is that in all?",
        fast * first + slow * second,
    )


def _ages(draw: random.Random) -> Problem:
    older, younger = draw.sample(_NAMES, 2)
    age, times, years = draw.randint(4, 15), draw.randint(2, 5), draw.randint(2, 12)
    return Problem(
        f"{younger} is {age} years old. {older} is {times} times as old as {younger}. How old will "
        f"{older} be in {years} years?",
        age * times + years,
    )


def _savings(draw: random.Random) -> Problem:
    name = draw.choice(_NAMES)
    weekly, weeks, spent = draw.randint(5, 30), draw.randint(4, 20), draw.randint(3, 19)
    return Problem(
        f"Every week {name} earns ${weekly} by helping at the {draw.choice(_PLACES)}. After "
        f"{weeks} weeks {name} spends ${spent} on a present and puts the rest into a savings "
        "account. How many dollars go into the account?",
        weekly * weeks - spent,
    )


def _boxes(draw: random.Random) -> Problem:
    thing, name = draw.choice(_THINGS), draw.choice(_NAMES)
    boxes, each, broken = draw.randint(3, 15), draw.randint(6, 24), draw.randint(1, 5)
    return Problem(
        f"A van brings {boxes} boxes to the {draw.choice(_PLACES)}, with {each} {thing} in each. "
        f"{name} finds that {broken} {thing} in every box are broken and sends those back. How "
        f"many {thing} are left?",
        boxes * (each - broken),
    )


def _fields(draw: random.Random) -> Problem:
    name = draw.choice(_NAMES)
    length, width, price = draw.randint(8, 40), draw.randint(5, 30), draw.randint(2, 7)
    return Problem(
        f"{name} puts a fence around a garden that is {length} metres long and {width} metres "
        f"wide. Each metre of fence costs ${price}. How many dollars does the fence cost?",
        2 * (length + width) * price,
    )


def _halves(draw: random.Random) -> Problem:
    name, thing = draw.choice(_NAMES), draw.choice(_THINGS)
    half, rest = draw.randint(10, 60), draw.randint(2, 9)
    return Problem(
        f"{name} had some {thing}. On Monday {name} gave half of them to the "
        f"{draw.choice(_PLACES)}, and on Tuesday another {rest}, which left {half - rest}. How "
        f"many {thing} did {name} have at first?",
        2 * half,
    )


_TEMPLATES: tuple[Callable[[random.Random], Problem], ...] = (
    _shopping, _sharing, _travel, _ages, _savings, _boxes, _fields, _halves,
)  # fmt: skip
