"""Words that say little, by language; how many of a language's a query has tells which it is asked in."""

from __future__ import annotations

from collections.abc import Iterable

_ENOUGH = 2
"""Function words that tell a language; one alone may be a word of another ("die", "on", "pour")."""

# "may" is a month and "no" an answer: both stay. Contractions are written as tokens are.
ENGLISH = frozenset(
    """
    a an the this that these those some any each every either neither both all such another other same own
    i me my mine myself you your yours yourself yourselves he him his himself she her hers herself it its itself
    we us our ours ourselves they them their theirs themselves
    who whom whose what which when where why how whatever whichever whoever
    am is are was were be been being do does did done doing have has had having
    can could will would shall should might must ought cannot
    of at by for with about against between into through during before after above below to from up down in out on off
    over under upon onto within without again further once here there
    and but or nor so yet if because as until while though although since whether than then
    not only too very just also even quite rather ever still already
    arent cant couldnt didnt doesnt dont hadnt hasnt havent isnt mightnt mustnt shouldnt wasnt werent wont wouldnt
    im ive youre youve theyre theyve whats wheres whos
    """.split()  # noqa: SIM905 - a table of words reads better than their list
)
_OTHERS = {
    language: frozenset(words.split())
    for language, words in {
        "de": """
            der die das den dem des ein eine einen einem einer eines dies diese dieser dieses diesen diesem ich mich
            mir du dich dir er ihn ihm sie es wir uns ihr euch ihnen ihre ihren ihrem ihrer sich mein meine meinen
            meinem meiner dein deine deinen deinem deiner sein seine seinen seinem seiner unser unsere wer wen wem
            wessen was wann wo woher wohin wie warum wieso weshalb welche welcher welches welchen welchem viel bin
            bist ist sind seid war waren gewesen wird werden wurde wurden worden habe hast hat haben hatte hatten kann
            können konnte muss müssen musste soll sollen sollte will wollen wollte darf dürfen würde würden von zu zum
            zur mit bei beim nach aus auf an am im in ins um für über unter vor durch gegen ohne bis seit ab und oder
            aber denn weil dass wenn als ob auch nur noch schon sehr so da dann doch mal nicht gerade""",
        "es": """
            el la los las lo un una unos unas al del de a en con por para sin sobre entre hasta desde durante yo me mí
            tú te ti él ella ello nosotros vosotros ellos ellas usted ustedes nos os se le les mi mis tu tus su sus
            nuestro nuestra nuestros nuestras este esta esto estos estas ese esa eso esos esas que qué quien quién
            quienes quiénes cual cuál cuales cuáles cuando cuándo donde dónde adónde como cómo cuanto cuánto cuanta
            cuánta cuantos cuántos cuantas cuántas ser soy eres es somos son era eran fue fueron estar estoy estás
            está estamos están estaba estaban haber he has ha han había hay tener tiene tienen tengo tenía puede
            pueden puedo debe deben debo hace hacen y e o u pero porque si aunque mientras también ya muy""",
        "fr": """
            le la les l un une des du de d à au aux en dans sur sous avec sans pour par chez vers entre depuis pendant
            je j me m moi tu te t toi il elle on se s nous vous ils elles lui leur leurs y mon ma mes ton ta tes son
            sa ses notre nos votre vos ce c cet cette ces cela ça que qu qui quoi quel quelle quels quelles quand où
            comment pourquoi combien suis es est sommes êtes sont était étaient être été ai as a avons avez ont avait
            avaient avoir fait faire peut peuvent peux doit doivent dois va vont et ou mais donc car si comme parce
            aussi très encore ne n pas""",
        "it": """
            il lo la i gli le l un uno una di d del dello della dell dei degli delle a ad al allo alla all ai agli
            alle da dal dalla dai in nel nello nella nell nei nelle con su sul sulla per tra fra senza durante fino io
            mi me tu ti te lui lei noi ci voi vi loro si ne mio mia miei mie tuo tua tuoi tue suo sua suoi sue nostro
            che chi cosa cos quale quali quando dove dov come com perché quanto quanta quanti quante questo questa
            quello sono sei è siamo siete era erano essere stato stata ho hai ha abbiamo avete hanno aveva avere può
            possono posso deve devono devo fa fanno fare e ed o ma se anche già ancora molto non""",
        "pt": """
            o a os as um uma uns umas de do da dos das d em na nos nas num numa ao aos à às por pelo pela para pra com
            sem eu me mim tu te ti ele ela você nós vocês eles elas se lhe lhes sobre entre até desde durante meu
            minha meus minhas teu tua seu sua seus suas nosso nossa este esta isto esse essa isso que quem qual quais
            quando onde aonde como porque porquê quanto quanta quantos quantas sou é são era eram foi foram ser estou
            está estão estava estar tenho tem têm tinha ter há pode podem posso deve devem devo faz fazem fazer e ou
            mas também já ainda muito não""",
        "nl": """
            de het een dit dat deze die van in op te aan met voor door bij uit over naar om tot zonder tegen tussen
            sinds ik me mij je jij jou u hij hem zij ze haar wij we ons jullie hen hun zich mijn jouw zijn onze wie
            wat wanneer waar waarom hoe welke welk hoeveel ben bent is was waren wordt worden werd heb hebt heeft
            hebben had hadden kan kunnen moet moeten zal zullen wil willen mag mogen en of maar want als ook nog al
            heel niet er""",
        "hi": "है हैं हूँ था थी थे में को के की का से पर ने और यह वह मैं मेरा मेरी मेरे मुझे आप तुम कि भी ही",
    }.items()
}
"""By ISO 639-1 code."""


def language_of(words: Iterable[str]) -> str:
    """The language that words are of, as an ISO 639-1 code; "en" where they tell none, or none of these.

    Args:
        words: In lower case.
    """
    distinct = set(words)
    counts = {language: len(distinct & known) for language, known in _OTHERS.items()}
    best = max(counts, key=lambda language: counts[language])
    return best if counts[best] >= _ENOUGH and counts[best] > len(distinct & ENGLISH) else "en"


def function_words(language: str) -> frozenset[str]:
    """Those of a language that `language_of` names."""
    return _OTHERS.get(language, ENGLISH)
