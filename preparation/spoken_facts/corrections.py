"""What the fact sources say in a way that no voice would: names, spellings and doubtful entries, corrected by hand."""

from __future__ import annotations

COUNTRIES = "countries-list 3.4.1 (MIT)"
ELEMENTS = "dict-elements 20001107 (public domain)"

# Dependencies and disputed places are left out: their "country", capital or currency is not one fact.
# fmt: off
LEFT_OUT = frozenset(
    {
        "AC", "AI", "AQ", "AX", "BL", "BQ", "BV", "CC", "CK", "CX", "EH", "FK", "GF", "GG", "GP", "GS",
        "HM", "IM", "IO", "JE", "MF", "MO", "MP", "MQ", "MS", "NF", "NU", "PM", "PN", "PS", "RE", "SH",
        "SJ", "SX", "TA", "TC", "TF", "TK", "UM", "VG", "VI", "WF", "YT"
    }
)
# fmt: on
# The capital is disputed, or is said in several ways that a spoken question cannot tell apart.
NO_CAPITAL = frozenset({"IL", "HK"})
# More than one country has a capital that sounds like this (George Town and Georgetown).
SHARED_CAPITALS = frozenset({"Georgetown", "George Town", "Victoria"})
TAKES_ARTICLE = frozenset(
    {
        "Bahamas",
        "Cayman Islands",
        "Central African Republic",
        "Comoros",
        "Democratic Republic of the Congo",
        "Dominican Republic",
        "Faroe Islands",
        "Gambia",
        "Maldives",
        "Marshall Islands",
        "Netherlands",
        "Philippines",
        "Republic of the Congo",
        "Seychelles",
        "Solomon Islands",
        "United Arab Emirates",
        "United Kingdom",
        "United States",
    }
)
RENAMED = {"TR": "Turkey", "CV": "Cape Verde"}
CAPITALS = {
    "US": ("Washington", "Washington D.C."),
    "GD": ("Saint George's", "St. George's"),
    "SM": ("San Marino", "City of San Marino"),
    "BO": ("Sucre", "La Paz"),
    "ZA": ("Pretoria", "Cape Town", "Bloemfontein"),
    "SZ": ("Mbabane", "Lobamba"),
    "LK": ("Colombo", "Kotte"),
    "MN": ("Ulaanbaatar", "Ulan Bator"),
}
OTHER_CONTINENT = {
    "RU": ("Asia",),
    "TR": ("Europe",),
    "KZ": ("Europe",),
    "GE": ("Europe",),
    "AZ": ("Europe",),
    "AM": ("Europe",),
    "CY": ("Asia",),
    "EG": ("Asia",),
    "TL": ("Asia",),
    "AU": ("Australia",),
}
# countries-list calls these languages by a country's name or by a rarer one.
LANGUAGES = {
    "so": ("Somali",),
    "km": ("Khmer", "Cambodian"),
    "lo": ("Lao", "Laotian"),
    "rw": ("Kinyarwanda", "Rwandi"),
    "ff": ("Fula", "Fulani", "Peul"),
    "ht": ("Haitian Creole", "Creole", "Haitian"),
    "si": ("Sinhala", "Sinhalese"),
    "fa": ("Persian", "Farsi", "Dari"),
    "tl": ("Filipino", "Tagalog"),
    "zh": ("Chinese", "Mandarin"),
    "to": ("Tongan",),
    "pa": ("Papiamento",),
    "dv": ("Dhivehi", "Divehi"),
}
NOT_A_LANGUAGE = frozenset({"nb", "nn"})  # written forms of Norwegian, which is listed too
NOT_CASH = frozenset({"BOV", "CHE", "CHW", "CLF", "USN", "UYI"})  # units of account
# Years where the dictionary differs from today's textbooks, or where "discovered" has several answers.
# fmt: off
DOUBTFUL_YEARS = frozenset(
    {
        "barium", "cadmium", "chlorine", "cobalt", "curium", "darmstadtium", "europium", "fluorine",
        "hafnium", "helium", "hydrogen", "iodine", "lutetium", "magnesium", "molybdenum", "nobelium",
        "platinum", "radon", "silicon", "strontium", "tellurium", "titanium", "vanadium", "yttrium"
    }
)
# fmt: on
OTHER_ELEMENT_NAMES = {"aluminum": ("aluminium",), "sulphur": ("sulfur",), "caesium": ("cesium",)}
