"""How times are said in English, Chinese, Japanese and Korean: patterns, and what their words stand for.

Of German, French, Spanish, Italian, Portuguese and Russian the months are known, with days and years.
"""

from __future__ import annotations

import re

from langchain_memlayer.recall.date_words import EUROPEAN_DAYS, MONTHS, WEEKDAYS

NUMBERS = {
    word: number
    for number, words in enumerate(
        ("", "a an one 一 한 일", "two couple 二 两 兩 두 이", "three 三 세 석 삼", "four 四 네 넉 사", "five 五 다섯 오",
         "six 六 여섯 육", "seven 七 일곱 칠", "eight 八 여덟 팔", "nine 九 아홉 구", "ten 十 열 십", "eleven 十一",
         "twelve 十二"),
    )
    for word in words.split()
}  # fmt: skip
TEENS = "thirteen fourteen fifteen sixteen seventeen eighteen nineteen".split()  # noqa: SIM905 - a row of words
TENS = "twenty thirty forty fifty sixty seventy eighty ninety".split()  # noqa: SIM905 - a row of words
NUMBERS |= {word: number for number, word in enumerate(TEENS, 13)}
NUMBERS |= {word: 10 * number for number, word in enumerate(TENS, 2)}
SOME = "几幾数數多"
VAGUE = ("a few", "few", "several", "some", "几", "幾", "数", "數", "몇")
KOREAN_DAYS = {"하루": 1, "이틀": 2, "사흘": 3, "나흘": 4, "닷새": 5, "열흘": 10}
DIGITS = {**{digit: number for number, digit in enumerate("〇一二三四五六七八九")}, "零": 0}
CJK_DAYS = {
    **dict(zip("一二三四五六日天", (0, 1, 2, 3, 4, 5, 6, 6), strict=True)),
    **dict(zip("月火水木金土", range(6), strict=True)),
    **dict(zip("월화수목금토일", range(7), strict=True)),
}
UNIT_DAYS = {"day": 1, "week": 7, "天": 1, "日": 1, "周": 7, "週": 7, "星期": 7, "礼拜": 7, "禮拜": 7, "일": 1, "주": 7}
MONTH_UNITS = ("month", "月", "개월", "달")
SEASONS = {
    name: month
    for month, names in (
        (3, "spring 春 봄"), (6, "summer 夏 여름"), (9, "autumn fall 秋 가을"), (12, "winter 冬 겨울"), (4, "二季度"),
        (1, "初 年初 寒假 上半年 一季度"), (7, "暑假 下半年 三季度"), (10, "底 末 年底 年末 四季度"),
    )
    for name in names.split()
}  # fmt: skip
HALVES = ("上半年", "下半年")
YEARS_BACK = {
    name: years
    for years, names in (
        (-2, "后年 後年 再来年"), (-1, "明年 来年 來年 내년"), (0, "今年 올해"), (1, "去年 昨年 작년"), (2, "前年 一昨年 おととし 재작년"), (3, "大前年 一昨々年 さきおととし"),
    )
    for name in names.split()
}  # fmt: skip
PARTS = {"early": 1, "beginning of": 1, "mid": 11, "middle of": 11, "late": 21, "end of": 21}

MONTH = "|".join(sorted(MONTHS, key=len, reverse=True))
NUMBER = rf"(?:{'|'.join(TENS)})[- ](?:one|two|three|four|five|six|seven|eight|nine)|" + "|".join(
    sorted((word for word in (*NUMBERS, *VAGUE) if word.isascii()), key=len, reverse=True)
)
CJK_NUMBER = r"\d{1,3}|[一二两兩三四五六七八九十]{1,3}|[几幾数數]"
KOREAN_NUMBER = "|".join(
    sorted((word for word in (*NUMBERS, *VAGUE) if "가" <= word[0] <= "힣"), key=len, reverse=True)
)
ORDINAL = r"(?P<day>[0-3]?\d)(?:st|nd|rd|th)?"
YEAR = r"(?P<year>(?:19|20)\d\d)"
CJK_YEAR = r"(?P<year>(?:19|20)\d\d|[一二][九〇零][〇零一二三四五六七八九]{2}|\d\d(?=年\d{1,2}月))\s*[年년]"
CJK_MONTH = r"(?P<month>[01]?\d|[一二三四五六七八九十]{1,2})\s*[月월]"
CJK_DAY = r"(?P<day>[0-3]?\d|[一二三四五六七八九十]{1,3})\s*[日号號일]"
BACK = rf"(?P<back>{'|'.join(sorted(YEARS_BACK, key=len, reverse=True))})(?:的|の|\s)*"
# The months of the moon's calendar begin up to seven weeks later.
SOLAR = r"(?<!农历|農曆|阴历|陰曆|旧暦|음력)(?<!음력\s)"
NO_DAY = r"(?!\s*(?:[0-3]?\d|[一二三四五六七八九十]{1,3})\s*[日号號일])"
CJK_SEASON = r"(?P<season>春(?![节節分联聯运運])|夏(?![至令])|秋(?!分)|冬(?![至奥奧])|봄|여름|가을|겨울|[寒暑]假|[上下]半年|[一二三四]季度|年?初(?![一二三中春夏秋冬恋戀次])|年?[底末](?![薪层層线線班日]))"
# Of what the moon tells the days that it can be on: the second new moon after the winter solstice is New Year's.
FEASTS = {
    name: when
    for when, names in (
        ((1, 1, 1), "元旦"), ((1, 21, 32), "春节 春節 农历新年 農曆新年 过年 過年 旧正月 설날"), ((2, 4, 32), "元宵 正月十五"),
        ((2, 14, 1), "情人节 情人節"), ((5, 1, 5), "五一"), ((5, 28, 30), "端午"), ((9, 7, 32), "中秋 추석"),
        ((10, 1, 7), "国庆 國慶"), ((11, 11, 1), "双十一 雙十一 双11 雙11"), ((12, 25, 1), "圣诞 聖誕"),
    )
    for name in names.split()
}  # fmt: skip
_FEAST = f"(?P<feast>{'|'.join(FEASTS)})(?![路广廣])"
FEAST = (
    re.compile(rf"(?<!\d){CJK_YEAR}(?:的|の|\s)*{_FEAST}"),
    re.compile(f"{BACK}{_FEAST}"),
    # Behind a surname it is a person's name.
    re.compile(rf"(?<![\d一二三四五六七八九十李王张張刘劉陈陳杨楊赵趙黄黃周吴吳孙孫]){_FEAST}"),
)

# "May" and "march" are verbs too: in small letters and before a word they are months where a word says when.
VERBS = frozenset({"may", "march"})
SURE = re.compile(r"\d(?:st|nd|rd|th)\b|\d{4}", re.IGNORECASE)
WHEN = re.compile(r"\b(?:on|of|the|since|from|to|before|after|until|by|and)\s$", re.IGNORECASE)
COUNTED = r"(?!\s+(?:times|seconds?|minutes?|hours?|days?|weeks?|months?|years?)\b)"
FULL = (
    re.compile(rf"(?<!\d){YEAR}[-/.](?P<month>[01]?\d)[-/.](?P<day>[0-3]?\d)(?!\d)"),
    re.compile(rf"(?<![\d.])(?P<day>[0-3]?\d)\.\s?(?P<month>[01]?\d)\.\s?{YEAR}(?!\.?\d)"),
    re.compile(rf"(?<!\d){CJK_YEAR}\s*{CJK_MONTH}\s*{CJK_DAY}"),
    re.compile(
        rf"\b{ORDINAL}\.?(?:\s+(?:of|de))?\s+(?P<name>{MONTH})\b\.?(?:,?\s+(?:del?\s+)?{YEAR}\b)?", re.IGNORECASE
    ),
    re.compile(
        rf"\b(?P<name>{MONTH})\.?\s+(?:the\s+)?{ORDINAL}\b(?!\d){COUNTED}"
        rf"(?:,?\s+{YEAR}\b)?",
        re.IGNORECASE,
    ),
    re.compile(rf"(?<![\d年년]){SOLAR}{CJK_MONTH}\s*{CJK_DAY}"),
)
PART = re.compile(
    rf"\b(?P<part>{'|'.join(PARTS)})[\s-]+(?P<name>{MONTH})\b\.?(?:,?\s+(?:of\s+)?{YEAR}\b)?", re.IGNORECASE
)
OF_YEAR = (
    re.compile(rf"(?<!\d){CJK_YEAR}\s*{CJK_MONTH}{NO_DAY}"),
    re.compile(rf"\b(?P<name>{MONTH})\b\.?,?\s+(?:(?:of|del?)\s+)?{YEAR}\b", re.IGNORECASE),
    re.compile(rf"(?<!\d){YEAR}-(?P<month>[01]\d)(?![-\d])"),
)
# "may" is a verb too, so a bare month needs its capital or a preposition.
BARE_MONTH = (
    re.compile(
        r"\b(?:(?:[Ii]n|[Dd]uring|[Ss]ince|[Uu]ntil|[Bb]y|[Oo]f)\s+(?![Mm]ars\b)|"
        r"(?:[Ll]ast|[Tt]his)\s+(?![Mm]ars\b|may\b|march\b)|"
        r"(?:[Ii]m|[Aa]b|[Bb]is|[Ss]eit|[Ee][nm]|[Dd][ei]|[Dd]epuis|[Dd]esde|[Hh]asta|[Aa]té|[Dd]a|[Вв]|[Сс]|[Дд]о)\s+"
        rf"(?![Mm]ar\b))(?P<name>(?i:{MONTH}))\b(?!\.?\s+\d|['\u2019]s\b)"
    ),
    re.compile(
        rf"(?<![\d年년个個ヶか一二三四五六七八九十闰閏]){SOLAR}(?P<month>1[0-2]|[1-9]|十[一二]?|[一二三四五六七八九])\s*[月월]{NO_DAY}"
        r"(?!\s*[一二两三几幾数\d]+\s*[次回遍])"
    ),
)
# From one month to another: a year is behind both, or before both.
INTERVAL = (
    re.compile(
        rf"\b(?:from|between|vo[nm]|zwischen|de|entre|desde|da|tra|fra|с)\s+(?P<first>{MONTH})\s+"
        rf"(?:to|till|until|through|and|bis|und|à|et|hasta|a|y|e|até|по)\s+(?P<name>{MONTH})\b"
        rf"(?!\.?\s+\d{{1,2}}\b)(?:,?\s+(?:(?:of|del?)\s+)?{YEAR}\b)?",
        re.IGNORECASE,
    ),
    re.compile(
        rf"(?<![\d年년])(?:{CJK_YEAR}\s*)?(?P<first>[01]?\d|[一二三四五六七八九十]{{1,2}})\s*[月월]?\s*(?:[到至~-]|から|부터)\s*"
        f"{CJK_MONTH}{NO_DAY}"
    ),
)
# What makes a period last until today, before it and behind.
SINCE = re.compile(r"\b(?:since|seit|depuis|desde|dal|с)(\s)(?:(?:the|dem|le|el)\s)?", re.IGNORECASE)
UNTIL_NOW = re.compile(
    "\\s*(?:份|の|个|個)?(?:以来|以來|以[后後]|之[后後]|起(?![床来來飞飛])|开始|開始|以降|から|부터|이후)"
)
DECADE = re.compile(
    r"\bthe\s+['\u2019]?(?P<year>(?:19|20)?\d0)['\u2019]?s\b|(?<!\d)(?P<cjk>(?:19|20)?\d0|[二三四五六七八九]十)\s*年代"
)
BARE_YEAR = (re.compile(rf"\b(?:in|during|of|since|from|year|summer|winter|spring|autumn|fall)\s+{YEAR}\b", re.IGNORECASE),
              re.compile(rf"(?<!\d){CJK_YEAR}(?!\s*\d)"))  # fmt: skip
SEASON = (
    re.compile(r"\b(?P<season>spring|summer|autumn|fall|winter)(?:\s+of)?\s+(?P<year>(?:19|20)\d\d)\b", re.IGNORECASE),
    re.compile(rf"(?<!\d){CJK_YEAR}(?:の|\s)*{CJK_SEASON}"),
)

# "Two months ago" is another time after "3 years and".
WHOLE = r"(?<!\byear and )(?<!\byears and )(?<!\bmonths and )(?<!\bmonth and )(?<!\bhundred and )(?<!\bhundred )"
CJK_UNIT = r"(?:天|日間?|周|週間?|星期|礼拜|禮拜|月|年間?)"
# Up to today: "in the last two weeks", 最近三天.
LATELY = (
    re.compile(
        rf"\b(?:(?:in|over|during|within|for) (?:the |my )?(?:last|past)|the past)\s+(?:(?P<n>\d{{1,3}}|{NUMBER})\s+)?"
        r"(?P<unit>day|week(?!end)|month|year)s?\b(?!\s+of\b)",
        re.IGNORECASE,
    ),
    re.compile(
        rf"(?:最近|过去|過去|(?<![附最])近|ここ)(?:的|这|這|の)?(?P<n>{CJK_NUMBER})\s*[个個ヶヵケかカ]?\s*(?P<unit>{CJK_UNIT})(?![前一-九])"
    ),
    re.compile(rf"(?:최근|지난)\s*(?P<n>\d{{1,3}}|{KOREAN_NUMBER})\s*(?P<unit>일|주|개월|달|년)(?!\s*전)"),
)
AGO = (
    re.compile(
        rf"\b{WHOLE}(?P<n>\d{{1,3}}|{NUMBER})(?:\s+of)?\s+(?P<unit>day|week(?!end)|month|year)s?\s+"
        r"(?:ago|earlier|back)\b(?:\s+(?:today|yesterday|tomorrow)\b)?",
        re.IGNORECASE,
    ),
    re.compile(
        rf"(?<![零百千年一二两兩三四五六七八九十\d])(?P<n>[几幾数數]十|[二三四五六七八九]?十[{SOME}]|{CJK_NUMBER})\s*[个個ヶヵケかカ]?\s*(?P<unit>天|日|周|週間?|星期|礼拜|禮拜|月|年)(?:之?前|以前)"
    ),
    re.compile(rf"(?P<n>\d{{1,3}}|(?<![가-힣])(?:{KOREAN_NUMBER}))\s*(?P<unit>일|주|개월|달|년)(?:일|간)?\s*전"),
)
EUROPEAN_NUMBERS = {
    word: number
    for number, names in enumerate(
        ("ein eine einem einer un une una uno um uma один одну", "zwei deux dos due dois duas два две", "drei trois tres tre três три",
         "vier quatre cuatro quattro quatro четыре", "fünf cinq cinco cinque пять", "sechs six seis sei шесть",
         "sieben sept siete sette sete семь", "acht huit ocho otto oito восемь", "neun neuf nueve nove девять",
         "zehn dix diez dieci dez десять"), 1,
    )
    for word in names.split()
}  # fmt: skip
EUROPEAN_UNITS = {
    name: unit
    for unit, names in (
        ("day", "tag tagen jour jours día dia días dias giorno giorni день дня дней"),
        ("week", "woche wochen semaine semaines semana semanas settimana settimane неделю недели недель"),
        ("month", "monat monaten mois mes meses mese mesi mês месяц месяца месяцев"),
        ("year", "jahr jahren an ans año años ano anos anno anni год года лет"),
    )
    for name in names.split()
}
_AGO = rf"(?P<n>\d{{1,3}}|{'|'.join(EUROPEAN_NUMBERS)})\s+(?P<unit>{'|'.join(EUROPEAN_UNITS)})"
# Most questions have none of these words, which are looked for in no time.
AGO_SAID = re.compile(r"vor |il y a |hace |há |faz | fa\b| atrás| назад", re.IGNORECASE)
EUROPEAN_AGO = (
    re.compile(rf"\b(?:vor|il y a|hace|há|faz)\s+{_AGO}\b", re.IGNORECASE),
    re.compile(rf"\b{_AGO}\s+(?:fa|atrás|назад)\b", re.IGNORECASE),
)
KOREAN_AGO = re.compile(rf"(?P<n>{'|'.join(KOREAN_DAYS)})\s*전")
HALF_MONTH = re.compile(r"半[个個]月(?:之?前|以前)|보름\s*전|\b(?:a fortnight|half a month) ago\b", re.IGNORECASE)
HALF_YEAR = re.compile(r"\bhalf a year ago\b|半年(?:之?前|以前)|반\s*년\s*전", re.IGNORECASE)
WEEKENDS_AGO = re.compile(rf"\b(?P<n>\d{{1,2}}|{NUMBER})(?:\s+of)?\s+weekends\s+ago\b", re.IGNORECASE)
FEW_DAYS = re.compile(r"前[几幾两兩]天|先日|며칠\s*전|\bthe other day\b", re.IGNORECASE)
NAMED = (
    (re.compile(r"大前天|一昨々日|さきおととい|그끄저께"), -3),
    (re.compile("大[后後]天|しあさって|글피"), 3),
    (
        re.compile(
            r"\b(?:the )?day before yesterday\b|前天|一昨日|おととい|그저께|그제|"
            r"\b(?:позавчера|vorgestern|avant-hier|anteayer|antier|l'altro ieri|anteontem)\b",
            re.IGNORECASE,
        ),
        -2,
    ),
    (
        re.compile(
            r"\b(?:yesterday|last night)\b|昨[天日晚夜晩夕儿兒]|尋日|(?<![钢鋼提古口胡])琴日(?![常记記])|きのう|어제|어젯밤|"
            # "Hier" alone is German, too.
            r"\b(?:вчера|gestern|ayer|anoche|ieri|ontem|hier (?:soir|matin))\b",
            re.IGNORECASE,
        ),
        -1,
    ),
    (
        re.compile(
            r"\b(?:today|tonight|this (?:morning|afternoon|evening))\b|今[天日晚早晩朝夜儿兒]|きょう|오늘|"
            r"\b(?:сегодня|heute|aujourd['\u2019]hui|hoy|oggi|hoje)\b",
            re.IGNORECASE,
        ),
        0,
    ),
    (
        re.compile(
            r"\b(?:the )?day after tomorrow\b|(?<![大先])[后後]天|明後日|あさって|모레|"
            r"\b(?:послезавтра|übermorgen|apr[èe]s-demain|pasado ma[ñn]ana|dopodomani|depois de amanh[ãa])\b",
            re.IGNORECASE,
        ),
        2,
    ),
    (
        re.compile(
            r"\btomorrow\b|明[天日早晚]|(?<![聪聰光])明[儿兒](?![子童女科歌媳])|聽日(?![語本文])|내일|\b(?:завтра|demain|domani|amanh[ãa])\b|(?<!la )(?<!pasado )\bma[ñn]ana\b",
            re.IGNORECASE,
        ),
        1,
    ),
    # With a capital it is the morning.
    (re.compile(r"\bmorgen\b"), 1),
)
NOT_OF = r"(?!\s+of\b)"
CJK_WEEK = r"(?:[个個]?(?:周|週|星期|礼拜|禮拜))"
WEEK_DAY = r"(?![一二三四五六日末]|天(?![气氣]))"
# Last, this and next week, month and year in German, French, Spanish, Italian, Portuguese and Russian.
EUROPEAN = {
    -1: r"прошл\w{{2,3}} {ru}|(?:letzte|vorige|vergangene)[nrsm]? {de}|{fr} derni[èe]re?|{es} pasad[oa]|{it} scors[oa]|scors[oa] {it}|{pt} passad[oa]",
    0: r"эт(?:от|ой|ом|и|их|у) {ru}|diese[nrsm]? {de}|cet?(?:te)? {fr}|est[ae] {es}|quest(?:['\u2019] ?|[oa] ){it}|(?:n?este|n?esta) {pt}",
    1: r"(?:следующ|будущ)\w{{2,3}} {ru}|(?:nächste|kommende)[nrsm]? {de}|{fr} prochaine?|pr[óo]xim[oa] {es}|{es} que viene|{it} prossim[oa]|prossim[oa] {it}|"
       r"pr[óo]xim[oa] {pt}|{pt} que vem",
}  # fmt: skip


def _european(away: int, de: str, fr: str, es: str, it: str, pt: str, ru: str) -> re.Pattern[str]:
    said = EUROPEAN[away].format(de=de, fr=fr, es=es, it=it, pt=pt, ru=ru)
    return re.compile(rf"\b(?:{said})\b(?!\s+(?:vor|de[slr]?|du|di|d[ao])\b)", re.IGNORECASE)


_WEEK = ("woche", "semaine", "semana", "settimana", "semana", "недел[юеия]")
_WEEKEND = ("wochenende", "week-?end", "fin de semana", "(?:weekend|fine settimana)", "fim de semana", "выходны[ехм]")
_MONTH = ("monat", "mois", "mes", "mese", "m[êe]s", "месяц[ае]?")
_YEAR = ("jahr", "ann[ée]e", "a[ñn]o", "anno", "ano", "год[ау]?")

WEEKS = (
    (_european(-1, *_WEEKEND), -1, (5, 7)),
    (_european(0, *_WEEKEND), 0, (5, 7)),
    (_european(1, *_WEEKEND), 0, (5, 14)),
    *((_european(away, *_WEEK), away, (0, 7)) for away in EUROPEAN),
    # In English that may be this one.
    (re.compile(rf"\bnext weekend\b{NOT_OF}|(?<!下)下{CJK_WEEK}末|来週末|来週の週末|다음\s*주말", re.IGNORECASE), 0, (5, 14)),
    (re.compile(rf"\b(?:next|coming) week\b{NOT_OF}|(?<!下)下{CJK_WEEK}{WEEK_DAY}|(?<!再)来週(?!末)|다음\s*주(?!말)", re.IGNORECASE), 1, (0, 7)),
    (re.compile(rf"\b(?:the )?weekend before last\b|(?<!上)上上{CJK_WEEK}末|先々週末|先々週の週末|지지난\s*주말", re.IGNORECASE), -2, (5, 7)),
    (re.compile(rf"\b(?:the )?week before last\b|(?<!上)上上{CJK_WEEK}{WEEK_DAY}|先々週(?!末)|지지난\s*주(?!말)", re.IGNORECASE), -2, (0, 7)),
    (re.compile(rf"\b(?:last|past) weekend\b{NOT_OF}|(?<!上)上{CJK_WEEK}末|先週末|先週の週末|(?:지난|저번)\s*주말", re.IGNORECASE), -1, (5, 7)),
    (re.compile(r"\b(?:this|coming) weekend\b|这[个個]?周末|這[個]?週末|本周末|今週末|이번\s*주말", re.IGNORECASE), 0, (5, 7)),
    (re.compile(rf"\b(?:last|previous|past) week\b{NOT_OF}|(?<!上)上{CJK_WEEK}{WEEK_DAY}|先週(?!末)|(?:지난|저번)\s*주(?!말)", re.IGNORECASE), -1, (0, 7)),
    (re.compile(rf"(?<!下)下下{CJK_WEEK}{WEEK_DAY}|再来週(?!末)"), 2, (0, 7)),
    (re.compile(rf"\bthis week\b|[这這本]{CJK_WEEK}{WEEK_DAY}|今週(?!末)|이번\s*주(?!말)", re.IGNORECASE), 0, (0, 7)),
)  # fmt: skip
WEEKDAY = re.compile(
    rf"\b(?P<which>last|this past|past|next|this coming|coming|upcoming|this|on|since|for|by)\s+(?P<name>{'|'.join(WEEKDAYS)})\b(?!\s+before last){NOT_OF}|"
    rf"\b(?P<earlier>{'|'.join(WEEKDAYS)})\s+before last\b",
    re.IGNORECASE,
)
_LAST, _NEXT = r"dernier|pasado|scors[oa]|passad[oa]", r"prochain|que viene|prossim[oa]|que vem"
EUROPEAN_WEEKDAY = (
    re.compile(
        rf"\b(?:(?P<last>letzte[nrsm]?|vorige[nrsm]?|прошл\w{{2,3}})|(?P<next>nächste[nrsm]?|kommende[nrsm]?|próxim[oa]|"
        rf"следующ\w{{2,3}})|(?P<by>bis|hasta el|para el|entro|até|до))\s+(?P<name>{'|'.join(EUROPEAN_DAYS)})\b",
        re.IGNORECASE,
    ),
    re.compile(rf"\b(?P<name>{'|'.join(EUROPEAN_DAYS)})\s+(?:(?P<last>{_LAST})|(?P<next>{_NEXT}))\b", re.IGNORECASE),
)
CJK_WEEKDAY = (
    re.compile(rf"(?<![上下])(?P<which>上上|上|下下|下|这|這|本){CJK_WEEK}(?P<name>[一二三四五六日]|天(?![气氣]))"),
    # Without a word before it, it is that of this week; 三周一次 has none.
    re.compile(
        r"(?<![上下每逢隔前后後个個几幾数數两兩半整多\d一二三四五六七八九十这這本日号號(])(?P<which>)(?:周|週|星期|礼拜|禮拜)"
        r"(?P<name>[一二三四五六日]|天(?![气氣]))(?![次遍回百千])"
    ),
    re.compile(r"(?P<which>先々週|先週|今週|再来週|来週)(?:の|\s)*(?P<name>[月火水木金土日])曜"),
    re.compile(r"(?P<which>지지난|지난|저번|이번|다음)\s*주\s*(?P<name>[월화수목금토일])요일"),
)
WEEKS_AWAY = {
    "上上": -2, "先々週": -2, "지지난": -2, "上": -1, "先週": -1, "지난": -1, "저번": -1,
    "下": 1, "来週": 1, "다음": 1, "下下": 2, "再来週": 2,
}  # fmt: skip
# Of two days of a name that is asked about which is still to come.
AHEAD = re.compile(
    r"\b(?:will|won['\u2019]t|shall|should|going to|coming|upcoming|plan(?:s|ned|ning)?|book|do (?:i|we) have|am i|are we)\b|"
    r"['\u2019]ll\b",
    re.IGNORECASE,
)
NAMED_MONTHS = (
    *((_european(away, *_MONTH), -away) for away in EUROPEAN),
    *(
        (re.compile(rf"(?:{said})(?:[的の\s]*{CJK_DAY})?", re.IGNORECASE), back)
        for back, said in (
            (2, r"\bmonth before last\b|上上[个個]?月|先々月|지지난\s*달"),
            (1, rf"\b(?:last|previous|past) month\b{NOT_OF}|上[个個]?月|先月|(?:지난|저번)\s*달"),
            (0, r"\bthis month\b|[这這本][个個]?月|今月|이번\s*달|(?<![个個上下每\d一二三四五六七八九十])月[初底末]"),
            (-1, rf"\b(?:next|coming) month\b{NOT_OF}|(?<!下)下[个個]?月|来月|다음\s*달"),
            (-2, r"(?<!下)下下[个個]?月|再来月"),
        )
    ),
)
MONTH_BACK = (
    re.compile(rf"{BACK}{CJK_MONTH}(?:\s*{CJK_DAY})?"),
    re.compile(rf"\b(?P<name>{MONTH})\s+(?:of\s+)?(?P<back>last|this)\s+year\b", re.IGNORECASE),
    re.compile(rf"\b(?P<back>last|this)\s+year,?\s+in\s+(?P<name>{MONTH})\b(?!\.?\s+\d)", re.IGNORECASE),
)
SEASON_BACK = (
    re.compile(rf"{BACK}{CJK_SEASON}"),
    re.compile(r"\b(?P<back>last)\s+(?P<season>spring|summer|autumn|fall|winter)\b", re.IGNORECASE),
)
NAMED_YEARS = (
    *((_european(away, *_YEAR), -away) for away in EUROPEAN),
    (re.compile(r"(?<![今以之先])[后後]年|再来年"), -2),
    (re.compile(r"大前年|一昨々年|さきおととし"), 3),
    (re.compile(r"\byear before last\b|一昨年|前年|おととし|재작년", re.IGNORECASE), 2),
    (re.compile(rf"\b(?:last|previous|past) year\b{NOT_OF}|去年|昨年|작년|지난\s*해", re.IGNORECASE), 1),
    (re.compile(r"\bthis year\b|今年|올해", re.IGNORECASE), 0),
    (re.compile(rf"\b(?:next|coming) year\b{NOT_OF}|明年|来年|來年|내년", re.IGNORECASE), -1),
)
