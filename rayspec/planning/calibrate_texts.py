"""Built-in prompts by workload class, for who has none of their own at hand. Data only."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

__all__ = ["TEXTS"]

_MINUTES: Final = (
    "Minutes, allotment association, 14 March. Present: Ruth, Tomas, Adaeze, Ivo and nine "
    "members. Ruth reported that the water meter was replaced and that the leak behind plots "
    "12 to 15 had cost the association 310 euros. Tomas proposed to lay the new pipe along "
    "the path instead of under the beds, so that it can be reached without digging up "
    "anyone's plot. Two members feared that the path would be closed in April, when everybody "
    "needs it. It was agreed to do the work in the last week of October. Adaeze collects "
    "offers from three firms until the end of May. Ivo reminded everybody that the compost "
    "heap takes no cooked food: rats were seen twice. The summer party is on 6 July; whoever "
    "brings a cake tells Ruth.\n\n"
)
_MANUAL: Final = (
    "The pump runs for ninety seconds after the machine is switched on. Do not open the lid "
    "in that time. If the lamp blinks yellow, the tank is nearly empty: fill it up to the "
    "mark, and not beyond it, with cold water. If it blinks red, the filter is clogged: "
    "switch the machine off, pull the plug, turn the filter a quarter to the left, take it "
    "out and rinse it under running water. Do not use soap. Put it back and turn it to the "
    "right until it clicks. If the lamp is still red afterwards, the float is stuck, and the "
    "machine has to go to a workshop. Descale the machine every two months, in areas with "
    "hard water every month.\n\n"
)
_CODE: Final = (
    "```python\n"
    "class Inventory:\n"
    "    def __init__(self):\n"
    "        self.items = {}\n\n"
    "    def add(self, name, count):\n"
    "        if count <= 0:\n"
    '            raise ValueError("count must be positive")\n'
    "        self.items[name] = self.items.get(name, 0) + count\n\n"
    "    def remove(self, name, count):\n"
    "        if self.items.get(name, 0) < count:\n"
    '            raise ValueError("not enough of " + name)\n'
    "        self.items[name] -= count\n"
    "```\n"
)

TEXTS: Final[Mapping[str, tuple[str, ...]]] = {
    "code": (
        _CODE + "Add a method `move(self, name, count, other)` to the class that moves items to "
        "another inventory, and return the whole class.",
        "Write a Python function `chunks(items, size)` that yields lists of at most `size` items, "
        "with a docstring and three tests for pytest.",
        "Rewrite this loop so that it uses a dictionary, and return the whole function:\n"
        "```python\ndef count(words):\n    names = []\n    numbers = []\n    for word in words:\n"
        "        if word not in names:\n            names.append(word)\n"
        "            numbers.append(0)\n        numbers[names.index(word)] += 1\n"
        "    return names, numbers\n```",
        "Write a SQL query that lists for every warehouse the three articles with the fewest items "
        "left, from the tables warehouses(id, city) and stock(warehouse_id, article, items).",
    ),
    "structured": (
        "Give me five kinds of cheese as a JSON list of objects with the keys name, country and "
        "milk. Output only JSON.",
        "Write a YAML file that describes a bus line: its number, its stops with their names and "
        "minutes from the start, and the days on which it runs.",
        "Make a table in Markdown with the planets of the solar system: name, diameter in "
        "kilometres, number of moons.",
        'Fill in this form as JSON for a fictitious customer: {"name": "", "street": "", "city": '
        '"", "postcode": "", "orders": [{"article": "", "count": 0}]}',
    ),
    "summarize": (
        _MINUTES + "Summarise these minutes in three sentences.",
        _MANUAL + "Summarise this for somebody in a hurry.",
        _MINUTES + "List every decision that was taken, and who has to do what until when.",
        _MANUAL + "Which steps does somebody follow whose lamp blinks red? Answer with a list.",
    ),
    "chat": (
        "What is the difference between weather and climate?",
        "My sourdough does not rise. What are the three likeliest reasons?",
        "How do I politely decline an invitation to a wedding?",
        "Why do cats purr, and does it always mean that they are content?",
    ),
    "creative": (
        "Write a short story about a lighthouse keeper who receives a letter that is addressed to "
        "the lighthouse.",
        "Write a poem of twelve lines about the last tram of the night.",
        "Invent a legend that explains why the village well tastes of mint.",
        "Describe a market on a floating island, as a traveller would in her diary.",
    ),
    "multilingual": (
        "Erkläre in einfachen Worten, warum der Himmel blau ist.",
        "Écris une lettre courte à un voisin pour t'excuser du bruit de samedi soir.",
        "Explica cómo se prepara una tortilla de patatas, paso a paso.",
        "Traduci in inglese: «Domani mattina il treno per Firenze parte dal binario sette, con "
        "dieci minuti di ritardo.»",
    ),
}
