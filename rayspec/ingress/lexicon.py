"""Words and shapes by which the other built-in classes are told apart. Data only."""

from __future__ import annotations

import re

from rayspec.ingress.words import word_pairs, word_set

ASKING_FOR = (("how", "about"), ("what", "if"))  # questions that ask for something to be made

# Structured: asks in words for output that a program reads.
FORMATS = word_set("json jsonl yaml xml csv toml tsv ndjson geojson")
FORMAT_VERBS = word_set(
    "return output respond reply answer give produce emit convert format extract write put express "
    "turn parse make list generate provide as into in fill create export serialize present only "
    "render encode represent transform please parsed readable loads matching"
)
STRUCTURED_PAIRS = word_pairs(
    "comma separated, tab separated, semicolon separated, pipe separated, markdown table, with "
    "columns, the columns, output format, the format, this format, following format, this schema, "
    "the schema, this template, the template, this table, these columns, this structure, following "
    "structure"
)
# Names the form of the answer whatever the text is about, unless a program is to be written.
TO_FORMAT = frozenset(
    (before, form) for before in ("to", "as", "in", "into", "valid", "only") for form in FORMATS
)
PROGRAM = word_set("write implement build code script function class parser")
FORM_VERBS = word_set(
    "return output respond reply answer produce emit format fill convert extract present"
)
# The answer is one of few: an instruction how to answer beside one of these.
ANSWERING = word_set(
    "answer reply respond output return label classify categorize categorise choose pick predict "
    "print emit tag assign rate judge decide"
)
CHOICE_PAIRS = word_pairs(
    "one word, single word, exactly one, single letter, single number, one letter, these labels, "
    "these categories, these classes, into one, following labels, following categories, following "
    "classes, the labels, yes or, true or, single character, one character, one digit, single "
    "digit"
)
BARE_PAIRS = word_pairs(
    "no commentary, no prose, no preamble, only output, output only, only return, return only, "
    "separated by, no other, one word, true or"
)
REPLYING = word_set("answer reply respond")
RESTRICTING_ANY = word_set("only just exactly nothing solely single")
STATING = word_set("i we they you it is are was not have has")  # `I only have`: no instruction
RESTRICTING = word_set("only just exactly nothing solely")
LABELS = word_set(
    "label labels category class letter letters number digit digits score rating word words yes no "
    "true false intent sentiment department language country emotion topic character"
)
OBJECT = re.compile(r"\{(?=\s{0,4}[\"'<]?\w{1,40}[\"'>]?\s{0,2}[:,])")
SHOT = re.compile(r"\n(\w[\w /()-]{0,40}:)\s{0,2}\Z")

# Summarize: an extractive instruction over text that is given.
EXTRACTIVE_VERBS = word_set(
    "summarize summarise summary summarized summarised summarizes tldr condense extract paraphrase "
    "rewrite rephrase proofread shorten outline minutes simplify distil distill abridge gist recap "
    "synopsis digest highlights takeaways shorter boil"
)
EXTRACTIVE_PAIRS = word_pairs(
    "tl dr, key points, main points, main idea, main ideas, key takeaways, sum up, according to, "
    "based on, bullet points, action items, the following, given context, answer using, using "
    "only, one paragraph, plain words, simple words, quote the, cite the, text below, information "
    "only, read this, read the, the above, follow ups, in summary, turn this, make this, make "
    "that, put this, this into, plain language, plain english, into plain"
)
# What a text that is given may be called, after a word that points at it.
EVERY = word_set("every each any whatever anything everything")
POINTING = word_set("this the these following above below my our attached given")
TEXT_NOUNS = word_set(
    "text article document documents passage email mail thread transcript conversation chat essay "
    "report abstract paper contract agreement notes reviews review letter statement interview "
    "chapter meeting call memo policy faq paragraph paragraphs excerpt section post speech source "
    "sources context study transcription clause minutes draft log discussion debate"
)
# The beginning of a line that introduces a text, or sets one off.
MARKER = re.compile(
    r"(?:text|article|document|context|transcript|passage|source|sources|faq|e-?mail"
    r"|notes|abstract|report|contract|excerpt|conversation|meeting|background|information|summary"
    r"|knowledge|question|query|from|subject|1)(?: \w{1,12})?[ \t]{0,2}(?::|>|\]|$|\*\*)"
    r"|-{3,}|={3,}|\"\"\"",
    re.IGNORECASE,
)
LABEL_LINE = re.compile(r"[A-Z][\w' ]{0,40}:\s{0,2}$")
LABEL_AT_END = re.compile(r"\n(?:#{1,4} ?)?[A-Z][\w;' ]{0,40}(?::|\n-)\s{0,2}\Z")
FIRST_PERSON = ("i", "my", "me", "myself", "mine")
MADE_OF_TEXT = 320  # characters: less is hardly a text to extract from

# Creative: a verb of making together with a form of fiction or verse.
CREATIVE_FORMS = word_set(
    "poem poems haiku haikus sonnet sonnets limerick limericks ballad verse verses story stories "
    "tale tales fable fairytale lyrics song songs rap plot novel novella fiction screenplay scene "
    "monologue dialogue joke jokes riddle riddles slogan slogans tagline taglines parable myth "
    "legend villanelle fanfiction character backstory chapter ode skit speech toast sequel prequel "
    "worldbuilding pun puns eulogy sketch stanza couplet acrostic prose vignette lullaby anthem "
    "jingle satire parody allegory saga hymn rhyme rhymes nickname nicknames chorus sitcom premise "
    "twister superhero villain diary improv fanfic tales epic melodrama motto mottos mottoes "
    "quatrain quatrains stanzas couplets epitaph dialog"
)
# Nobody names these but to have one.
CREATIVE_CERTAIN = word_set(
    "poem poems haiku haikus sonnet limerick limericks ballad verse verses lyrics monologue riddle "
    "riddles pun puns joke jokes fairytale fable screenplay skit ode rap lullaby villanelle "
    "acrostic fanfiction jingle tagline taglines slogan slogans poetically tale iambic tetrameter "
    "pentameter rhyming rhymed couplets quatrain quatrains stanza stanzas"
)
CREATIVE_OPENERS = word_set(
    "poem haiku sonnet limerick ballad villanelle ode fable parody acrostic lullaby joke riddle "
    "pun monologue eulogy screenplay skit story tale fairytale song lyrics slogans taglines titles "
    "puns jokes riddles character backstory verse lullabies tales dialogue dialog scene epitaph "
    "motto"
)
CREATIVE_VERBS = word_set(
    "write compose create invent imagine tell make craft continue pretend dream give pen draft "
    "improvise brainstorm generate need come finish describe retell pitch want sing add"
)
CREATIVE_MAKING = word_set(
    "write compose create invent imagine craft continue pretend dream pen improvise brainstorm "
    "describe retell pitch sing finish devise conjure narrate come"
)
CREATIVE_MOODS = word_set(
    "funny silly hilarious witty ridiculous absurd whimsical spooky scary creepy horror thriller "
    "romantic heroic shakespearean poetic mock surreal dreamlike sarcastic fairytale dystopia "
    "utopia comedy tragic eerie haunting gloomy melancholy melancholic suspenseful mysterious "
    "nostalgic bittersweet macabre cheesy"
)
CREATIVE_ALONE = word_set(
    "invent imagine improvise brainstorm roleplay worldbuild worldbuilding pretend"
)
CREATIVE_WORLD = word_set(
    "dragon dragons elf elves wizard wizards pirate pirates dungeon tavern kingdom vampire "
    "vampires superhero superheroes villain villains alien aliens ghost ghosts fairy fairies witch "
    "witches knight knights goblin goblins dwarf dwarves mermaid mermaids werewolf monster "
    "monsters unicorn spaceship astronaut astronauts detective haunted enchanted magical fantasy "
    "imaginary fictional dystopian steampunk cyberpunk talking myth mythical sorcerer spell noir "
    "abandoned captain princess robot robots zombie zombies giant troll"
)
CREATIVE_PAIRS = word_pairs(
    "once upon, role play, imagine you, imagine that, pretend you, pretend to, creative writing, "
    "make up, short story, a storyteller, creative writer, dungeon master, text adventure, in "
    "character, of view, me laugh, opening line, plot twist, fairy tale, bedtime story, knock "
    "knock, world building, interactive fiction, game master, co author, science fiction, fan "
    "fiction, names for, titles for, surprise me, the story, a scene, perspective of, style of, "
    "voice of, think up, dream up, keep writing, a play, the scene, happens next, letter from, "
    "alternate ending, alternative ending, different ending, take turns, play a, what if, a story, "
    "stay in, s voice, thoughts of, inner monologue, speak first, would say, could talk"
)
CREATIVE_STYLE = word_set("poetic poetically whimsical whimsically lyrical lyrically")
CREATIVE_SYSTEM = word_set(
    "storyteller novelist poet fiction fantasy narrator roleplay novel songwriter screenwriter "
    "lyricist comedian adventure campaign playwright narrate storytelling"
)
SCREENPLAY = re.compile(
    r"\s{0,4}(?:INT\.|EXT\.|FADE IN|chapter (?:one|two|\d{1,3}|[ivx]{1,5})\b|title: "
    r"|act [ivx1]{1,3}\b)",
    re.IGNORECASE,
)
EXPERTS = word_set(
    "assistant helpful expert professional specialist teacher tutor coach consultant advisor given"
)
GO_ON = word_pairs(
    "keep writing, keep going, go on, carry on, happens next, continue the, continue it"
)
ROLE = (
    "be a ",
    "be an ",
    "you are ",
    "you're ",
    "act as ",
    "i want you to act",
    "let's play",
    "be my ",
)
# Narration: verbs of a tale's past, not of an encyclopedia's.
NARRATIVE = word_set(
    "had said saw came went stood looked knew thought felt told began heard turned walked opened "
    "whispered smiled remembered watched waited asked sat ran found seemed wondered counted liked "
    "laughed reached pulled held closed stared never nobody somebody she her he his him"
)
