"""The vocabulary of the generated bookshop: genres, themes, names and places, as plain tuples.

A theme appears in the titles and descriptions alone; no attribute column names it. Each has words for a title,
plots (the deeds of a hero; they follow 'A retired teacher') and motifs (noun phrases; they follow 'a story about').
"""

from __future__ import annotations

from typing import NamedTuple


class Theme(NamedTuple):
    title_words: tuple[str, ...]
    plots: tuple[str, ...]
    motifs: tuple[str, ...]


class Genre(NamedTuple):
    name: str
    kind: str  # the word for a book of the genre in descriptions
    themes: tuple[int, ...]  # positions in THEMES that are usual in it
    price: float
    ages: tuple[int, ...]  # positions in AGE_BANDS that like it a little more


THEMES = (
    Theme(
        ("Lighthouse", "Harbour", "Tide"),
        (
            "keeps the lamp of a lonely lighthouse through the winter storms",
            "returns to a fishing village to mend boats",
        ),
        ("the sea and those who wait on the shore", "fog, rocks and wrecked ships"),
    ),
    Theme(
        ("Gambit", "Rook", "Endgame"),
        ("plays one last chess tournament against an old rival", "teaches a silent child to play chess"),
        ("pawns, queens and the patience of a grandmaster", "a board game that becomes a matter of life"),
    ),
    Theme(
        ("Hive", "Honey", "Meadow"),
        ("inherits forty beehives and knows nothing about bees", "keeps bees on the roofs of the city"),
        ("honey, swarms and wild flowers", "the slow year of a beekeeper"),
    ),
    Theme(
        ("Grammar", "Dictionary", "Alphabet"),
        (
            "deciphers an inscription in a language that nobody speaks",
            "translates for people who must not understand each other",
        ),
        ("lost words and dying languages", "the dangers of translation"),
    ),
    Theme(
        ("Railway", "Platform", "Express"),
        ("boards the night train with a stranger's ticket", "drives the last steam engine across the border"),
        ("sleeping cars, stations and missed connections", "a long journey by rail"),
    ),
    Theme(
        ("Ice", "Pole", "Glacier"),
        ("crosses the polar ice with a team of dogs", "winters at an Antarctic research station"),
        ("frostbite, blizzards and an expedition gone wrong", "the silence of the far north"),
    ),
    Theme(
        ("Widow", "Farewell", "Ashes"),
        ("learns to live alone after a funeral", "sorts through the belongings of a dead brother"),
        ("grief and the long way out of it", "mourning, memory and letters never sent"),
    ),
    Theme(
        ("Kitchen", "Recipe", "Salt"),
        ("opens a small restaurant with a borrowed stove", "cooks for a family that has stopped talking"),
        ("bread, spices and the heat of the kitchen", "a recipe handed down by grandmothers"),
    ),
    Theme(
        ("Evidence", "Alibi", "Witness"),
        ("reopens a murder case that went cold thirty years ago", "finds a body behind the wall of a new house"),
        ("forensic evidence and a false confession", "a detective who cannot let go"),
    ),
    Theme(
        ("Summit", "Ridge", "Rope"),
        ("climbs the north face where a friend was lost", "guides rich clients up a mountain too late in the season"),
        ("thin air, ropes and avalanches", "the price of reaching the summit"),
    ),
    Theme(
        ("Stage", "Curtain", "Mask"),
        ("takes over the leading role an hour before the curtain", "rescues a bankrupt theatre with one last play"),
        ("actors, rehearsals and stage fright", "life behind the scenes of a playhouse"),
    ),
    Theme(
        ("Forger", "Canvas", "Gallery"),
        ("paints forgeries so good that museums fight over them", "steals a masterpiece and cannot sell it"),
        ("art theft and the auction room", "a portrait with a secret under its paint"),
    ),
    Theme(
        ("Star", "Orbit", "Colony"),
        ("wakes too early on a ship bound for another star", "repairs satellites above a ruined Earth"),
        ("space travel and the distances between worlds", "the first colony on a hostile planet"),
    ),
    Theme(
        ("Engine", "Circuit", "Automaton"),
        ("builds a machine that begins to ask questions", "is hired to switch off an artificial mind"),
        ("robots that dream of being useful", "what a computer owes to its makers"),
    ),
    Theme(
        ("Dragon", "Crown", "Oath"),
        ("hatches the last dragon egg in the kingdom", "must choose between a crown and an oath"),
        ("dragons, heirs and an empty throne", "a kingdom at war over its succession"),
    ),
    Theme(
        ("Witch", "Spell", "Raven"),
        ("learns magic from a witch whom the village fears", "pays for each spell with a year of memory"),
        ("curses, herbs and forbidden books", "magic that is hidden in plain sight"),
    ),
    Theme(
        ("Ghost", "Cellar", "Echo"),
        ("hears footsteps in the locked attic of the manor", "photographs people who died a century ago"),
        ("a haunted house and its former owners", "voices of the dead"),
    ),
    Theme(
        ("Spy", "Cipher", "Envoy"),
        ("passes secrets across a divided city", "breaks the enemy's code and may tell nobody"),
        ("double agents and secret police", "espionage in the coldest years"),
    ),
    Theme(
        ("Trench", "Letter", "Armistice"),
        ("drives an ambulance at the front line", "hides a deserter during the occupation"),
        ("soldiers who come home changed", "a war and the letters that survived it"),
    ),
    Theme(
        ("Wedding", "Waltz", "Summer"),
        ("pretends to be engaged for a single summer", "plans the wedding of the one who got away"),
        ("second chances at love", "rivals who cannot stop thinking about each other"),
    ),
    Theme(
        ("Orchard", "Garden", "Seed"),
        ("restores a walled garden that has run wild", "saves rare apple trees from the developers"),
        ("roses, seeds and the seasons of a garden", "plants that remember who tended them"),
    ),
    Theme(
        ("Daughter", "Sister", "Inheritance"),
        ("discovers a sister whom nobody ever mentioned", "divides a farm among three stubborn children"),
        ("mothers, daughters and what goes unsaid", "four generations under one roof"),
    ),
    Theme(
        ("Verdict", "Jury", "Trial"),
        ("defends a client whom the whole town wants convicted", "sits on a jury that cannot agree"),
        ("a courtroom, a lie and a conscience", "lawyers and the limits of the law"),
    ),
    Theme(
        ("Plague", "Fever", "Quarantine"),
        ("nurses the sick while the city gates are closed", "traces an epidemic to its first patient"),
        ("doctors against a nameless disease", "contagion and the fear of neighbours"),
    ),
    Theme(
        ("Violin", "Fugue", "Choir"),
        ("searches for a violin that was stolen in the war", "conducts an orchestra of prisoners"),
        ("music that heals and music that haunts", "a composer who loses her hearing"),
    ),
    Theme(
        ("Desert", "Caravan", "Well"),
        ("crosses the desert with a caravan of salt traders", "digs for water where the maps are blank"),
        ("sand, stars and nomads", "thirst and the kindness of strangers"),
    ),
    Theme(
        ("School", "Prefect", "Scholarship"),
        ("wins a place at a boarding school with strange rules", "teaches the class that everybody has given up on"),
        ("classmates, rivals and first friendships", "exams, dormitories and midnight feasts"),
    ),
    Theme(
        ("Ledger", "Bank", "Fortune"),
        ("uncovers a fraud in the books of a private bank", "loses a fortune in one morning on the exchange"),
        ("greed, debt and insider deals", "money and the people it ruins"),
    ),
    Theme(
        ("Wolf", "Forest", "Trail"),
        ("follows the tracks of the last wolves in the valley", "lives for a year in a cabin in the woods"),
        ("wild animals and the people who watch them", "the forest in all weathers"),
    ),
    Theme(
        ("Cat", "Teapot", "Parish"),
        ("solves small village mysteries with the help of a cat", "judges the flower show and makes enemies for life"),
        ("neighbours, gossip and a great deal of tea", "a comedy of village manners"),
    ),
)

AGE_BANDS = ("under 18", "18-24", "25-34", "35-49", "50-64", "65 and over")

GENRES = (
    Genre("Crime", "crime novel", (8, 22, 29, 11), 11.0, (3, 4, 5)),
    Genre("Thriller", "thriller", (17, 27, 22, 23), 11.0, (2, 3, 4)),
    Genre("Fantasy", "fantasy novel", (14, 15, 28, 3), 13.0, (0, 1, 2)),
    Genre("Science Fiction", "science fiction novel", (12, 13, 23, 5), 12.0, (1, 2, 3)),
    Genre("Romance", "romance", (19, 7, 20, 26), 9.0, (1, 2, 5)),
    Genre("Historical", "historical novel", (18, 24, 21, 25), 14.0, (3, 4, 5)),
    Genre("Literary", "literary novel", (6, 21, 24, 10), 16.0, (2, 3, 4)),
    Genre("Horror", "horror story", (16, 15, 23, 28), 10.0, (1, 2)),
    Genre("Young Adult", "young adult novel", (26, 14, 19, 1), 9.0, (0, 1)),
    Genre("Memoir", "memoir", (6, 2, 9, 18), 17.0, (3, 4, 5)),
    Genre("Travel", "travel book", (4, 25, 9, 0), 15.0, (2, 4, 5)),
    Genre("Adventure", "adventure story", (5, 9, 25, 0), 10.0, (0, 1, 3)),
    Genre("Humour", "comic novel", (29, 7, 10, 1), 9.0, (0, 2, 5)),
    Genre("Family Saga", "family saga", (21, 20, 27, 7), 14.0, (3, 4, 5)),
)

# Country: the languages its people read (positions in LANGUAGES), the first one most.
LANGUAGES = ("English", "German", "French", "Spanish", "Italian", "Dutch")
COUNTRIES = {
    "United Kingdom": (0,),
    "Ireland": (0,),
    "Canada": (0, 2),
    "Germany": (1, 0),
    "France": (2, 0),
    "Spain": (3, 0),
    "Italy": (4, 0),
    "Netherlands": (5, 0),
}

# Known to the outside knowledge graph alone.
MOVEMENTS = (
    "Quiet Realism",
    "New Gothic",
    "Northern Wave",
    "Document School",
    "Late Romantics",
    "Island Group",
    "Machine Age",
    "Open Form",
)
CITIES = {
    "London": "United Kingdom", "Leeds": "United Kingdom", "Glasgow": "United Kingdom", "Dublin": "Ireland",
    "Cork": "Ireland", "Toronto": "Canada", "Montreal": "Canada", "Berlin": "Germany", "Leipzig": "Germany",
    "Hamburg": "Germany", "Paris": "France", "Lyon": "France", "Nantes": "France", "Madrid": "Spain",
    "Seville": "Spain", "Bilbao": "Spain", "Rome": "Italy", "Turin": "Italy", "Trieste": "Italy",
    "Amsterdam": "Netherlands", "Utrecht": "Netherlands", "Ghent": "Netherlands",
}  # fmt: skip

FIRST_NAMES = (
    "Ada", "Albert", "Alma", "Anton", "Astrid", "Bea", "Bruno", "Clara", "Cyril", "Dora", "Edgar", "Elena", "Emil",
    "Esther", "Felix", "Flora", "Gerda", "Hugo", "Ida", "Ivo", "Jonas", "Judith", "Karin", "Leo", "Lydia", "Marta",
    "Milo", "Nadia", "Nils", "Olga", "Oscar", "Petra", "Rafael", "Rosa", "Simon", "Sofia", "Theo", "Ursula", "Viktor",
    "Wilma",
)  # fmt: skip
LAST_NAMES = (
    "Abbott", "Albrecht", "Amato", "Barlow", "Becker", "Bellini", "Carver", "Castell", "Conti", "Dahl", "Dekker",
    "Duval", "Easton", "Egger", "Falk", "Ferrer", "Fontaine", "Garland", "Girard", "Hale", "Hartmann", "Ibarra",
    "Iversen", "Jansen", "Keane", "Keller", "Laurent", "Lindqvist", "Lorca", "Marchetti", "Mercer", "Moreau", "Nolan",
    "Novak", "Okafor", "Olsen", "Pardo", "Petit", "Quinn", "Rausch", "Rinaldi", "Roth", "Salinas", "Sato", "Serrano",
    "Thorne", "Tomasi", "Ullmann", "Vance", "Verhoeven", "Vidal", "Wagner", "Ward", "Weaver", "Winter", "Yates",
    "Young", "Zeller", "Zimmer", "Zorn",
)  # fmt: skip
PUBLISHER_WORDS = (
    "Anchor", "Beacon", "Bridge", "Cedar", "Compass", "Copper", "Corner", "Falcon", "Granite", "Heron", "Juniper",
    "Lantern", "Linden", "Maple", "Mill Lane", "Moonrise", "North Gate", "Old Mill", "Oak Hill", "Paper Boat",
    "Quill", "River", "Saffron", "Silver", "Sparrow", "Three Keys", "Tower", "Westbank", "Willow", "Wren",
)  # fmt: skip
PUBLISHER_FORMS = ("Press", "Books", "House", "& Sons", "Editions", "Publishing")
SERIES_FIRST = (
    "Amber", "Black", "Blue", "Bright", "Broken", "Crooked", "Distant", "Eastern", "Fallen", "First", "Golden",
    "Green", "Grey", "Hidden", "Hollow", "Iron", "Last", "Long", "Lower", "Marble", "Narrow", "Open", "Pale", "Quiet",
    "Red", "Second", "Seventh", "Silent", "Southern", "Upper", "Western", "White", "Winding", "Young",
)  # fmt: skip
SERIES_SECOND = (
    "Acre", "Arch", "Bell", "Bridge", "Chapel", "Court", "Door", "Field", "Gate", "Hill", "Lane", "Lantern", "Mile",
    "Mirror", "Quarter", "River", "Road", "Row", "Square", "Stair", "Stone", "Street", "Tower", "Valley", "Wall",
    "Yard",
)  # fmt: skip
SERIES_FORMS = ("Cycle", "Books", "Chronicles", "Quartet", "Files", "Stories")

TITLE_ADJECTIVES = (
    "Silent", "Second", "Borrowed", "Hidden", "Last", "Forgotten", "Crooked", "Winter", "Broken", "Patient", "Paper",
    "Golden", "Restless", "Invisible", "Distant", "Careful", "Midnight", "Bitter", "Northern", "Unfinished", "Small",
    "Faithful", "Drowned", "Stolen",
)  # fmt: skip
TITLE_ENDINGS = ("Road", "Year", "House", "Letters", "Hour", "Lesson", "Club", "Story")
HEROES = (
    "A retired schoolteacher", "A young doctor", "A failed novelist", "A widowed tailor", "An orphan of sixteen",
    "A stubborn old captain", "A reluctant heiress", "A clerk with a secret", "A disgraced officer",
    "A runaway apprentice", "An ambitious journalist", "A shy librarian", "A former convict", "A gifted student",
    "A lonely watchmaker", "A nurse on leave",
)  # fmt: skip
TONES = (
    "quiet", "fast-paced", "tender", "dark", "witty", "sweeping", "disturbing", "warm", "spare", "playful",
    "melancholy", "gripping",
)  # fmt: skip
