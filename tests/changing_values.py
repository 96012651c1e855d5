"""Sixty made scopes, half of them Chinese, in which one value changes three to five times, told in turns only."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from random import Random

# What is asked about; how its values are told; values; what else is said of the same.
_ENGLISH = (
    ("dentist", ("My dentist is {} now.", "I switched to a new dentist, {}.", "{} is my dentist from today on.",
                 "Changed dentists again: {} this time."),
     ("Dr. Okafor", "Dr. Lindqvist", "Dr. Amari", "Dr. Petrov", "Dr. Sousa"), "My sister's dentist is very friendly."),
    ("car", ("I drive a {} these days.", "Sold the old car and bought a {}.", "My new car is a {}.",
             "We got rid of the car, now it is a {}."),
     ("Fiat Panda", "Volvo V60", "Renault Zoe", "Mazda CX-5", "Skoda Fabia"),
     "Somebody scratched a car in our street."),
    ("gym", ("I joined the gym {}.", "I train at {} now, a better gym.", "Cancelled the gym and signed up at {}.",
             "My gym is {} since this week."),
     ("Ironworks", "Blue Lagoon", "FitBarn", "Pulse Hall", "Granite"), "The gym teacher at school was strict."),
    ("manager", ("My manager at work is {}.", "{} took over as my manager.", "There is a new manager: {}.",
                 "From this month {} is the manager I report to."),
     ("Ingrid", "Tobias", "Farah", "Wendell", "Noriko"), "The hotel manager gave us a better room."),
    ("apartment", ("We rent an apartment in {}.", "We moved, the new apartment is in {}.",
                   "Our apartment is in {} now.", "Packed everything again: an apartment in {}."),
     ("Leeds", "Porto", "Gdansk", "Utrecht", "Malmo"), "The apartment of my uncle has a huge balcony."),
    ("phone", ("My phone is a {}.", "I replaced my phone with a {}.", "The new phone is a {}.",
               "Dropped the phone, so now I use a {}."),
     ("Pixel 8", "Nokia G42", "Fairphone 5", "Galaxy S24", "Xperia 10"), "The phone rang all night at the office."),
)  # fmt: skip
_CHINESE = (
    ("牙医", ("我的牙医是{}。", "我换了一个牙医，是{}。", "从今天起我的牙医是{}。", "牙医又换了，这次是{}。"),
     ("欧阳医生", "林医生", "宋医生", "贺医生", "苏医生"), "我妹妹的牙医很和气。"),
    ("车", ("我开的车是{}。", "旧车卖了，买了一辆新车{}。", "我的新车是{}。", "车又换了，换成{}。"),
     ("飞度", "思域", "轩逸", "凯美瑞", "朗逸"), "楼下有人的车被划了。"),
    ("健身房", ("我办了{}健身房的卡。", "健身房换成{}了。", "我现在去{}健身房。", "退了健身房，又报了{}。"),
     ("铁馆", "蓝湾", "活力", "磐石", "晨曦"), "学校的健身房下周维修。"),
    ("主管", ("我的主管是{}。", "{}接任我的主管了。", "来了新主管，叫{}。", "这个月起主管换成{}。"),
     ("许文", "高远", "方静", "田野", "孟凡"), "酒店主管给我们换了房间。"),
    ("公寓", ("我们在{}租了公寓。", "搬家了，新公寓在{}。", "我们的公寓现在在{}。", "又搬了，公寓在{}。"),
     ("苏州", "厦门", "青岛", "长沙", "昆明"), "叔叔的公寓阳台很大。"),
    ("手机", ("我的手机是{}。", "我把手机换成了{}。", "新手机是{}。", "手机摔坏了，改用{}。"),
     ("小米十四", "荣耀九十", "一加十二", "红米七十", "魅族二十"), "办公室的手机响了一晚上。"),
)  # fmt: skip
_ASKED = {
    "en": {"now": "Which {0} do I have now?", "before": "Which {0} did I have before this one?",
           "first": "What was my first {0}?", "as of": "Which {0} did I have in {1:%B %Y}?",
           "count": "How often did I change the {0}?"},
    "zh": {"now": "我现在的{0}是哪个？", "before": "这之前我的{0}是哪个？", "first": "我最早的{0}是哪个？",
           "as of": "{1.year}年{1.month}月我的{0}是哪个？", "count": "我换过几次{0}？"},
}  # fmt: skip
_SMALL_TALK = {
    "en": ("The weather is lovely today.", "I made soup and it was too salty.", "Do you know a good film?",
           "My sister calls every Sunday.", "I slept badly.", "The train was late again.", "We played cards."),
    "zh": ("今天天气真好。", "我煮的汤太咸了。", "有什么好看的电影吗？", "妹妹每个星期天打电话。", "昨晚没睡好。",
           "火车又晚点了。", "我们打了牌。"),
}  # fmt: skip


@dataclass(frozen=True)
class Changing:
    """One scope.

    Attributes:
        name: The language, what changes and a number.
        turns: What is said, with when.
        versions: The turns that tell the value, oldest first.
        questions: By what they ask for: the question, and the turns that answer it.
    """

    name: str
    turns: list[tuple[str, datetime]]
    versions: list[str]
    questions: dict[str, tuple[str, list[str]]]


def changing_values() -> Iterator[Changing]:
    """The sixty scopes; the same ones each time."""
    for language, attributes in (("en", _ENGLISH), ("zh", _CHINESE)):
        for number in range(30):
            subject, told, values, other = attributes[number % len(attributes)]
            rng = Random(f"{language}{number}")
            count = 3 + number % 3
            start = datetime(2024, 1, 10, 9, tzinfo=UTC) + timedelta(days=number)
            turns, versions, days, elsewhere = [], [], [], rng.randrange(count)
            for version, value in enumerate(rng.sample(values, count)):
                day = start + timedelta(days=62 * version)
                templates = told[:1] if version == 0 else told[1:]
                versions.append(rng.choice(templates).format(value))
                days.append(day)
                turns.append((versions[-1], day))
                for step in range(6):
                    said = other if step == 4 and version == elsewhere else rng.choice(_SMALL_TALK[language])
                    turns.append((said, day + timedelta(days=8 * step + 3)))
            asked = {
                kind: text.format(subject, days[1] + timedelta(days=31)) for kind, text in _ASKED[language].items()
            }
            answers = {"now": versions[-1:], "before": versions[-2:-1], "first": versions[:1], "as of": versions[1:2],
                       "count": versions}  # fmt: skip
            yield Changing(
                f"{language}-{subject}-{number}",
                turns,
                versions,
                {kind: (asked[kind], answers[kind]) for kind in asked},
            )
