"""Words and shapes by which the built-in classes are told apart. Data only."""

from __future__ import annotations

import re

Pairs = frozenset[tuple[str, str]]


def words(text: str) -> list[str]:
    """Split lower-case text at white space and punctuation; `c++` and `c#` stay whole."""
    # Four times as fast as a regular expression.
    return text.translate(_PUNCTUATION).split()


_PUNCTUATION = str.maketrans(
    dict.fromkeys("!\"$%&'()*,-./:;<=>?@[\\]^_`{|}~¿¡«»“”„‘’…–—、。？！：", " ")
)


def _set(text: str) -> frozenset[str]:
    return frozenset(text.split())


def _pairs(text: str) -> Pairs:
    """Words that count where one follows the other: looked up at once, however many there are."""
    first_second = (pair.split() for pair in text.split(","))
    return frozenset((first, second) for first, second in first_second)


# What asks for information rather than for something to be made.
QUESTIONS = _set(
    "what whats which who whose when where why how is are was were did does do explain compare "
    "summarize summarise recommend rank"
)

ASKING_FOR = (("how", "about"), ("what", "if"))  # questions that ask for something to be made

# Code: a programming language or tool together with a word of the trade; or source text itself.
# A word that has another life (rust, list) counts only beside one that has none (sql, function).
LANGUAGE_WORDS = _set(
    "python javascript typescript kotlin golang scala haskell perl php lua c++ c# sql mysql "
    "postgres postgresql sqlite bash zsh powershell html css django flask fastapi numpy pandas "
    "pytorch tensorflow nodejs npm docker dockerfile kubernetes terraform cmake makefile git "
    "github gitlab regex graphql leetcode verilog vhdl cuda matlab fortran cobol solidity linux "
    "asyncio pytest sklearn elixir erlang clojure ocaml jupyter svelte nextjs laravel symfony "
    "hibernate mongodb clickhouse nginx ansible webpack tailwind prolog groovy gradle maven vba"
)
LANGUAGE_WORDS_AMBIGUOUS = _set(
    "java rust swift ruby react vue angular node redis assembly latex excel spark go c r json unix "
    "discord slack telegram browser chrome android ios dart julia zig rails spring express"
)
CODE_ALONE = _set(
    "regex regexp javascript typescript css html sql dockerfile c++ c++11 c++14 c++17 c++20 c# "
    "pytest numpy pandas kubectl kubernetes k8s fastapi refactor traceback segfault codebase mutex "
    "semaphore coroutine coroutines goroutine goroutines docstring docstrings linter makefile "
    "crontab chmod chown grep awk sudo systemctl rsync stdin stdout stderr localhost nullptr "
    "hashmap hashtable async webhook websocket websockets middleware oauth jwt grpc protobuf orm "
    "cors eslint mypy junit webpack flexbox monorepo memoization dijkstra backtracking "
    "polymorphism typedef struct enum subquery deserialize serializer stacktrace debugger gdb "
    "valgrind venv virtualenv tensorflow pytorch postgres postgresql mysql sqlite bash zsh "
    "powershell django nodejs npm cmake git graphql asyncio sklearn laravel nginx webpack mongodb "
    "haskell ocaml elixir clojure erlang fortran cobol verilog vhdl solidity golang dataframe repo "
    "endpoint endpoints docker api apis backend frontend userscript recursion compiler parser "
    "ubuntu debian stdlib endian bitwise boolean nullable idempotent multithreading multithreaded "
    "deadlock deadlocks hashing const println printf malloc sizeof instanceof elif kwargs varchar "
    "bool argv tuple tuples lambda lambdas subprocess stylesheet jsx tsx divs regexes iterators "
    "hook hooks"
)
TRADE_WORDS = _set(
    "function functions script scripts code codebase bug bugs implement implementation refactor "
    "debug compile compiler exception exceptions algorithm api endpoint recursion recursive query "
    "queries regex decorator iterator pointer dict integer variable variables async mutex struct "
    "rebase dockerfile webpage parser syntax generics enum segfault traceback stacktrace snippet "
    "backend frontend dataframe kernel program lifetimes goroutine hashmap subquery cli closure "
    "closures callback callbacks middleware deploy deployment pods pod repo repository bot plugin "
    "extension crawler scraper composable directive namespace boolean http dependencies runtime "
    "logs pipeline commit branch unittest unittests skript funktion función funcion fonction "
    "funzione função programm programa código codice"
)
TRADE_WORDS_AMBIGUOUS = _set(
    "array arrays method methods class classes error errors loop dictionary list lists tuple "
    "string strings module library package unit test tests component hook await thread join index "
    "schema table commit branch merge container website app server template trait interface borrow "
    "overflow stack macro formula command file files page web button form write sort reverse parse "
    "fix convert column columns row rows import install process fails argument arguments parameter "
    "parameters type types undefined returns return input output value values object objects key "
    "keys field fields thread threads cache queue heap tree graph node nodes request response "
    "client port host route handler state mount fetch fetches render log logs version release "
    "print prints bit bits byte bytes memory loops integer float double reference push pushed pull "
    "pulled undo revert clone checkout stash push reset flag flags header headers cast vector "
    "vectors pixel pixels callback login session sessions cookie cookies latency timeout"
)
CODE_PAIRS = _pairs(
    "write code, unit test, unit tests, pull request, stack trace, time complexity, binary search, "
    "linked list, source code, code review, null pointer, merge sort, data structure, data "
    "structures, regular expression, sql query, segmentation fault, refactor this, code below, "
    "following code, this code, list comprehension, hash table, hash map, priority queue, binary "
    "tree, event loop, race condition, garbage collector, garbage collection, abstract class, type "
    "hints, type hint, dynamic programming, breadth first, depth first, dependency injection, "
    "design pattern, environment variable, environment variables, merge conflict, integration "
    "test, integration tests, foreign key, stored procedure, shell script, core dumped, latex "
    "table, memory leak, build fails, type error, syntax error, compile error, api key, rest api, "
    "web server, git commit, permission denied, not none, return none, is none, return true, "
    "return false, type mismatch, pull requests, is null, not null, null check, infinite loop, "
    "data frame, data frames, date object, for loop, while loop, nested loop, code snippet"
)
# Asked for with a verb of making: `a bot`, `the macro`.
CODE_VERBS = _set(
    "write build create make code implement add port show convert rewrite need give extend"
)
CODE_ARTEFACTS = _set(
    "bot macro scraper crawler parser cli api endpoint webpage website composable middleware query "
    "subclass constructor decorator workflow plugin dockerfile makefile algorithm wrapper getter "
    "setter serializer logger unittest webapp applet"
)
# Of the words of the trade, those of any office too.
OFFICE = _set(
    "page print prints form write list lists table button website template sort file files key "
    "keys "
    "memory client host state version release type types test tests row rows column columns value "
    "values queue web index error errors log login session reset header flag pull push"
)
SEVERAL = 3  # words of the trade that each have another life, and together hardly
CODE_ARTEFACT_PAIRS = _pairs(
    "a function, a program, a script, the function, the script, a method, a class, one liner, a "
    "component, a module, a test, tests for, test for, an app, a game, another function"
)
# Asked for with a verb of making: `show me one in swift`.
IN_LANGUAGE = frozenset(
    (before, language)
    for before in ("in", "into", "to", "using")
    for language in LANGUAGE_WORDS
    | _set("java rust swift ruby react vue angular assembly julia go r")
)
# Said in a question too; `in java` is not, nor `in go`.
ABOUT_LANGUAGE = frozenset(
    (before, language)
    for before in ("in", "with", "using")
    for language in LANGUAGE_WORDS | _set("rust c r ruby react vue angular")
)
CODE_SYSTEM = _set(
    "programmer coder coding programming developer compiler sql python javascript typescript code "
    "codebase repository ide software engineer frontend backend jsx devops shell terminal"
)
FILL_IN_MIDDLE = ("<fim_prefix>", "<|fim_prefix|>", "<|fim_begin|>", "<fim_suffix>", "[suffix]")
# The beginning of a line of source text, of a diff, of a stack trace or of a shell session.
CODE_LINE = re.compile(
    r"[ \t>+-]{0,24}(?:def \w{1,60}\(|class \w{1,60}[:({]|from [\w.]{1,60} import "
    r"|import [\w.]{1,60}(?: as \w{1,60})?;?$|#include\s?[<\"]"
    r"|(?:pub |async |static |export |default ){0,4}(?:fn|fun|function|func) \w{1,60}\s?[(<\[]"
    r"|impl(?:<[^>]{1,40}>)? \w{1,60}|(?:const|let|var|val) \w{1,60}\s?[:=]"
    r"|public (?:static |class |final )|#!/|package \w{1,60};?$|@@ -\d|diff --git"
    r"|at [\w.$<>]{3,80} ?\(|using namespace |<(?:!doctype|html|div|script|template|\?php)"
    r"|traceback \(most recent call"
    r"|(?:\$|sudo|git|npm|docker|kubectl|curl|pip|find|tar) .{0,40} --?\w"
    r"|for \w{1,30}(?:, ?\w{1,30})? in [^.]{1,60}:$|while [^.]{1,60}:$|if .{1,80}:$|else:$"
    r"|\./\w|error [A-Z]{1,3}\d{2,5}|return \w{1,40}[;.([]"
    r"|resource \"|\w{1,40} = \[\]|cmake_\w|select$|-- \w)",
    re.IGNORECASE,
)
CODE_LINE_ENDS = (";", "{", "});", ") {", "};", "=>", '\\n",')
# Names and calls as only programs spell them. Each begins with a letter or sign that is rare, to
# which a search can leap.
SNAKE_CASE = re.compile(r"_(?<=[a-z]_)[a-z]")
FILE_NAME = re.compile(
    r"\.(?<=\w\.)(?:py|jsx?|tsx?|rs|go|java|kt|cpp|hpp|cs|rb|php|sh|sql|ya?ml|toml|ipynb|css|vue"
    r"|lua|h|so|env|gradle|tf|conf|dll)\b"
)
SYSTEM_PATH = re.compile(r"/(?<![\w.:/]/)(?:var|etc|usr|home|opt|tmp|bin|dev|srv|proc)\b")
ERROR_NAME = re.compile(r"\b[A-Z][A-Za-z]{2,40}(?:Error|Exception)\b")
CALL = re.compile(
    r"\((?<=[A-Za-z_]\w\w\()(?<!sin\()(?<!cos\()(?<!tan\()(?<!log\()(?<!exp\()(?<!qrt\()"
    r"(?!s\)|es\)|r\)|n\)|ren\)|e\))[^()\n]{0,60}\)"
)
OPERATORS = (
    "=>", "->", " == ", " != ", " && ", " || ", "::", " += ", "();", "());", "({", "})", "[]", "</",
    "/>", ":=", "${", "$(", "<-", "++", "|>", " >= ", " <= ", "[0]", "[i]", " = ", "**", "='", '="',
    "{}", "()", "!=", "; ",
)  # fmt: skip
PLAIN_OPERATORS = ("===", "!==", " == ", " != ", " && ", " || ", "();", "${", " := ", " += ")
OPERATOR_SIGNS = "={}[];<>|&$"
SQL_STARTS = ("select ", "delete from ", "insert into ", "update ", "create table ")
SQL_PARTS = (" from ", " where ", " set ", " values", " join ", "group by", "order by")
SQL_SIGNS = ("=", "*", "(", "<", ">")

# Structured: asks in words for output that a program reads.
FORMATS = _set("json jsonl yaml xml csv toml tsv ndjson geojson")
FORMAT_VERBS = _set(
    "return output respond reply answer give produce emit convert format extract write put express "
    "turn parse make list generate provide as into in fill create export serialize present only "
    "render encode represent transform please parsed readable loads matching"
)
STRUCTURED_PAIRS = _pairs(
    "comma separated, tab separated, semicolon separated, pipe separated, markdown table, with "
    "columns, the columns, output format, the format, this format, following format, this schema, "
    "the schema, this template, the template, this table, these columns, this structure, following "
    "structure"
)
# Names the form of the answer whatever the text is about, unless a program is to be written.
TO_FORMAT = frozenset(
    (before, form) for before in ("to", "as", "in", "into", "valid", "only") for form in FORMATS
)
PROGRAM = _set("write implement build code script function class parser")
FORM_VERBS = _set(
    "return output respond reply answer produce emit format fill convert extract present"
)
# The answer is one of few: an instruction how to answer beside one of these.
ANSWERING = _set(
    "answer reply respond output return label classify categorize categorise choose pick predict "
    "print emit tag assign rate judge decide"
)
CHOICE_PAIRS = _pairs(
    "one word, single word, exactly one, single letter, single number, one letter, these labels, "
    "these categories, these classes, into one, following labels, following categories, following "
    "classes, the labels, yes or, true or, single character, one character, one digit, single "
    "digit"
)
BARE_PAIRS = _pairs(
    "no commentary, no prose, no preamble, only output, output only, only return, return only, "
    "separated by, no other, one word, true or"
)
REPLYING = _set("answer reply respond")
RESTRICTING_ANY = _set("only just exactly nothing solely single")
RESTRICTING = _set("only just exactly nothing solely")
LABELS = _set(
    "label labels category class letter letters number digit digits score rating word words yes no "
    "true false intent sentiment department language country emotion topic character"
)
OBJECT = re.compile(r"\{(?=\s{0,4}[\"'<]?\w{1,40}[\"'>]?\s{0,2}[:,])")
SHOT = re.compile(r"\n(\w[\w /()-]{0,40}:)\s{0,2}\Z")

# Summarize: an extractive instruction over text that is given.
EXTRACTIVE_VERBS = _set(
    "summarize summarise summary summarized summarised summarizes tldr condense extract paraphrase "
    "rewrite rephrase proofread shorten outline minutes simplify distil distill abridge gist recap "
    "synopsis digest highlights takeaways shorter boil"
)
EXTRACTIVE_PAIRS = _pairs(
    "tl dr, key points, main points, main idea, main ideas, key takeaways, sum up, according to, "
    "based on, bullet points, action items, the following, given context, answer using, using "
    "only, one paragraph, plain words, simple words, quote the, cite the, text below, information "
    "only, read this, read the, the above, follow ups, in summary, turn this, make this, make "
    "that, put this, this into, plain language, plain english, into plain"
)
# What a text that is given may be called, after a word that points at it.
EVERY = _set("every each any whatever anything everything")
POINTING = _set("this the these following above below my our attached given")
TEXT_NOUNS = _set(
    "text article document documents passage email mail thread transcript conversation chat essay "
    "report abstract paper contract agreement notes reviews review letter statement interview "
    "chapter meeting call memo policy faq paragraph paragraphs excerpt section post speech source "
    "sources context study transcription clause minutes draft log discussion debate"
)
# The beginning of a line that introduces a text, or sets one off.
MARKER = re.compile(
    r"[ \t#<*\[]{0,6}(?:text|article|document|context|transcript|passage|source|sources|faq|e-?mail"
    r"|notes|abstract|report|contract|excerpt|conversation|meeting|background|information|summary|knowledge"
    r"|question|query|from|subject|1)(?: \w{1,12})?[ \t]{0,2}(?::|>|\]|$|\*\*)"
    r"|-{3,}|={3,}|\"\"\"|#{2,4} ",
    re.IGNORECASE,
)
LABEL_LINE = re.compile(r"[A-Z][\w' ]{0,40}:\s{0,2}$")
LABEL_AT_END = re.compile(r"\n(?:#{1,4} ?)?[A-Z][\w;' ]{0,40}(?::|\n-)\s{0,2}\Z")
FIRST_PERSON = ("i", "my", "me", "myself", "mine")
MADE_OF_TEXT = 320  # characters: less is hardly a text to extract from

# Creative: a verb of making together with a form of fiction or verse.
CREATIVE_FORMS = _set(
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
CREATIVE_CERTAIN = _set(
    "poem poems haiku haikus sonnet limerick limericks ballad verse verses lyrics monologue riddle "
    "riddles pun puns joke jokes fairytale fable screenplay skit ode rap lullaby villanelle "
    "acrostic fanfiction jingle tagline taglines slogan slogans poetically tale iambic tetrameter "
    "pentameter rhyming rhymed couplets quatrain quatrains stanza stanzas"
)
CREATIVE_OPENERS = _set(
    "poem haiku sonnet limerick ballad villanelle ode fable parody acrostic lullaby joke riddle "
    "pun monologue eulogy screenplay skit story tale fairytale song lyrics slogans taglines titles "
    "puns jokes riddles character backstory verse lullabies tales dialogue dialog scene epitaph "
    "motto"
)
CREATIVE_VERBS = _set(
    "write compose create invent imagine tell make craft continue pretend dream give pen draft "
    "improvise brainstorm generate need come finish describe retell pitch want sing add"
)
CREATIVE_MAKING = _set(
    "write compose create invent imagine craft continue pretend dream pen improvise brainstorm "
    "describe retell pitch sing finish devise conjure narrate come"
)
CREATIVE_MOODS = _set(
    "funny silly hilarious witty ridiculous absurd whimsical spooky scary creepy horror thriller "
    "romantic heroic shakespearean poetic mock surreal dreamlike sarcastic fairytale dystopia "
    "utopia comedy tragic eerie haunting gloomy melancholy melancholic suspenseful mysterious "
    "nostalgic bittersweet macabre cheesy"
)
CREATIVE_ALONE = _set(
    "invent imagine improvise brainstorm roleplay worldbuild worldbuilding pretend"
)
CREATIVE_WORLD = _set(
    "dragon dragons elf elves wizard wizards pirate pirates dungeon tavern kingdom vampire "
    "vampires superhero superheroes villain villains alien aliens ghost ghosts fairy fairies witch "
    "witches knight knights goblin goblins dwarf dwarves mermaid mermaids werewolf monster "
    "monsters unicorn spaceship astronaut astronauts detective haunted enchanted magical fantasy "
    "imaginary fictional dystopian steampunk cyberpunk talking myth mythical sorcerer spell noir "
    "abandoned captain princess robot robots zombie zombies giant troll"
)
CREATIVE_PAIRS = _pairs(
    "once upon, role play, imagine you, imagine that, pretend you, pretend to, creative writing, "
    "make up, short story, a storyteller, creative writer, dungeon master, text adventure, in "
    "character, of view, me laugh, opening line, plot twist, fairy tale, bedtime story, knock "
    "knock, world building, interactive fiction, game master, co author, science fiction, fan "
    "fiction, names for, titles for, surprise me, the story, a scene, perspective of, style of, "
    "voice of, think up, dream up, keep writing, a play, the scene, happens next, letter from, "
    "alternate ending, alternative ending, different ending, take turns, play a, what if, a story, "
    "stay in, s voice, thoughts of, inner monologue, speak first, would say, could talk"
)
CREATIVE_STYLE = _set("poetic poetically whimsical whimsically lyrical lyrically")
CREATIVE_SYSTEM = _set(
    "storyteller novelist poet fiction fantasy narrator roleplay novel songwriter screenwriter "
    "lyricist comedian adventure campaign playwright narrate storytelling"
)
SCREENPLAY = re.compile(
    r"\s{0,4}(?:INT\.|EXT\.|FADE IN|chapter (?:one|two|\d{1,3}|[ivx]{1,5})\b|title: |act [ivx1]{1,3}\b)",
    re.IGNORECASE,
)
EXPERTS = _set(
    "assistant helpful expert professional specialist teacher tutor coach consultant advisor given"
)
GO_ON = _pairs("keep writing, keep going, go on, carry on, happens next, continue the, continue it")
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
NARRATIVE = _set(
    "had said saw came went stood looked knew thought felt told began heard turned walked opened "
    "whispered smiled remembered watched waited asked sat ran found seemed wondered counted liked "
    "laughed reached pulled held closed stared never nobody somebody she her he his him"
)
