"""Words that prompts are made up of. Data only; written for rayspec."""

from __future__ import annotations

from typing import Final

__all__ = [
    "ASK", "CODE_FROM_SOURCE", "CODE_FROM_SUMMARY", "CREATIVE_FORMS", "FORMATS", "LANGUAGES",
    "MOODS", "MULTILINGUAL", "ON_PROSE", "RECORDS", "SUBJECTS", "SYSTEMS", "TABLES", "TASKS",
    "TOPICS", "TWISTS",
]  # fmt: skip


def _items(text: str) -> tuple[str, ...]:
    return tuple(" ".join(item.split()) for item in text.split(";") if item.strip())


TOPICS: Final = _items("""
    gravity; vaccines; the French Revolution; black holes; inflation; solar panels; the water cycle;
    chess openings; meditation; the Roman Empire; volcanoes; electric cars; sleep; vitamin D; jazz;
    machine learning; the stock market; coral reefs; public speaking; time zones; baking bread;
    the immune system; marathon training; the Silk Road; tides; batteries; dinosaurs; budgeting;
    the Great Depression; evolution; watercolour painting; earthquakes; the human heart; yoga;
    renewable energy; the Cold War; composting; coffee brewing; cryptography; the Moon landing;
    migraine; gardening in small spaces; job interviews; the Renaissance; rainforests; insulin;
    neural networks; bicycle maintenance; the Amazon river; plate tectonics; stress at work; tea;
    the Industrial Revolution; recycling; photography; the solar system; antibiotics; mortgages;
    learning a new language; democracy; whales; ancient Egypt; the periodic table; running shoes;
    climate change; house plants; the digestive system; supply and demand; the printing press; owls;
    nutrition labels; databases; honey bees; hurricanes; the Great Wall of China; sourdough; DNA;
    artificial intelligence; time management; the ozone layer; knitting; glaciers; blood pressure;
    quantum computing; cheese; tax returns; the Olympic Games; penguins; search engines; friendship;
    home insurance; the Mediterranean diet; world maps; submarines; probability; opera; bats; rice;
    remote work; the brain; sharks; trade unions; fermentation; telescopes; dog training; karate;
    the Vikings; lightning; wind turbines; first aid; herbs; philosophy; cars with manual gearboxes;
    the Himalayas; dental care; astronomy for beginners; procrastination; nuclear power; mushrooms;
    email etiquette; ballet; credit scores; rain gardens; the Eiffel Tower; chemistry at school;
    desert animals; healthy breakfasts; moving to a new city; urban planning; sign language; salt;
    the history of computers; swimming; pottery; airplanes; ants; elections; the nervous system;
    cloud computing; growing tomatoes; the Black Death; fractions; volunteering;
    the English language
""")

ASK: Final = _items("""
    What is {}?; Tell me about {}.; How does one get started with {}?; Explain {} simply.;
    Give me five interesting facts about {}.; What are the pros and cons of {}?;
    Why is {} important?; Can you explain {} to a ten-year-old?; What should I know about {}?;
    What is the history of {}?; Give me tips about {}.; How has {} changed over time?;
    What are common misconceptions about {}?; Write a paragraph about {}.;
    List the main ideas behind {}.; How is {} connected to everyday life?;
    What is the difference between {} and {}?; Compare {} with {}.;
    I have to give a talk on {}. What should I say?; My friend asked me about {}. How do I answer?;
    Who are important people in the history of {}?; What are the most important terms in {}?;
    Give me a step-by-step introduction to {}.; What questions should I ask an expert on {}?;
    Is {} worth learning about?; How would you teach {} to a class?; What is your view of {}?;
    Describe {} in detail.; What problems come with {}?; Where can I learn more about {}?;
    Give an example of {}.; Help me understand {}.; What does the future of {} look like?;
    Make a plan for one week of studying {}.; Write an email to a colleague about {}.;
    What are the benefits of {}?; How can {} go wrong?; Why do people care about {}?;
    Give me three arguments for and three against {}.; What are the basic principles of {}?;
    Could you give a short overview of {}?; hi, i need help with {}; Please explain {} and {}.;
    What equipment is needed for {}?; What surprised scientists about {}?; How expensive is {}?
""")

SUBJECTS: Final = _items("""
    a baker who cannot taste; a city under the sea; two brothers who share a secret; an old piano;
    a fox in the snow; the first day of spring; a letter that was never sent; a ship without a crew;
    a girl who talks to trees; a forgotten library; the colour blue; a dragon that likes gardening;
    a soldier who comes home; the last bookshop in town; a storm at night; a cat with nine names;
    a detective on holiday; a mirror that tells lies; an island that moves; a violin made of ice;
    a teacher on Mars; a village without clocks; the sound of rain; a thief with a conscience;
    a grandmother and her garden; a lost astronaut; a door in the forest; a king who wants to cook;
    a friendly ghost; a river that remembers; the smell of coffee; a painter who loses her sight;
    an ant who wants to see the ocean; a wizard without a wand; a train through the mountains;
    a boy with a paper boat; the stars over the desert; a broken compass; a tiny elephant; autumn;
    a neighbour who never sleeps; a robot learning to dance; a castle made of sand; the old oak;
    a postman in a haunted town; an unlikely friendship; a market at dawn; a wolf and a shepherd;
    a scientist who meets her future self; a dancing bear; a secret recipe; a summer by the lake;
    a world without music; the moon; a pirate who is afraid of water; a photograph from 1920;
    a queen in disguise; a lonely satellite; a race across the ice; hope; a magic umbrella; winter;
    a chess game that lasts a lifetime; the tailor of the clouds; a mountain village; lost keys;
    a spaceship full of flowers; a talking parrot; a child who finds a map; the end of a friendship;
    a knight who hates fighting; an honest politician; a bus driver with a dream; fireflies; courage
""")

CREATIVE_FORMS: Final = _items("""
    Write a short story about {}; Write a poem about {}; Write a haiku about {};
    Write the beginning of a novel about {}; Write a fairy tale about {}; Write a song about {};
    Write a scene with dialogue about {}; Write a limerick about {}; Invent a legend about {};
    Write a monologue by someone who thinks about {}; Tell me a bedtime story about {};
    Write a diary entry about {}; Describe a dream about {}; Write a science fiction story about {};
    Write a sonnet about {}; Compose a lullaby about {}; Write a mystery about {};
    Write a humorous story about {}; Create a character inspired by {}; Write a fable about {};
    Write a rhyming poem about {}; Continue this story: It all began with {};
    Imagine a world shaped by {} and describe it; Write a ghost story about {};
    Write a letter from the point of view of {}; Write three opening lines for a story about {};
    Write a short play about {}; Give me ten titles for a story about {}; Write an ode to {}
""")

MOODS: Final = _items("""
    funny; sad; hopeful; mysterious; calm; exciting; dark; romantic; nostalgic; dreamlike; simple;
    suspenseful; playful; bittersweet; magical
""")

TWISTS: Final = _items("""
    It should have a happy ending.; End with a surprise.; Use short sentences.; Set it in Paris.;
    Set it in the year 2200.; Include a dog.; Tell it in the first person.; Make it rhyme.;
    Use at most 150 words.; Write it for children.; Include a conversation.; Make it about 300 words
    long.; Begin with a question.; Do not name the main character.; Set it during a long winter.;
    Include the word "lantern".; Write it in the present tense.; Let it teach a lesson.
""")

LANGUAGES: Final = _items("""
    Python; Python; Python; Python; JavaScript; Java; C++; C; Go; Rust; TypeScript; Ruby; C#; PHP;
    Kotlin; Swift; Bash
""")

TASKS: Final = _items("""
    reverses a string; checks whether a number is prime; computes the factorial of a number;
    sorts a list of dictionaries by a key; finds the largest element of an array; counts vowels;
    reads a CSV file and prints the average of a column; removes duplicates from a list;
    checks whether a string is a palindrome; computes Fibonacci numbers; flattens a nested list;
    merges two dictionaries; downloads a file from a URL; converts Celsius to Fahrenheit;
    implements binary search; implements a stack; implements a queue with two stacks; sums digits;
    finds the greatest common divisor; validates an email address with a regular expression;
    parses command line arguments; writes a list of objects to a JSON file; transposes a matrix;
    computes the median of numbers; implements quicksort; implements bubble sort; counts lines of a
    file; finds all anagrams in a list of words; capitalises every word; generates random passwords;
    converts a binary number to decimal; implements a linked list; traverses a binary tree in order;
    finds the second largest number; computes the area of a circle; rotates an array by k places;
    checks whether two strings are anagrams; finds missing numbers; prints a multiplication table;
    groups words by their first letter; computes a moving average; formats a date; zips two lists;
    retries a function with exponential backoff; logs how long a function takes; caches results;
    connects to a SQLite database and creates a table; splits a list into chunks; encrypts a text
    with a Caesar cipher; computes compound interest; simulates rolling dice; plays rock paper
    scissors; finds the longest word in a sentence; converts a list to a string; compares versions;
    implements a bank account class; implements a shopping cart; implements a simple calculator;
    solves a quadratic equation; prints a pyramid of stars; swaps two variables; counts word
    frequencies; multiplies two matrices; computes the power of a number recursively; walks a folder
""")

CODE_FROM_SUMMARY: Final = (
    "Write a {language} function called `{name}`{parameters}. {summary}.",
    "Write a function in {language} for this: {summary}.",
    "{summary}. Write {language} code for it.",
    "Write a {language} class with a method `{name}`{parameters}. {summary}.",
    "How can I do this in {language}? {summary}.",
    "Implement `{name}`{parameters} in {language}. {summary}. Include comments.",
    "Write unit tests in {language} for a function `{name}`{parameters}. {summary}.",
    '```python\ndef {name}({arguments}):\n    """{summary}."""\n```\nComplete this function.',
    "Give me a code example: {summary}.",
    "Write a script in {language} that uses a function `{name}`. {summary}.",
)
CODE_FROM_SOURCE: Final = (
    "Explain what this code does:\n```python\n{source}\n```",
    "Add a docstring and comments to this function:\n```python\n{source}\n```",
    "Write tests with pytest for this function:\n```python\n{source}\n```",
    "Refactor this function so that it is easier to read:\n```python\n{source}\n```",
    "Is there a bug in this code?\n```python\n{source}\n```",
    "Translate this to {language}:\n```python\n{source}\n```",
    "Add type hints to this function and return all of it:\n```python\n{source}\n```",
    "Complete this code:\n```python\n{head}",
    "{head}",
    "```python\n{source}\n```\nMake this faster.",
    "Return this function unchanged except that it is called `{other}`:\n```python\n{source}\n```",
    "Rewrite this function with error handling:\n```python\n{source}\n```",
)

ON_PROSE: Final = (
    "Summarize the following text:\n\n{prose}",
    "{prose}\n\nSummarize this in one sentence.",
    "{prose}\n\nWhat are the key points?",
    "Read this text and list the most important facts.\n\n{prose}",
    "Rewrite the following text in simpler words:\n\n{prose}",
    "Give me a short summary of this documentation:\n\n{prose}",
    "Text:\n{prose}\n\nSummarise the text in three bullet points.",
    "Paraphrase this:\n\n{prose}",
    "Shorten this text to half of its length:\n\n{prose}",
    "{prose}\n\nBased on the text above, who should read this and why?",
)

RECORDS: Final = _items("""
    a person; a book; a recipe; a car; a city; a movie; a product in a shop; a hotel room; a flight;
    a customer order; a weather report; a football match; a plant; a university course; an invoice;
    a music album; a job offer; a bus line; a museum; a pet; a bank account; a calendar event;
    a restaurant; a laptop; a country; a planet; a software package; a patient; a student; a house
""")
FORMATS: Final = (
    "Return a JSON object that describes {}. Output only JSON.",
    "Give me a JSON array with three examples of {}, each with an id and a name.",
    "Write a YAML document for {}.",
    "Create a Markdown table with four rows that describe {}.",
    "Write an XML document that describes {}.",
    "Write CSV with a header and five rows, each for {}.",
    "Write a JSON schema for {}.",
    "Describe {} as JSON with the keys name, type, price and tags.",
    "Generate a list of key: value pairs for {} in YAML format.",
)
TABLES: Final = (
    "Write a SQL query that returns the ten newest rows of a table of {}.",
    "Write a SQL statement that creates a table for {}.",
    "Write a SQL query that counts rows per month in a table of {}.",
)

SYSTEMS: Final = _items("""
    You are a helpful assistant.; You are a friendly chatbot.; Answer briefly.;
    You are an expert who explains things clearly.; You are a patient teacher.;
    Be concise and accurate.; You are a senior software engineer.; Answer in a formal tone.;
    You are a helpful, respectful and honest assistant.; Today is Monday.;
    You are the assistant of an online shop.; Always answer in complete sentences.
""")

MULTILINGUAL: Final = (
    (
        _items("""Was ist {}?; Erkläre mir {}.; Schreibe einen kurzen Text über {}.;
            Warum ist {} wichtig?; Nenne drei Fakten über {}."""),
        _items("""die Sonne; das Internet; der Rhein; Schach; gesundes Essen; die Demokratie;
            der Winter; das Klavier; die Schule; der Mond; Kaffee; die Stadt Hamburg"""),
    ),
    (
        _items("""Qu'est-ce que {} ?; Parle-moi de {}.; Écris un court texte sur {}.;
            Pourquoi {} est important ?; Donne-moi trois faits sur {}."""),
        _items("""le soleil; l'océan; le pain; la musique; le chocolat; la Bretagne; le vélo;
            l'hiver; le théâtre; la lune; le fromage; le Moyen Âge"""),
    ),
    (
        _items("""¿Qué es {}?; Háblame de {}.; Escribe un párrafo sobre {}.;
            ¿Por qué es importante {}?; Dame tres datos sobre {}."""),
        _items("""el sol; el mar; el fútbol; la música; el chocolate; la historia de México;
            la luna; el invierno; el café; la democracia; el ajedrez; la salud"""),
    ),
    (
        _items("""Che cos'è {}?; Parlami di {}.; Scrivi un breve racconto su {}.;
            Perché è importante {}?"""),
        _items("il sole; il mare; la pizza; la musica; Roma; la luna; il calcio; il vino; l'arte"),
    ),
    (
        _items("""O que é {}?; Fale sobre {}.; Escreva um parágrafo sobre {}.;
            Por que {} é importante?"""),
        _items("o sol; o mar; a música; o café; o Brasil; a lua; a escola; o inverno; a saúde"),
    ),
    (
        _items("""Translate to French: Tell me about {}.;
            Translate this sentence into German: I like {}.; How do you say "{}" in Spanish?;
            Translate to Italian: We talked about {} today."""),
        TOPICS,
    ),
)
