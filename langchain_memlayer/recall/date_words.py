"""By which words a text is told to speak of a time, or to ask for one version of several; the patterns are elsewhere."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

Grain = Literal["day", "span", "month", "year"]


@dataclass(frozen=True, slots=True)
class Period:
    """Days that a text speaks of.

    Attributes:
        grain: How exactly it does.
        start: The first day's beginning, microseconds since 1970 UTC; 0 when the year is open.
        end: The end of the last day.
        month: The month, when the year is open.
        day: The day of that month, or None for all of it.
    """

    grain: Grain
    start: int = 0
    end: int = 0
    month: int | None = None
    day: int | None = None


MONTHS = {
    name: number
    for number, names in enumerate(
        ("january jan januar janvier enero gennaio janeiro январь января январе",
         "february feb februar février febrero febbraio fevereiro февраль февраля феврале",
         "march mar märz mars marzo março март марта марте", "april apr avril abril aprile апрель апреля апреле",
         "may mai mayo maggio maio май мая мае", "june jun juni juin junio giugno junho июнь июня июне",
         "july jul juli juillet julio luglio julho июль июля июле", "august aug août agosto август августа августе",
         "september sept sep septembre septiembre settembre setembro сентябрь сентября сентябре",
         "october oct oktober octobre octubre ottobre outubro октябрь октября октябре",
         "november nov novembre noviembre novembro ноябрь ноября ноябре",
         "december dec dezember décembre diciembre dicembre dezembro декабрь декабря декабре"), 1,
    )
    for name in names.split()
}  # fmt: skip
WEEKDAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
EUROPEAN_DAYS = {
    name: day
    for day, names in enumerate(
        ("montag lundi lunes lunedì segunda-feira понедельник понедельника", "dienstag mardi martes martedì terça-feira вторник вторника",
         "mittwoch mercredi miércoles mercoledì quarta-feira среду среды", "donnerstag jeudi jueves giovedì quinta-feira четверг четверга",
         "freitag vendredi viernes venerdì sexta-feira пятницу пятницы", "samstag sonnabend samedi sábado sabato субботу субботы",
         "sonntag dimanche domingo domenica воскресенье воскресенья"),
    )
    for name in names.split()
}  # fmt: skip
# Every pattern of `date_patterns` takes a figure, or a letter of the three languages that are written without ours, or
# one of these words.
FIGURE = re.compile("[\\d\u1100-\U0010ffff]")
_SIGNS = (
    "ago earlier back last past this next coming upcoming previous yesterday today tonight tomorrow other vor y hace há faz "
    "fa atrás назад vorgestern gestern heute morgen übermorgen woche wochenende monat jahr hier aujourd demain week end "
    "weekend semaine mois année annee anteayer antier ayer anoche hoy mañana manana semana mes año ano ieri oggi domani "
    "dopodomani settimana mese anno anteontem ontem hoje amanhã amanha mês позавчера вчера сегодня завтра послезавтра неделю "
    "неделе недели неделя выходные выходных выходным месяц месяца месяце год года году"
)
SIGNS = frozenset((*MONTHS, *WEEKDAYS, *(name.rpartition("-")[2] for name in EUROPEAN_DAYS), *_SIGNS.split()))
_WORD = re.compile(r"\w+")
# What asks for anything that was done or is to come.
_DOES = (
    "happen happened happens happening going go went new plan plans planned gemacht mache machen passiert los vor pläne "
    "geplant fait fais faire passé passe prévu hice hago hacer pasó pasa planes fiz faço fazer aconteceu planos fatto "
    "faccio fare successo piani делал делала делаю буду было будет произошло планы что я мы у меня 做 干 何 去 発生 予定 "
    "뭐 뭘 했어 했지 했나 에 할 qué questc jai"
)
DOES = frozenset(_DOES.split())
BEFORE = re.compile(
    r"\b(?:before (?:that|this|the|it|i moved|i changed)|previous(?:ly)?|formerly|used to|the last one|prior to)\b|"
    r"(?:这|這|那|此)之?前|以前的?|之前的?|上一[个個任家位部辆輛]|原来的?|原來的?|前一[个個]|前の|以前の|この前|その前|이전|예전|그\s*전",
    re.IGNORECASE,
)
FIRST = re.compile(
    r"\b(?:my|our|the|his|her|their|was|were|at) (?:very )?first\b|\boriginally\b|\binitially\b|\bin the beginning\b|"
    r"最早|最初|最开始|最開始|一开始|一開始|第一[个個任家位部辆輛]|はじめの|初めの|最初の|맨\s*처음|처음(?:에|의)?|최초",
    re.IGNORECASE,
)
HOW_OFTEN = re.compile(
    r"\bhow (?:often|many times|many different)\b|几次|幾次|多少次|多少回|几[个個家位部辆輛]不同|何回|何度|몇\s*번|얼마나\s*자주",
    re.IGNORECASE,
)
CHANGE = re.compile(
    r"\b(?:chang|switch|replac)(?:es?|ed|ing)?\b|换(?:了|过)?|換(?:了|過)?|変え\w*|바꾸\w*|바꿨\w*", re.IGNORECASE
)
# A time in a question of what held then: an event has a time of its own.
HELD = re.compile(
    r"\b(?:which|what|where|who|whose)\b.*\b(?:have|had|live|lived|living|drive|drove|use|used|using|work|worked|is|was|were)\b|"
    r"[是在用开開住]|でした|だった|住んで|使って|였|이었|살았|썼",
    re.IGNORECASE,
)
# 今 begins many words that name a day or an hour; before a particle, a question or nothing it is the present.
NOW = re.compile(
    r"\b(?<!just )(?<!before )now\b(?! that)|\b(?:nowadays|currently|presently|still)\b|\b(?:at present|these days)\b|"
    r"\bat (?:the|this) (?:moment|point)\b|\b(?:current|present|latest)\s+\w|现在|現在|目前|如今|当前|當前|眼下|现今|至今|"
    r"今(?=[、,はもの何どいなだ]|$|\s)|いま(?=[、はのど]|$|\s)|지금|현재|요즘|요새|이제",
    re.IGNORECASE,
)
OWN = re.compile(r"\b(?:i|my|mine|we|our|ours)\b|[我咱私僕俺]|내|제가|우리", re.IGNORECASE)
OTHERS = (
    "sister brother mother father mom dad uncle aunt cousin grandmother grandfather friend neighbor neighbour colleague "
    "妹妹 姐姐 弟弟 哥哥 妈妈 媽媽 爸爸 母亲 父亲 叔叔 舅舅 阿姨 姑姑 爷爷 奶奶 外公 外婆 朋友 同事 邻居 鄰居 同学 "
    "友達 友人 同僚 여동생 남동생 언니 오빠 누나 엄마 아빠 어머니 아버지 삼촌 이모 친구 동료 이웃"
)
"""Whom one speaks of beside oneself: `OWN` says when a question is about oneself."""


def speaks_of_time(text: str) -> bool:
    """Whether a text (NFKC) may speak of a time; most do not, which their words tell sooner than eighty patterns."""
    return FIGURE.search(text) is not None or not SIGNS.isdisjoint(_WORD.findall(text.casefold()))
