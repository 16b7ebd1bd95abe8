"""Lists the languages that Whisper knows by its codes, and maps other tags and names to them."""

import re
from typing import Final as Const

NAMES: Const = {
    "af": "afrikaans", "am": "amharic", "ar": "arabic", "as": "assamese", "az": "azerbaijani", "ba": "bashkir",
    "be": "belarusian", "bg": "bulgarian", "bn": "bengali", "bo": "tibetan", "br": "breton", "bs": "bosnian",
    "ca": "catalan", "cs": "czech", "cy": "welsh", "da": "danish", "de": "german", "el": "greek", "en": "english",
    "es": "spanish", "et": "estonian", "eu": "basque", "fa": "persian", "fi": "finnish", "fo": "faroese", "fr": "french",
    "gl": "galician", "gu": "gujarati", "ha": "hausa", "haw": "hawaiian", "he": "hebrew", "hi": "hindi",
    "hr": "croatian", "ht": "haitian creole", "hu": "hungarian", "hy": "armenian", "id": "indonesian",
    "is": "icelandic", "it": "italian", "ja": "japanese", "jw": "javanese", "ka": "georgian", "kk": "kazakh",
    "km": "khmer", "kn": "kannada", "ko": "korean", "la": "latin", "lb": "luxembourgish", "ln": "lingala", "lo": "lao",
    "lt": "lithuanian", "lv": "latvian", "mg": "malagasy", "mi": "maori", "mk": "macedonian", "ml": "malayalam",
    "mn": "mongolian", "mr": "marathi", "ms": "malay", "mt": "maltese", "my": "burmese", "ne": "nepali", "nl": "dutch",
    "nn": "nynorsk", "no": "norwegian", "oc": "occitan", "pa": "punjabi", "pl": "polish", "ps": "pashto",
    "pt": "portuguese", "ro": "romanian", "ru": "russian", "sa": "sanskrit", "sd": "sindhi", "si": "sinhala",
    "sk": "slovak", "sl": "slovenian", "sn": "shona", "so": "somali", "sq": "albanian", "sr": "serbian",
    "su": "sundanese", "sv": "swedish", "sw": "swahili", "ta": "tamil", "te": "telugu", "tg": "tajik", "th": "thai",
    "tk": "turkmen", "tl": "tagalog", "tr": "turkish", "tt": "tatar", "uk": "ukrainian", "ur": "urdu", "uz": "uzbek",
    "vi": "vietnamese", "yi": "yiddish", "yo": "yoruba", "yue": "cantonese", "zh": "chinese",
}  # fmt: skip
#: The part of a BCP 47 tag that matters here.
_TAG: Const = re.compile(r"[A-Za-z]{2,3}([-_][A-Za-z0-9]{1,8})*")
#: Other codes for languages to which Whisper gives its own.
_ALIASES: Const = {"cmn": "zh", "fil": "tl", "in": "id", "iw": "he", "jv": "jw", "nb": "no"}
_CODES: Const = {name: code for code, name in NAMES.items()}


def code_of(tag: object) -> object:
    """Return the code of a tag: ``en`` for ``en-US`` and ``EN``, ``no`` for ``nb_NO``. Raises ``ValueError``: no such tag."""
    if not isinstance(tag, str) or tag == "auto":
        return tag
    if not _TAG.fullmatch(tag):
        raise ValueError("a language is a code such as en, a tag such as en-US, or auto")
    code = re.split("[-_]", tag, maxsplit=1)[0].lower()
    return _ALIASES.get(code, code)


def language(text: str) -> str | None:
    """Return the code of user input: a code, a tag or an English name. ``auto`` stays; None if Whisper lacks the language."""
    text = text.strip().lower()
    if text in _CODES:
        return _CODES[text]
    try:
        code = str(code_of(text))
    except ValueError:
        return None
    return code if code in NAMES or code == "auto" else None
