"""Generated speech that holds one number or address of a policy, in the forms in which recognisers write them, and speech that holds none."""

import random
from dataclasses import dataclass

from kaption.domain.redaction.numbers import luhn

_ONES = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
_TEENS = ["ten", "eleven", "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen"]
_TENS = ["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]
_GLUE = (
    " ", " ", " ", "-", ", ", ". ", " - ", "? ", "! ", "... ", "\u2026 ", '" "', "\u2019", " \u00b7 ", " \u2022 ", "\u3001", "\u3002",
    "\u060c ", " | ", " / ", "_", "\u00a0", "\u202f", "\u200b", " = ", " & ", "; ", ": ", "*", " ~ ",
)  # fmt: skip
_FILLERS = (
    "um", "uh", "okay", "and", "then", "dash", "so", "and then", "okay then", "er", "right", "yeah", "space", "Okay.", "um, and",
)  # fmt: skip
_DIGITS = ("0123456789",) * 8 + (
    "\u0660\u0661\u0662\u0663\u0664\u0665\u0666\u0667\u0668\u0669",
    "\uff10\uff11\uff12\uff13\uff14\uff15\uff16\uff17\uff18\uff19",
    "\u3007\u4e00\u4e8c\u4e09\u56db\u4e94\u516d\u4e03\u516b\u4e5d",
    "\u24ea\u2460\u2461\u2462\u2463\u2464\u2465\u2466\u2467\u2468",
)
_BEFORE = (
    "my card is", "it's", "you can reach me at", "I wrote it down", "so in the end we took", "the number is", "call me on", "that was",
    "okay let me see", "it should be", "here you go",
)  # fmt: skip
_AFTER = (
    "thank you very much indeed", "is that right", "which is what I have here", "in case you need it", "if you like", "", "",
    "please write that down for me",
)  # fmt: skip
_NAMES = ("zqjohn", "zqsmith", "zqweller", "zqmo")
_DOMAINS = ("zqmail.com", "zqpost.co.uk", "zqexample.org", "zqnine.de")


@dataclass(frozen=True)
class Secret:
    """What is said, the entity that it is, and its digits, none for an address."""

    text: str
    entity: str
    digits: str

    @property
    def words(self) -> list[str]:
        """The text as a recogniser parts it."""
        return self.text.split(" ")


def secret(dice: random.Random) -> Secret:
    """A sentence around one secret."""
    entity = dice.choice(
        ["CREDIT_CARD"] * 4 + ["PHONE_NUMBER", "US_SSN", "IBAN_CODE", "EMAIL_ADDRESS", "EMAIL_ADDRESS"]
    )
    if entity == "EMAIL_ADDRESS":
        said, digits = _address(dice), ""
    else:
        head, digits = {"CREDIT_CARD": _card, "PHONE_NUMBER": _phone, "US_SSN": _ssn, "IBAN_CODE": _iban}[entity](dice)
        said = head + _said(digits, dice)
    text = " ".join(part for part in (dice.choice(_BEFORE), said, dice.choice(_AFTER)) if part)
    return Secret(text, entity, digits)


def _card(dice: random.Random) -> tuple[str, str]:
    prefix, length = dice.choice(
        [("4", 16), ("51", 16), ("6011", 16), ("37", 15), ("2221", 16), ("5893", 16), ("2200", 16), ("4", 13)]
    )
    body = prefix + "".join(dice.choices("0123456789", k=length - len(prefix) - 1))
    digits = body + next(d for d in "0123456789" if luhn(body + d))
    if dice.random() < 0.2:  # what repeats is miscounted
        digits = "4" + "1" * dice.randrange(12, 23)
    elif dice.random() < 0.3:  # misheard or lost
        at = dice.randrange(1, len(digits))
        digits = digits[:at] + (dice.choice("0123456789") if dice.random() < 0.5 else "") + digits[at + 1 :]
    return "", digits


def _phone(dice: random.Random) -> tuple[str, str]:
    rest = "".join(dice.choices("0123456789", k=7))
    return "", dice.choice(
        ["202" + rest, "1415" + rest, "0207" + rest, "06" + rest + "1", "030" + rest, "98765" + rest[:5]]
    )


def _ssn(dice: random.Random) -> tuple[str, str]:
    return "", "219" + "".join(dice.choices("0123456789", k=6))


def _iban(dice: random.Random) -> tuple[str, str]:
    head, length = dice.choice([("DE", 20), ("ES", 22), ("NO", 13), ("PL", 26), ("FR", 23)])
    digits = "".join(dice.choices("0123456789", k=length))
    return dice.choice([head, head, head.title(), f"{head[0]} {head[1]} ", f"{head} "]), digits


def _said(digits: str, dice: random.Random) -> str:
    """``digits`` grouped somehow, in figures or words, with something between."""
    groups = _grouped(digits, dice)
    words = dice.choice([0.0, 0.0, 0.0, 0.3, 1.0])
    script = dice.choice(_DIGITS)
    glues = [dice.choice(_GLUE)] if dice.random() < 0.6 else _GLUE
    fillers = dice.choice([0.0, 0.0, 0.2])
    out = ""
    for index, group in enumerate(groups):
        spoken = dice.random() < words
        glue = dice.choice(glues) if index else ""
        if spoken or dice.random() < fillers:
            glue = " " if index else ""
        if index and dice.random() < fillers:
            glue = f" {dice.choice(_FILLERS)} "
        if out[-1:].isalpha() and not glue.strip() and glue != " " and index:
            glue = " "
        out += glue + (_in_words(group, dice) if spoken else group.translate(str.maketrans("0123456789", script)))
    return out


def _grouped(digits: str, dice: random.Random) -> list[str]:
    form = dice.choice(["fours", "fours", "pairs", "singles", "whole", "threes", "mixed", "mixed"])
    sizes = {"fours": [4], "pairs": [2], "singles": [1], "whole": [len(digits)], "threes": [3], "mixed": [1, 2, 3, 4]}[
        form
    ]
    out, at = [], 0
    while at < len(digits):
        size = dice.choice(sizes)
        out.append(digits[at : at + size])
        at += size
    return out


def _in_words(group: str, dice: random.Random) -> str:
    if len(group) == 2 and group[0] != "0" and dice.random() < 0.6:
        number = int(group)
        if number < 20:
            return _TEENS[number - 10]
        return _TENS[number // 10 - 2] + (f"{dice.choice([' ', '-'])}{_ONES[number % 10]}" if number % 10 else "")
    out, at = [], 0
    while at < len(group):
        same = next((n for n in (3, 2) if group[at : at + n] == group[at] * n and dice.random() < 0.5), 1)
        zero = dice.choice(["zero", "oh", "o", "nought"]) if at else "zero"
        word = zero if group[at] == "0" else _ONES[int(group[at])]
        out.append({1: "", 2: "double ", 3: "triple "}[same] + word)
        at += same
    return " ".join(out)


def _address(dice: random.Random) -> str:
    name = dice.choice(_NAMES)
    other = dice.choice(_NAMES)
    written = dice.choice([name, f"{name}.{other}", f"{name}_{other}", f"{name}77", f"{name.title()}.{other.title()}"])
    domain = dice.choice(_DOMAINS)
    spoken_domain = domain.replace(".", " dot ")
    spoken = dice.choice([f"{name} dot {other}", f"{name} underscore {other}", f"{' '.join('zqj')} underscore {other}",
                          f"{name} dash {other} ninety nine", f"{name} dot {other} 7 7"])  # fmt: skip
    return dice.choice(
        [f"{written}@{domain}", f"{written}@{domain}", f"{written} at {domain}", f"{written} @ {domain}", f"{written}@ {domain}",
         f"{written} @{domain}", f"{written}@{domain.replace('.', '. ', 1)}", f"{written}@zqhost", f"{spoken} at {spoken_domain}",
         f"{spoken} at {domain}", f"{written} at {spoken_domain}"]
    )  # fmt: skip


def harmless(dice: random.Random) -> str:
    """A sentence or two with numbers that no policy names."""
    said = [_harmless(dice) for _ in range(dice.choice([1, 1, 2, 3]))]
    return " ".join(said)


def _harmless(dice: random.Random) -> str:
    year = str(dice.randrange(1900, 2030))
    small, other, third = (dice.randrange(2, 100) for _ in range(3))
    most = dice.randrange(100, 1000)
    step = dice.choice([5, 10, 20])
    first = dice.randrange(10, 60)
    rising = ", ".join(str(first + step * n) for n in range(dice.randrange(3, 7)))
    month = dice.choice(["January", "March", "May", "June", "July", "October"])
    money = f"{dice.randrange(1, 90)},{dice.randrange(1000):03}"
    return dice.choice(
        [
            f"The bridge was opened in {year}.",
            f"The bridge was opened in {_year_in_words(int(year))}.",
            f"We meet in room {dice.randrange(100, 5000)}.",
            f"The zip code is {dice.randrange(10000, 99999)}.",
            f"The zip code is {' '.join(f'{dice.randrange(99999):05}')} if you need it.",
            f"Our post code is SW{dice.randrange(1, 20)}A {dice.randrange(1, 9)}AA, next to the station.",
            f"We sold {money} tickets.",
            f"It cost ${money}.{dice.randrange(100):02} in the end.",
            f"That makes {dice.randrange(1, 9)},{dice.randrange(1000):03},{dice.randrange(1000):03} dollars for all of them.",
            f"From {year} to {int(year) + 9}, and again in {int(year) + 12} and {int(year) + 20}, it was closed.",
            f"In {year}, {int(year) + 1} and {int(year) + 2} nothing happened.",
            f"It was on {month} {dice.randrange(1, 29)}, {year}.",
            f"It was on the {dice.randrange(4, 21)}th of {month} {year}.",
            f"The date is {dice.randrange(1, 29)}/{dice.randrange(1, 13)}/{year}, I think.",
            f"We open at {dice.randrange(1, 12)}:{dice.randrange(10, 60)} and close at {dice.randrange(1, 12)}:{dice.randrange(10, 60)} pm.",
            f"Take {rising} of them.",
            f"There were {small}, {other} and {third} people.",
            f"I have {_in_words(str(small), dice)} boats and {_in_words(str(other), dice)} oars.",
            f"It grew by {small}.{dice.randrange(10)}% and then by {other}%.",
            "Count with me: one, two, three, four, five, six, seven, eight.",
            "1, 2, 3, 4, 5, 6, 7, 8, 9, 10, and so on.",
            f"Chapter {small}, page {most}.",
            f"Flight {dice.randrange(100, 9999)} leaves from gate {small}.",
            f"They won {small} to {other}, and it was only the second time since {year}.",
            f"About {most} of {most + small} agreed.",
            f"The engine has {dice.randrange(2, 9)}00 horse power and weighs {dice.randrange(1, 4)}{dice.randrange(1, 9)}00 kilos.",
            f"He is {small} years old and she is {other}.",
            f"It took two hundred and {_in_words(str(max(small, 10)), dice)} days.",
            f"Version {dice.randrange(1, 9)}.{dice.randrange(20)}.{dice.randrange(20)} is out.",
            f"It is at {dice.randrange(1, 300)} Main Street on the {dice.randrange(4, 20)}th floor.",
            f"Between {most} and {most + 50} metres, {small} degrees.",
            f"The population is {dice.randrange(10, 900)},{dice.randrange(1000):03}, up from {dice.randrange(10, 900)},{dice.randrange(1000):03}.",
        ]
    )


def _year_in_words(year: int) -> str:
    dice = random.Random(year)
    first, last = str(year)[:2], str(year)[2:]
    if last == "00":
        return f"{_in_words(first, dice)} hundred"
    if last[0] == "0":
        return f"two thousand and {_ONES[int(last)]}" if year >= 2000 else f"nineteen oh {_ONES[int(last)]}"
    number = int(last)
    tail = (
        _TEENS[number - 10]
        if number < 20
        else _TENS[number // 10 - 2] + (f" {_ONES[number % 10]}" if number % 10 else "")
    )
    return f"{'nineteen' if first == '19' else 'twenty'} {tail}"
