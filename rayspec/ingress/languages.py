"""Words by which languages are told apart, and the names of languages. Data only."""

from __future__ import annotations

import re


def _set(text: str) -> frozenset[str]:
    return frozenset(text.split())


# A script other than Latin.
NON_LATIN = re.compile(
    "[\u0370-\u1dff\u1f00-\u1fff\u2c00-\u2dff\u2e80-\ud7ff\uf900-\ufaff\ufb1d-\ufdff\ufe70-\ufefe"
    "\uff66-\uffdc\U00010300-\U000107ff\U00020000-\U0003ffff]"
)

# What English sentences are made of; few other languages share these.
ENGLISH_WORDS = _set(
    "the a an of to in and is are was were be been am it its this that these those i you he she we "
    "they me him her us them my your his our their mine what which who whose when where why how do "
    "does did done have has had can could will would should shall may might must not no yes if or "
    "but so as at by for from with without about into over under between after before than then "
    "there here all any some every each other more most less many much few very just only also too "
    "up out off down again ever never always please give tell make get need want know say write "
    "explain help like good best better new old first last next one two three five ten some thing "
    "things way ways people day days year years time home work day use used using list show find "
    "name names idea ideas tips thanks thank hello word words mean means difference recommend plan "
    "long big small short quick easy hard near me cheap call come put take see look think read"
)

# Of those, what is a word of its neighbours too, and so tells half as much.
SHARED_WORDS = (
    _set(
        "is in a me no as was we of over on do so to an am he had all will best put come per as or "
        "us"
    )
    & ENGLISH_WORDS
)

# Function words, and the commonest verbs, of languages in Latin script. Left out: what is also
# English (die, was, on), and the particles of names below.
_FOREIGN = (
    # Spanish, Catalan, Galician, Basque
    "que qué por para con como cómo cuál cuáles está están más puedo puede quiero quisiera pero "
    "sobre una uno unos unas hay cuando cuándo donde dónde quién quien porque también muy mejor "
    "mejores tengo tiene tienes hacer necesito dime soy eres son desde hasta entre sin según "
    "cuanto cuánto cuántos cuesta esta este estos eso esto algo todo todos mis tus ser fue había "
    "gracias hola ideas ahora años amb és els quina quin què com puc vull millor però perquè "
    "molt seva onde unha moi da dut nola zer zein egin eta euskal "
    # Portuguese
    "uma não são em você vocês isso mais quais é posso quero meu minha como qual quanto custa "
    "melhor fazer preciso também muito onde porque até já foi tem há ao aos pelo pela seu sua "
    "obrigado olá "
    # French
    "une dans avec sur qui quelle quel quels quelles sont je vous nous mais comment cette ce "
    "c'est est-ce quoi peux puis peut pouvez faire suis être avoir entre très aussi où quand "
    "pourquoi parce moi ton mon ma mes ses leur leurs tous toute plus pas bien bonjour merci et "
    "ou il elle ont donc chez combien meilleur meilleure quelques depuis "
    # Italian
    "gli che per non sono della delle dei degli nel nella perché qual quale quali cosa questo "
    "questa posso puoi voglio vorrei come dove quando quanto costa più migliore migliori fare "
    "anche molto mi si ho hai è un uno ciao grazie al dal sul alla tra fra ogni "
    # Romanian
    "este sunt și pentru care cum unde pot ce cel cea mai din într nu să fi bine poate cât vreau "
    # German, Dutch, Afrikaans
    "das und ist nicht ein eine einen einem einer für mit auf wie ich sie zu dem wird kannst "
    "bitte warum wo wer wann welche welcher welches mir mich dich du wir ihr sind habe haben "
    "kann muss soll sollte beim vom zum zur auch noch nur oder aber wenn als bei nach über gegen "
    "ohne sich es gibt viel mehr sehr ob danke hallo mein meine meiner dein deine het een niet "
    "wat hoe kun voor zijn ik je jij mijn naar ook maar waar welke waarom tussen verschil heb "
    "hebben kan moet wordt deze dit dat veel graag dankjewel hoeveel nog bij uit "
    # Swedish, Danish, Norwegian, Icelandic
    "och att det som är hur för jag inte vad kan var varför när vilken vilka med på till av om "
    "ett eller men har ska vill min mitt mycket ni vi hvad hvordan hvor hva hvorfor hvilken "
    "hvilke når jeg ikke og er et til kommer skal må meg deg bør mellem mellom får gjør gøre "
    "lager hvem blir bliver eg ég það að ekki hvernig hvað "
    # Finnish, Estonian, Hungarian
    "mikä mitä missä miten miksi kuka onko ja ei se että kun voi voin olen olla suomen paras "
    "kuinka mis kuidas kas ma see hogyan mi miért hol mennyi mennyibe egy az és nem van vagy "
    "hogy mit kell lehet nagyon legjobb kerül milyen melyik ez "
    # Polish, Czech, Slovak, Slovene, Croatian, Lithuanian, Latvian
    "nie jest czy jak się na dla gdzie kiedy dlaczego co ile który która jaki jaka jakie mogę "
    "chcę proszę przez oraz od po bez mi są być najlepszy jaký jaká jaké jsou kde kdy kolik proč "
    "který která které nebo mám můžu prosím pro při není stojí ako čo prečo kedy alebo som "
    "najlepší kako gdje zašto koji koja koje ili što šta mogu najbolje ali kaj kje kdaj zakaj "
    "kur kaip kodėl ir kas kāpēc "
    # Turkish, Azerbaijani
    "bir ve bu için nasıl nedir ne mi mı mu mü ile çok daha neden nerede hangi kadar bana ben "
    "sen var yok olan gibi sonra zaman misin mısın istiyorum en güzel olur necə "
    # Vietnamese
    "và là của không cho làm sao thế nào được có những các một tôi bạn để với này khi nhất ở gì "
    # Indonesian, Malay, Filipino, Swahili
    "yang dan apa untuk dengan ini itu tidak bagaimana saya kamu dari dalam adalah bisa akan "
    "atau mengapa kenapa antara perbedaan dimana cara ya berapa paling juga boleh mana ng ang "
    "mga paano ano sa ko mo ba po bakit saan magkano na wa kwa ni gani jinsi katika nini vipi je "
    "kuwa watu hii paljonko maksaa voiko saako mistä montako mitkä kenen mikor hány mitől miből "
    "hová merre kaç hangisi nereye nereden kim niçin apakah kapan siapa gimana boleh cât costă "
    "când cine kas kada kiek cik kad milyen jaka ktoś czemu ile można warto kiedyś jakie zamiast "
    "wohin woher wieviel wessen weshalb waarheen hoelang hoeveel welk varifrån hurdan vilket "
    "mycket hvilket hvorfra hvem onde quantos quantas dónde cuántas combien lequel laquelle auquel "
    "dovrei quanti quante"
)
FOREIGN_WORDS = frozenset(word for word in _set(_FOREIGN) if len(word) > 1) - ENGLISH_WORDS

# Of names in English sentences too (Rio de Janeiro, Los Angeles): they count beside others only.
PARTICLES = _set(
    "de la el los las le les du des del della van der den von di da do dos das il lo al les un une "
    "est"
)

LANGUAGES = _set(
    "french german spanish italian portuguese dutch swedish norwegian danish finnish polish czech "
    "hungarian romanian greek turkish russian ukrainian arabic hebrew persian farsi hindi urdu "
    "bengali tamil telugu thai vietnamese indonesian malay tagalog chinese mandarin cantonese "
    "japanese korean swahili latin english bulgarian serbian croatian slovak slovenian lithuanian "
    "latvian estonian icelandic irish welsh catalan basque galician afrikaans zulu yoruba hausa "
    "amharic somali nepali marathi gujarati punjabi kannada malayalam sinhala burmese khmer lao "
    "mongolian kazakh uzbek georgian armenian azerbaijani albanian macedonian esperanto filipino"
)
TRANSLATE = _set(
    "translate translation translations translating translator translated übersetze übersetzen "
    "traduis traduire traduce traducir traduza traduci vertaal översätt przetłumacz interpreter"
)
# Verbs and nouns of what is to be in another language, named after `in`, `into`, `to` or `my`.
SAYING = _set(
    "say said answer reply respond write speak phrase pronounce conjugate correct proofread put "
    "explain greet tell give describe note letter email recipe message text sentence sentences "
    "paragraph word words use chat talk practise practice"
)
INTO_LANGUAGE = frozenset(
    (before, language)
    for before in ("in", "into", "to", "my", "of", "auf")
    for language in LANGUAGES - {"english", "latin"}
)
