"""Words and shapes by which requests about programs are told apart. Data only."""

from __future__ import annotations

import re

from rayspec.ingress.words import word_pairs, word_set

# Code: a programming language or tool together with a word of the trade; or source text itself.
# A word that has another life (rust, list) counts only beside one that has none (sql, function).
LANGUAGE_WORDS = word_set(
    "python javascript typescript kotlin golang scala haskell perl php lua c++ c# sql mysql "
    "postgres postgresql sqlite bash zsh powershell html css django flask fastapi numpy pandas "
    "pytorch tensorflow nodejs npm docker dockerfile kubernetes terraform cmake makefile git "
    "github gitlab regex graphql leetcode verilog vhdl cuda matlab fortran cobol solidity linux "
    "asyncio pytest sklearn elixir erlang clojure ocaml jupyter svelte nextjs laravel symfony "
    "hibernate mongodb clickhouse nginx ansible webpack tailwind prolog groovy gradle maven vba"
)
LANGUAGE_WORDS_AMBIGUOUS = word_set(
    "java rust swift ruby react vue angular node redis assembly latex excel spark go c r json unix "
    "discord slack telegram browser chrome android ios dart julia zig rails spring express"
)
CODE_ALONE = word_set(
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
TRADE_WORDS = word_set(
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
TRADE_WORDS_AMBIGUOUS = word_set(
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
CODE_PAIRS = word_pairs(
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
CODE_VERBS = word_set(
    "write build create make code implement add port show convert rewrite need give extend"
)
CODE_ARTEFACTS = word_set(
    "bot macro scraper crawler parser cli api endpoint webpage website composable middleware query "
    "subclass constructor decorator workflow plugin dockerfile makefile algorithm wrapper getter "
    "setter serializer logger unittest webapp applet"
)
# Of the words of the trade, those of any office too.
OFFICE = word_set(
    "page print prints form write list lists table button website template sort file files key "
    "keys memory client host state version release type types test tests row rows column columns "
    "value values queue web index error errors log login session reset header flag pull push"
)
SEVERAL = 3  # words of the trade that each have another life, and together hardly
CODE_ARTEFACT_PAIRS = word_pairs(
    "a function, a program, a script, the function, the script, a method, a class, one liner, a "
    "component, a module, a test, tests for, test for, an app, a game, another function"
)
# Asked for with a verb of making: `show me one in swift`.
IN_LANGUAGE = frozenset(
    (before, language)
    for before in ("in", "into", "to", "using")
    for language in LANGUAGE_WORDS
    | word_set("java rust swift ruby react vue angular assembly julia go r")
)
# Said in a question too; `in java` is not, nor `in go`.
ABOUT_LANGUAGE = frozenset(
    (before, language)
    for before in ("in", "with", "using")
    for language in LANGUAGE_WORDS | word_set("rust c r ruby react vue angular")
)
CODE_SYSTEM = word_set(
    "programmer coder coding programming developer compiler sql python javascript typescript code "
    "codebase repository ide software engineer frontend backend jsx devops shell terminal"
)
FILL_IN_MIDDLE = ("<fim_prefix>", "<|fim_prefix|>", "<|fim_begin|>", "<fim_suffix>", "[suffix]")
# The beginning of a line of source text, of a diff, of a stack trace or of a shell session.
CODE_LINE = re.compile(
    r"(?:def \w{1,60}\(|class \w{1,60}[:({]|from [\w.]{1,60} import "
    r"|import [\w.]{1,60}(?: as \w{1,60})?;?$|#include\s?[<\"]"
    r"|(?:pub |async |static |export |default ){0,4}(?:fn|fun|function|func) \w{1,60}\s?[(<\[]"
    r"|impl(?:<[^>]{1,40}>)? \w{1,60}|(?:const|let|var|val) \w{1,60}\s?[:=]"
    r"|public (?:static |class |final )|#!/|package \w{1,60};?$|@@ -\d|diff --git"
    r"|at [\w.$<>]{3,80} ?\(|using namespace |<(?:!doctype|html|div|script|template|\?php)"
    r"|traceback \(most recent call"
    r"|(?:\$|sudo|git|npm|docker|kubectl|curl|pip|find|tar) .{0,40} --?\w"
    r"|for \w{1,30}(?:, ?\w{1,30})? in [^.]{1,60}:$|while [^.]{1,60}:$|if .{1,80}:$|else:$"
    r"|\./\w|error [A-Z]{1,3}\d{2,5}|return \w{1,40}[;.([]"
    r"|resource \"|\w{1,40} = \[\]|cmake_\w|select$)",
    re.IGNORECASE,
)
CODE_LINE_MARGIN = " \t>+-"  # of a block, a quotation, a diff
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
