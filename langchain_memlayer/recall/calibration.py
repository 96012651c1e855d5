"""Which scripts and languages an embedder knows, and cosines of any metric on one scale.

The weight of meaning against words follows how well the embedder understands the script of a query: one that was made
for English gives everything in Chinese about the same cosine, and words have to decide there. So each is asked once, in
several scripts and languages, about questions and statements of which each question fits one. How often the right one
is the nearest would mislead, since it may be so by a hair: what counts is how far it stands out from the others.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from math import sqrt

import numpy as np
from numpy.typing import NDArray

from langchain_memlayer.types import Metric

_PAIRS = {
    "latin": """
        I moved to a small flat near the river in March. | Where do I live now?
        My sister is allergic to peanuts and shellfish. | What is my sister allergic to?
        We adopted a grey cat from the shelter last week. | Which pet did we get?
        He plays the cello in an amateur orchestra. | Which instrument does he know?
        Our flight was cancelled because of the storm. | Why did the plane not leave?
        I baked sourdough bread for the first time. | What did I make in the oven?""",
    "han": """
        三月份我搬进了河边的一套小公寓。 | 你现在的家在哪儿？
        我妹妹对花生和贝类过敏。 | 妹妹不能吃什么？
        上周我们从收容所领养了一只灰猫。 | 你们养了什么宠物？
        他在业余乐团里拉大提琴。 | 他会哪种乐器？
        因为暴风雨，我们的航班取消了。 | 飞机为什么没飞？
        我第一次烤了酸面包。 | 你自己做了什么点心？""",
    "kana": """
        三月に川のそばの小さなアパートに引っ越しました。 | 今どこに住んでいますか？
        妹はピーナッツと貝のアレルギーがあります。 | 妹さんが食べられないものは？
        先週、保護施設から灰色の猫を引き取りました。 | どんなペットを飼い始めましたか？
        彼はアマチュアのオーケストラでチェロを弾いています。 | 彼はどの楽器ができますか？
        嵐のせいで私たちの便は欠航になりました。 | なぜ飛行機は飛ばなかったのですか？
        初めてサワードウのパンを焼きました。 | オーブンで何を作りましたか？""",
    "hangul": """
        저는 삼월에 강가의 작은 아파트로 이사했어요. | 지금 사는 곳이 어디예요?
        제 여동생은 땅콩과 조개에 알레르기가 있어요. | 동생이 못 먹는 음식은?
        지난주에 보호소에서 회색 고양이를 입양했어요. | 어떤 반려동물을 키우게 됐어요?
        그는 아마추어 오케스트라에서 첼로를 연주해요. | 그가 다루는 악기는 무엇인가요?
        폭풍 때문에 우리 비행기가 취소됐어요. | 왜 항공편이 뜨지 못했나요?
        처음으로 사워도우 빵을 구웠어요. | 오븐으로 무엇을 만들었어요?""",
    "cyrillic": """
        В марте я переехал в маленькую квартиру у реки. | Где я теперь живу?
        У моей сестры аллергия на арахис и моллюсков. | Чего нельзя есть сестре?
        На прошлой неделе мы взяли из приюта серую кошку. | Какой питомец у нас появился?
        Он играет на виолончели в любительском оркестре. | Каким инструментом он владеет?
        Наш рейс отменили из-за бури. | Почему самолёт не вылетел?
        Я впервые испёк хлеб на закваске. | Что я приготовил в духовке?""",
    "arabic": """
        انتقلت في مارس إلى شقة صغيرة قرب النهر. | أين أسكن الآن؟
        أختي لديها حساسية من الفول السوداني والمحار. | ما الذي لا تستطيع أختي أكله؟
        تبنينا الأسبوع الماضي قطة رمادية من الملجأ. | أي حيوان أليف صار عندنا؟
        هو يعزف على التشيلو في أوركسترا للهواة. | أي آلة موسيقية يجيد؟
        ألغيت رحلتنا الجوية بسبب العاصفة. | لماذا لم تقلع الطائرة؟
        خبزت خبز العجين المخمر لأول مرة. | ماذا صنعت في الفرن؟""",
    "de": """
        Im März bin ich in eine kleine Wohnung am Fluss gezogen. | Wo wohne ich jetzt?
        Meine Schwester ist allergisch gegen Erdnüsse und Muscheln. | Was darf meine Schwester nicht essen?
        Letzte Woche haben wir eine graue Katze aus dem Tierheim geholt. | Welches Haustier haben wir jetzt?
        Er spielt Cello in einem Laienorchester. | Welches Instrument beherrscht er?
        Unser Flug wurde wegen des Sturms gestrichen. | Warum ist das Flugzeug nicht gestartet?
        Ich habe zum ersten Mal Sauerteigbrot gebacken. | Was habe ich im Ofen gemacht?""",
    "es": """
        En marzo me mudé a un piso pequeño junto al río. | ¿Dónde vivo ahora?
        Mi hermana es alérgica a los cacahuetes y al marisco. | ¿Qué no puede comer mi hermana?
        La semana pasada adoptamos una gata gris del refugio. | ¿Qué mascota tenemos?
        Él toca el violonchelo en una orquesta de aficionados. | ¿Qué instrumento domina?
        Cancelaron nuestro vuelo por la tormenta. | ¿Por qué no salió el avión?
        Horneé pan de masa madre por primera vez. | ¿Qué hice en el horno?""",
    "fr": """
        En mars, j'ai emménagé dans un petit appartement près de la rivière. | Où est-ce que j'habite maintenant ?
        Ma sœur est allergique aux cacahuètes et aux fruits de mer. | Qu'est-ce que ma sœur ne peut pas manger ?
        La semaine dernière, nous avons adopté un chat gris au refuge. | Quel animal avons-nous pris ?
        Il joue du violoncelle dans un orchestre amateur. | De quel instrument sait-il jouer ?
        Notre vol a été annulé à cause de la tempête. | Pourquoi l'avion n'est-il pas parti ?
        J'ai fait du pain au levain pour la première fois. | Qu'est-ce que j'ai préparé au four ?""",
}
_EACH = 6
PROBED = tuple(_PAIRS)
"""Scripts, of which "latin" stands for English, and the codes of some other languages."""
PROBES: tuple[str, ...] = tuple(
    line.split(" | ")[side].strip()
    for pairs in _PAIRS.values()
    for side in (0, 1)
    for line in pairs.strip().splitlines()
)
"""The texts to embed, once for each folder, together with the first texts that are stored."""

_LETTERS = {
    "latin": re.compile(r"[a-zÀ-ɏḀ-ỿ]", re.IGNORECASE),
    "han": re.compile(r"[\u3400-\u9fff\U00020000-\U0003ffff]"),
    "kana": re.compile(r"[\u3040-\u30ff]"),
    "hangul": re.compile(r"[\u1100-\u11ff\uac00-\ud7af]"),
    "cyrillic": re.compile(r"[\u0400-\u052f]"),
    "arabic": re.compile(r"[\u0600-\u06ff\u0750-\u077f]"),
}
_DENSE = {"han": 3, "kana": 2, "hangul": 2}
_UNKNOWN, _KNOWN, _SKILLED = 0.45, 0.75, 0.87


def knowledge_of(vectors: NDArray[np.floating], metric: Metric = "cosine") -> dict[str, float]:
    """How far the right statement stands out for an embedder, by what is `PROBED`: at most 1, about 0 if it knows none.

    The vectors are those of `PROBES`, shape (len(PROBES), dims).
    """
    if metric == "cosine":
        vectors = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    known = {}
    for script, block in zip(PROBED, np.split(np.asarray(vectors, np.float64), len(PROBED)), strict=True):
        statements, questions = block[:_EACH], block[_EACH:]
        scores = questions @ statements.T
        if metric == "euclidean":
            scores = -np.linalg.norm(questions[:, None] - statements, axis=2)
        apart = (np.diag(scores) - scores.mean(axis=1)) / np.maximum(scores.std(axis=1), 1e-9)
        known[script] = round(float(apart.mean()) / sqrt(_EACH - 1), 3)
    return known


def trust_in(text: str, known: Mapping[str, float]) -> float:
    """How far the cosines of a query are to be trusted, from 0 to 1, by the scripts that it is written in.

    `known` is what `knowledge_of` gave for the embedder: a script that was not asked about is taken for the least known
    one, and nothing known for full trust.
    """
    if not known:
        return 1.0
    return _mixed(text, known, _UNKNOWN, _KNOWN)


def skill_in(text: str, known: Mapping[str, float]) -> float:
    """How far an embedder tells texts of a query's scripts apart better than it must to be trusted, from 0 to 1.

    `known` is as for `trust_in`; nothing known is no such skill.
    """
    return _mixed(text, known, _SKILLED, 1.0) if known else 0.0


def _between(share: float, low: float, high: float) -> float:
    return min(1.0, max(0.0, (share - low) / (high - low)))


def _mixed(text: str, known: Mapping[str, float], low: float, high: float) -> float:
    """What is known of each script, by how much of a text is written in it; the least where a script is not known."""
    of_script = {script: _between(known[script], low, high) for script in _LETTERS if script in known}
    letters = {script: len(pattern.findall(text)) for script, pattern in _LETTERS.items()}
    others = max(0, sum(map(str.isalpha, text)) - sum(letters.values()))
    counts = {script: count * _DENSE.get(script, 1) for script, count in letters.items()}
    if counts["kana"]:
        # Kanji among kana are Japanese.
        counts["kana"] += counts.pop("han")
    total = sum(counts.values()) + others
    if not total:
        return of_script.get("latin", 1.0)
    least = min(of_script.values(), default=0.0)
    return (sum(of_script.get(script, least) * count for script, count in counts.items()) + least * others) / total


def fluency_in(language: str, known: Mapping[str, float]) -> float:
    """How far the cosines of what is asked in a language are to be trusted beside its words, from 0 to 1.

    Args:
        language: Its code; English is what the trust in its script says of it.
        known: What `knowledge_of` gave for the embedder; a language that was not asked about is taken for as well known
            as the others are on average, and nothing known for full trust.
    """
    others = {name: _between(share, _UNKNOWN, _KNOWN) for name, share in known.items() if name not in _LETTERS}
    if language == "en" or not others:
        return 1.0
    return others.get(language, sum(others.values()) / len(others))


def is_latin(text: str) -> bool:
    """Whether most letters of a text are Latin ones."""
    return 2 * len(_LETTERS["latin"].findall(text)) > sum(map(str.isalpha, text))


def closeness(scores: NDArray[np.float32], metric: Metric) -> NDArray[np.float32]:
    """Scores of any metric on the scale of cosines, in the same order, so that a threshold has a meaning.

    Cosines stay. A distance d becomes 1 / (1 + d); an inner product p becomes p / (1 + |p|), so that what has nothing
    in common is at 0 as with cosine, and what points away below. NaN stays.

    Args:
        scores: Higher is nearer: a cosine, an inner product or a negated distance.
        metric: Which of them.
    """
    if metric == "euclidean":
        return np.reciprocal(1 - scores)
    return scores / (1 + np.abs(scores)) if metric == "inner_product" else scores
