"""Requests of many shapes with the workload class that a person would give them.

The word lists were corrected once with `EXAMPLES` in view (117 of 129 right before, 129 after);
`HELD_OUT` was written afterwards, and its wrong answers were left as they are.
"""

from __future__ import annotations

from typing import Any

Body = dict[str, Any]

ARTICLE = (
    "The city council voted on Tuesday to approve a plan that will turn four miles of disused "
    "railway into a public park. Supporters say the project will bring visitors to neighbourhoods "
    "that have seen little investment since the factories closed in the eighties. Opponents worry "
    "about rising rents, and asked that a third of the new housing along the route be kept "
    "affordable. The mayor promised a study before the first section opens in spring. Funding "
    "comes from a bond issue passed last year and from a private foundation that has paid for "
    "similar projects elsewhere. Construction is to start in October and to take three years. "
    "Residents filled the chamber for six hours of comment, most of it in favour. "
)
EMAIL = (
    "Hi team, thanks for the call this morning. We agreed that Priya moves the launch to the 14th, "
    "that Tom asks legal about the new terms, and that I order the hardware for the second site by "
    "Friday. Marketing still needs the final screenshots; Ana will send them once the colours are "
    "settled. The budget is unchanged except for shipping, which went up by eight percent. Please "
    "shout if I forgot anything. Next call is on Monday at ten, same link as always. Best, Jo "
)


def chat(user: Any, system: str | None = None, **fields: Any) -> Body:
    messages = [{"role": "user", "content": user}]
    if system is not None:
        messages.insert(0, {"role": "system", "content": system})
    return {"model": "m", "messages": messages, **fields}


def turns(*contents: str, **fields: Any) -> Body:
    roles = ("user", "assistant")
    messages = [{"role": roles[i % 2], "content": text} for i, text in enumerate(contents)]
    return {"model": "m", "messages": messages, **fields}


def prompt(text: Any, **fields: Any) -> Body:
    return {"model": "m", "prompt": text, **fields}


def parts(*texts: str) -> list[Body]:
    return [{"type": "text", "text": text} for text in texts]


TOOL = {"type": "function", "function": {"name": "get_weather", "parameters": {"type": "object"}}}

STRUCTURED: list[Body] = [
    chat("List three colours.", response_format={"type": "json_object"}),
    chat("Who wrote Emma?", response_format={"type": "json_schema", "json_schema": {"name": "a"}}),
    chat("Weather in Oslo?", tools=[TOOL]),
    chat("Weather in Oslo?", tools=[TOOL], tool_choice="required"),
    chat("Rate this review: lovely.", structured_outputs={"choice": ["good", "bad"]}),
    prompt("A phone number:", structured_outputs={"regex": r"\d{3}-\d{4}"}),
    prompt("2 + 2 =", structured_outputs={"grammar": 'root ::= "4"'}),
    chat("Extract name and age as JSON: Ada, 36, lives in London."),
    chat("Give me the capitals of the Nordic countries in JSON format, keys are country names."),
    chat("Ann, Bob and Cy bought 3, 5 and 8 apples.", "Respond only with valid JSON."),
    chat("Return a JSON object with fields title, author and year for the novel Dracula."),
    chat("Convert this to YAML: host is example.org, port is 443, tls is on. Output as YAML."),
    chat("Classify the sentiment of 'meh'. Output JSON with a single key sentiment."),
    chat("Turn this table into CSV format: apples 3, pears 4, plums 5"),
    chat(parts("Describe the invoice.", "Answer with a JSON array of line items.")),
    prompt("Text: I loved it!\nOutput JSON: "),
]

CODE: list[Body] = [
    chat("Write a Python function that checks whether a string is a palindrome."),
    chat("```js\nfor (var i = 0; i < 3; i++) setTimeout(() => console.log(i))\n```\nWhat prints?"),
    chat("How do I reverse a list in Python without modifying the original?"),
    chat("Explain what this does:\n\ndef f(n):\n    return n if n < 2 else f(n-1) + f(n-2)"),
    chat("Write a SQL query that returns the ten customers with the highest total orders."),
    chat("My React component re-renders on every keystroke, how can I debug this?"),
    chat("Implement quicksort in Rust with generics."),
    chat("why do I get 'cannot borrow as mutable' in rust when my struct has two references"),
    chat("Give me a regex that matches IPv4 addresses."),
    chat("Traceback (most recent call last):\n  File \"a.py\", line 3\nKeyError: 'x'\nhelp"),
    chat("Write unit tests for the UserService class using pytest."),
    chat("Dockerfile for a Node app with a multi stage build please"),
    chat("What is the time complexity of inserting into a binary heap, and why?"),
    chat("Write a bash script that renames all .jpeg files in a folder to .jpg"),
    chat("git: how do I undo my last commit but keep the changes"),
    chat("Convert this Java loop to a stream: for (User u : users) { names.add(u.getName()); }"),
    chat("Center a div vertically and horizontally in CSS"),
    chat("Make it faster and add type hints.", "You are an expert Python programmer."),
    chat("Can you add logging to this?", "You are a coding assistant working in a repository."),
    chat("Implement a thread-safe LRU cache in C++17."),
    chat("Write a TypeScript type that makes all nested properties optional."),
    chat("Fix: NullPointerException at com.acme.OrderService.submit(OrderService.java:42)"),
    turns(
        "Write a function that parses dates.",
        "```python\ndef parse(s): ...\n```",
        "now make it handle time zones too",
    ),
    turns("hello", "Hi! How can I help?", "write me a C program that prints a triangle of stars"),
    prompt("def fibonacci(n):\n    "),
    prompt("#include <stdio.h>\n\nint main(void) {\n"),
    prompt("<fim_prefix>def add(a, b):\n    return <fim_suffix>\n<fim_middle>"),
    prompt("def mean(xs):\n    return ", suffix="\n\nprint(mean([1, 2]))"),
    prompt("import numpy as np\n\n# rotate the matrix by 90 degrees\n"),
    prompt(['package main\n\nimport "fmt"\n\nfunc main() {\n', "fn main() {"]),
    prompt("SELECT name, COUNT(*) FROM orders WHERE"),
    chat("pandas: group by month and sum the revenue column"),
]

SUMMARIZE: list[Body] = [
    chat("Summarize the following article in two sentences.\n\n" + ARTICLE),
    chat(ARTICLE * 8 + "\n\nSummarise the above in bullet points."),
    chat("TL;DR please:\n" + ARTICLE),
    chat("What are the key points of this article?\n\n" + ARTICLE),
    chat("Extract all action items and who owns them from this e-mail:\n\n" + EMAIL),
    chat("Context:\n" + ARTICLE + "\n\nBased on the context, when does construction start?"),
    chat("Rewrite this e-mail so that it sounds more formal:\n\n" + EMAIL),
    chat("According to the passage, who pays for the park?\n\n" + ARTICLE * 3),
    chat(parts(ARTICLE, "Write a summary of this in one paragraph.")),
    chat(ARTICLE + EMAIL, "Summarize whatever the user sends in at most 50 words."),
    turns(ARTICLE, "Thanks, I have read the article.", "Now give me the main points."),
    prompt("Article: " + ARTICLE * 4 + "\nSummary:"),
    prompt(EMAIL + "\n\nTL;DR:"),
    chat("Proofread this and correct only mistakes:\n" + EMAIL),
    chat(
        "Answer using only the documents.\n\n[1] " + ARTICLE + "\n[2] " + EMAIL + "\n\nWho is Tom?"
    ),
    chat("Condense to a tweet: " + ARTICLE),
]

CREATIVE: list[Body] = [
    chat("Write a poem about the sea in winter."),
    chat("Tell me a bedtime story about a dragon who is afraid of fire."),
    chat("Compose a haiku on the first snow"),
    chat("Let's role-play: you are a grumpy innkeeper and I just walked in."),
    chat("Write the opening chapter of a noir detective novel set on Mars."),
    chat("Give me five slogans for a bakery that only sells rye bread."),
    chat("Tell me a joke about accountants."),
    chat("Continue the story: The lift stopped between the floors, and somebody laughed."),
    chat("Write song lyrics in the style of a sea shanty about debugging spreadsheets."),
    chat("Imagine you are a lighthouse. Describe your day.", temperature=0.9),
    chat("Once upon a time there was a clockmaker", temperature=1.0),
    chat("Something strange, surprise me.", temperature=1.4),
    chat("Brainstorm names for a cat café."),
    chat("write a limerick about an old man from Nantucket"),
    chat("Invent a myth that explains why the moon changes its shape."),
    chat("We go on.", "You are a creative writer who continues the user's fantasy novel."),
    prompt("Once upon a time, in a village at the edge of the forest,"),
    prompt("Title: The Last Orchard\nA short story\n\n"),
]

MULTILINGUAL: list[Body] = [
    chat("日本の首都はどこですか？"),
    chat("请用三句话介绍一下长城的历史。"),
    chat("Какая самая длинная река в России?"),
    chat("ما هي عاصمة المغرب؟"),
    chat("भारत की राजधानी क्या है?"),
    chat("서울에서 부산까지 기차로 얼마나 걸려요?"),
    chat("Ποια είναι η πρωτεύουσα της Ελλάδας;"),
    chat("מהי בירת ישראל?"),
    chat("ประเทศไทยมีกี่จังหวัด"),
    chat("¿Cuál es la capital de Colombia y cuántos habitantes tiene?"),
    chat("Pourquoi le ciel est-il bleu ? Explique-le à un enfant de cinq ans."),
    chat("Wie lange muss ich ein Ei kochen, damit es weich ist?"),
    chat("Qual é a diferença entre o português do Brasil e o de Portugal?"),
    chat("Translate to French: Where is the nearest pharmacy?"),
    chat("Please translate this sentence into Japanese: I will be late tomorrow."),
    chat("Come si prepara la carbonara e perché non si usa la panna?"),
    chat(
        "Explain the difference between は and が to me: 私は学生です。私が学生です。何が違いますか"
    ),
    prompt("Столица Франции —"),
]

CHAT: list[Body] = [
    chat("Hello!"),
    chat("What is the capital of Australia?"),
    chat("Can you recommend a good book about the Roman Empire?"),
    chat("I feel tired all the time, what could be the reason?"),
    chat("What is the difference between a llama and an alpaca?"),
    chat("Plan a three day trip to Lisbon for two people."),
    chat("How many ounces are in a pound?"),
    chat("Is it safe to eat raw cookie dough? 🍪🍪🍪"),
    chat("Who won the world cup in 1998, and where was it played?", temperature=0.0),
    chat("Why do cats purr?", "You are a helpful assistant."),
    chat("Explain photosynthesis like I'm ten.", temperature=0.7),
    chat("My python escaped from its terrarium, where should I look?"),
    chat("How do I get rust off my garden tools?"),
    chat("Should I visit Java or Bali first?"),
    chat("What's the story behind the name of the Pacific Ocean?"),
    chat("Summarize the plot of Hamlet."),
    chat("Give me tips for my job interview on Monday."),
    chat("What does the idiom 'break a leg' mean?"),
    turns("Hi", "Hello! How can I help you today?", "what time is it in Tokyo?"),
    turns("I am Sam.", "Nice to meet you, Sam!", "What is my name?"),
    chat("I'd like to say naïve façade café déjà vu — are these words English?"),
    chat("Tell me about the Great Wall of China (长城)."),
    chat("which is healthier, olive oil or butter"),
    chat("What happened in 1066?" + " Please explain in detail." * 40),
    prompt("The capital of France is"),
    prompt("Question: What is 17 times 23?\nAnswer:"),
    prompt(["Hello, my name is", "The president of the United States is"]),
    prompt([1, 15043, 29892, 590, 1024, 338]),
    prompt([[1, 2, 3], [4, 5, 6]]),
]

HELD_OUT: list[tuple[str, Body]] = [
    ("code", chat("How can I make this useEffect run only once in React?")),
    ("code", chat("Refactor the handler so that it no longer blocks the event loop.")),
    ("code", chat("what's wrong with my for loop, it skips every second element in javascript")),
    ("code", chat("Write a Makefile target that runs the linter before the tests.")),
    ("code", chat("Explain the difference between a mutex and a semaphore.")),
    ("code", chat("Add a docstring", "You complete code in the user's editor.")),
    ("code", chat("Port this to Go:\n\n    const sum = (a, b) => a + b;\n")),
    ("code", prompt("class Stack {\n  private items: number[] = [];\n\n  push(")),
    ("code", prompt("# Terraform module for an S3 bucket with versioning\nresource ")),
    ("code", chat("Why is my Postgres query slow although there is an index on the column?")),
    ("code", chat(parts("Review this diff", "- x = 1\n+ x = 2\n\ndef g(): pass"))),
    ("structured", chat("Name two rivers.", structured_outputs={"json": {"type": "array"}})),
    ("structured", chat("Book a table for two.", tools=[TOOL], tool_choice="auto")),
    ("structured", chat("Parse 'Tue 3 May, 4pm, dentist' into JSON with date, time and title.")),
    ("structured", chat("List the planets as CSV: name, diameter in km, number of moons.")),
    ("structured", chat("Extract entities.", "Your answer must be a single JSON object.")),
    ("structured", chat("Fill in this schema with made-up data, JSON and nothing else.")),
    ("summarize", chat("Shorten this to half its length:\n\n" + ARTICLE)),
    ("summarize", chat("Write the minutes of this meeting:\n" + EMAIL * 2)),
    ("summarize", chat(ARTICLE + "\nQuestion: how many miles of railway? Quote the text.")),
    ("summarize", chat("Read this and tell me what matters.\n" + EMAIL * 3)),
    ("summarize", prompt(ARTICLE + "\n\nIn summary,")),
    ("creative", chat("Write a rap battle between a toaster and a kettle.")),
    ("creative", chat("Make up a legend about the founding of my town.")),
    ("creative", chat("Give me a villain's monologue for my play.")),
    ("creative", chat("I want to play a text adventure. You are the dungeon master.")),
    ("creative", chat("Describe a sunset on an alien planet, vividly.", temperature=1.3)),
    ("creative", chat("a sonnet on overdue library books")),
    ("multilingual", chat("Hvordan lager man gode vafler?")),
    ("multilingual", chat("İstanbul'da hafta sonu ne yapabilirim?")),
    ("multilingual", chat("Hur många invånare har Stockholm och är det dyrt att bo där?")),
    ("multilingual", chat("Как приготовить борщ?", temperature=1.5)),
    ("multilingual", chat("How do you say 'good luck' in Korean? Translate it formally.")),
    ("multilingual", chat("Dime tres cosas que puedo hacer en Sevilla con los niños.")),
    ("multilingual", chat("写一首关于春天的诗")),
    ("chat", chat("What's a good name for a boy?")),
    ("chat", chat("I have an exam tomorrow, calm me down.")),
    ("chat", chat("How do I convince my class teacher to move the test?")),
    ("chat", chat("Which Swift song was on the radio most in 2014?")),
    ("chat", chat("What should I write in a thank-you card to my neighbour?")),
    ("chat", chat("Can I run a dishwasher with cold water?", "Answer briefly.")),
    ("chat", chat("What is the plot of the new Dune film?")),
    ("chat", prompt("The three primary colours are")),
    ("chat", turns("Are you there?", "Yes.", "Good. How far is the moon?")),
]

EXAMPLES: list[tuple[str, Body]] = [
    (name, body)
    for name, bodies in (
        ("structured", STRUCTURED),
        ("code", CODE),
        ("summarize", SUMMARIZE),
        ("creative", CREATIVE),
        ("multilingual", MULTILINGUAL),
        ("chat", CHAT),
    )
    for body in bodies
]
