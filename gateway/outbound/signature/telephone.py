"""Telephone numbers as `tel:` addresses want them (RFC 3966)."""

from __future__ import annotations

import re
import unicodedata
from html import unescape
from typing import Final
from urllib.parse import unquote

# An extension at the end: ";ext=7", "ext. 7", "x7", "#7", and what dialers wait for: ",,7", "p7".
_EXTENSION = re.compile(
    r"(?:;\s*ext\s*=|\bext(?:ension|n)?\b\.?|(?<=[\d\s).])[xpw]|(?<=[\d\s).])#|,+)\s*[:.]?\s*(\d{1,8})\s*\Z", re.I
)
_TRUNK = re.compile(r"\(\s*0\s*\)")
_LETTERS = re.compile(r"[A-Z]+")
_KEYPAD: Final = str.maketrans("ABCDEFGHIJKLMNOPQRSTUVWXYZ", "22233344455566677778889999")  # RFC 3966 §3: no letters


def normalise_tel(number: str) -> str:
    """Return what stands behind `tel:`: no blanks or brackets, `+` first where the number is international.

    "00" in front becomes "+", the national "(0)" behind a country code goes, an extension becomes `;ext=`, letters of
    the keypad (in capitals) become their keys, `#` is escaped, words in front are dropped. A local number stays local:
    which country it belongs to is not ours to guess. Without a digit, the text as it is.
    """
    text = "".join(map(_digit, unicodedata.normalize("NFKC", unquote(unescape(number))))).strip()
    if not re.search(r"[0-9]", text):
        return text
    text, semicolon, rest = text.partition(";")
    parameters = [re.sub(r"[^a-z0-9=.+-]", "", one.lower()) for one in rest.split(";")] if semicolon else []
    extension = next((one for one in parameters if re.fullmatch(r"ext=[0-9.-]*[0-9][0-9.-]*", one)), "")
    if extension:
        parameters.remove(extension)
    elif (match := _EXTENSION.search(text)) and re.search(r"[0-9]", text[: match.start()]) and "*" not in text:
        extension, text = f"ext={match[1]}", text[: match.start()]
    digits = _digits(text)
    if not digits:
        return _digits(re.sub(r"[^0-9]", "", f"{text}{rest}"))
    parameters = [one for one in parameters if re.fullmatch(r"[a-z0-9-]+(=[a-z0-9.+-]+)?", one)]
    return ";".join([digits, *filter(None, [extension]), *parameters])


def is_local(number: str) -> bool:
    """Is this a normalised number that means something in one country only, without saying in which?"""
    return bool(re.match(r"[0-9*%]", number)) and ";phone-context=" not in number


def _digits(text: str) -> str:
    whole, beginning = text, re.search(r"[+0-9(*#]", text)
    text = text[beginning.start() :] if beginning else ""
    plus = text.find("+")
    is_global = plus >= 0 and not re.search(r"[0-9]", text[:plus])
    if not is_global and re.match(r"[^0-9]*0[^0-9]*0", text):
        text, is_global = re.sub(r"0[^0-9]*0", "", text, count=1), True
    if is_global:
        text = _TRUNK.sub("", text)
    digits = re.sub(r"[^0-9*#]", "", _LETTERS.sub(lambda match: match[0].translate(_KEYPAD), text))
    if is_global:
        digits = digits.replace("*", "").replace("#", "")
        return f"+{digits}" if digits else re.sub(r"[^0-9]", "", whole)
    return digits.replace("#", "%23")


def _digit(letter: str) -> str:
    value = unicodedata.decimal(letter, None)
    return letter if value is None else str(value)
