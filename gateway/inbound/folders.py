"""Which of a mailbox's folders are watched, in which order, and what each is to us.

What the admin names comes first, then what the server says of its folders (special use, RFC 6154), then what the
provider calls them, then what mail clients and servers call them in many languages. A folder that is not to be found
is not watched: not every mailbox has a Junk.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Final, Protocol

from gateway.model import Role

INBOX: Final = "INBOX"

# \Spam: servers that knew the attributes before they had a standard (XLIST)
_ATTRIBUTES: Final[Mapping[Role, frozenset[str]]] = {
    Role.JUNK: frozenset({"\\junk", "\\spam"}),
    Role.SENT: frozenset({"\\sent"}),
}
# A folder of one of these is as good as one at the top; "Projects/Spam" is somebody's project.
_PREFIXES: Final = frozenset({"inbox", "[gmail]", "[google mail]", "mail"})


class Listing(Protocol):
    """A folder as the server lists it. `attributes`: lower case, with their backslash."""

    @property
    def name(self) -> str: ...

    @property
    def delimiter(self) -> str | None: ...

    @property
    def attributes(self) -> Collection[str]: ...


class Names(Protocol):
    """What the provider calls them, the likeliest first (`config.providers.Profile`)."""

    @property
    def junk(self) -> Sequence[str]: ...

    @property
    def sent(self) -> Sequence[str]: ...


def roles(
    listing: Sequence[Listing], folders: Sequence[str], junk: str | None, sent: str | None, profile: Names
) -> dict[str, Role]:
    """Return the folders to watch with their roles, in watching order: `folders` first, Junk, Sent.

    `junk`, `sent`: as the admin named them; None: find them; "": watch none. What is named is in the answer also when
    it is not in `listing`: whoever opens it finds out and can say so. A folder in `folders` is a queue's, whatever the
    server says of it. INBOX is always `INBOX`, in whatever case it is written (RFC 9051 §5.1).
    """
    found = dict.fromkeys(map(known_as, folders), Role.QUEUE)
    for role, named, names in ((Role.JUNK, junk, profile.junk), (Role.SENT, sent, profile.sent)):
        folder = _find(listing, role, names, found) if named is None else known_as(named)
        if folder:
            found.setdefault(folder, role)
    return found


def known_as(folder: str) -> str:
    """Return the one name of a folder."""
    return INBOX if folder.upper() == INBOX else folder


def name_beside(listing: Sequence[Listing], name: str) -> str:
    """Return what to call a folder that we make: where all others lie under INBOX, so does it."""
    prefixes = {f"{INBOX}{one.delimiter}" for one in listing if one.delimiter}
    others = [one.name for one in listing if known_as(one.name) != INBOX]
    for prefix in prefixes:
        if others and all(other.upper().startswith(prefix) for other in others):
            return f"{prefix}{name}"
    return name


def _find(listing: Sequence[Listing], role: Role, names: Iterable[str], taken: Collection[str]) -> str | None:
    """Return the folder of that role, None where there is none, or where it is one of `taken` (it has a role then)."""
    if marked := [one for one in listing if not _ATTRIBUTES[role].isdisjoint(one.attributes)]:
        # Shared mailboxes of others may be listed beside ours, theirs marked as well: ours is nearest to the top.
        folder = known_as(min(marked, key=_depth).name)
        return None if folder in taken else folder
    by_key: dict[str, str] = {}
    for one in listing:
        if (folder := known_as(one.name)) != INBOX and folder not in taken:
            for key in _keys(one):
                by_key.setdefault(key, folder)
    candidates = (by_key.get(_fold(name)) for name in (*names, *_NAMES[role]))
    return next((folder for folder in candidates if folder is not None), None)


def _depth(one: Listing) -> int:
    return one.name.count(one.delimiter) if one.delimiter else 0


def _keys(one: Listing) -> Iterator[str]:
    """Yield what a folder answers to: its name, and its name without a prefix that everybody's folders have."""
    yield _fold(one.name)
    if one.delimiter and (parts := one.name.split(one.delimiter, 1))[1:] and parts[0].casefold() in _PREFIXES:
        yield _fold(parts[1])


def _fold(name: str) -> str:
    """Return the name as it compares: composed or not, in any case, with any kind of space, hyphen or apostrophe."""
    plain = unicodedata.normalize("NFKC", name).translate(_ALIKE).casefold()
    return " ".join(unicodedata.normalize("NFKC", plain).split())


_ALIKE: Final = {ord(letter): "-" for letter in "\u2010\u2011\u2012\u2013_"} | {
    ord("\u2019"): "'",
    ord("\u200c"): None,
    ord("\u0130"): "I",  # the Turkish capital with a dot, and the small letter without: case is lost on them
    ord("\u0131"): "i",
}

# As Outlook, Exchange, Gmail, Thunderbird, Apple Mail, Roundcube, Zimbra and large hosts name them, by language.
_JUNK: Final = """
Junk | Spam | Junk Email | Junk E-mail | Junk Mail | Bulk Mail | Bulk | Spambox | SPAM-Box | Spam Mail
| Unwanted | Probably Spam
Junk-E-Mail | Spamverdacht | Unerwünscht | Unerwünschte Werbung
Courrier indésirable | Indésirables | Pourriel | Courriels indésirables | Indésirable
Correo no deseado | Correo basura | No deseado | Correo electrónico no deseado
Lixo Eletrônico | Lixo Eletrónico | Correio Não Solicitado | Correio Eletrónico Não Solicitado | E-mail de Lixo
| Lixo Electrónico | Email de lixo | Correio de lixo
Posta indesiderata | Indesiderata | Indesiderati
Ongewenste e-mail | Ongewenst | Ongewenste mail
Skräppost | Uønsket e-mail | Uønsket mail | Uønsket post | Søppelpost | Søppel-e-post | Roskaposti | Ruslpóstur
Wiadomości-śmieci | Niechciane | Niechciana poczta | Wiadomości śmieci
Nevyžádaná pošta | Nevyžiadaná pošta | Nevyžádané | Levélszemét | Mesaje nedorite | E-mail nedorit
| E-mailuri nedorite | Neželena pošta | Neželjena pošta | Bezvrijedna pošta | Neželjena e-pošta | Нежељена пошта
| Rämpspost | Mēstules | Nevēlamais pasts | Nepageidaujamas paštas | El. pašto šiukšlės | Šlamštas | Brukalas
Нежелательная почта | Спам | Небажана пошта | Нежелана поща | Непажаданая пошта | Нежелательные
Ανεπιθύμητη αλληλογραφία | Ανεπιθύμητα | Gereksiz E-posta | Önemsiz E-posta | Önemsiz | İstenmeyen | Gereksiz
Correu brossa | Correu no desitjat | Zabor-posta | Correo lixo
דואר זבל | זבל | البريد غير الهام | البريد العشوائي | بريد غير مرغوب | غير المرغوب فيه | هرزنامه
迷惑メール | 迷惑メールフォルダー | 迷惑メール フォルダ
| 垃圾邮件 | 垃圾邮件箱 | 垃圾郵件 | 垃圾電子郵件 | 垃圾信件匣
정크 메일 | 정크메일 | 스팸메일함 | 스팸 메일함 | 스팸함 | 스팸
อีเมลขยะ | จดหมายขยะ | Thư rác | Email Sampah | Surel Sampah | E-mel Remeh | E-mel Sarap | जंक ईमेल | स्पैम
"""
_SENT: Final = """
Sent | Sent Items | Sent Mail | Sent Messages | Sent-Mail | Sent Email | Sent Objects
Gesendet | Gesendete Elemente | Gesendete Objekte | Gesendete Nachrichten | Gesendete E-Mails | Gesendete Mails
| Gesendete
Éléments envoyés | Messages envoyés | Envoyés | Courrier envoyé | Courriers envoyés | Objets envoyés
| E-mails envoyés | Envoyé
Elementos enviados | Enviados | Mensajes enviados | Correo enviado | Correos enviados
Itens Enviados | Mensagens enviadas | Enviadas | E-mails enviados | Email enviado | Correio enviado | Enviado
Posta inviata | Inviati | Inviata | Elementi inviati | Messaggi inviati
Verzonden | Verzonden items | Verzonden berichten | Verzonden objecten | Verzonden e-mail
Skickat | Skickade | Skickade objekt | Skickad e-post | Skickade meddelanden | Sendt | Sendt post | Sendt mail
| Sendte elementer | Sendte mails | Sendte | Sendt e-post | Lähetetyt | Lähetetyt viestit | Send skeyti | Sendur póstur
Wysłane | Elementy wysłane | Wysłane wiadomości | Poczta wysłana
Odeslaná pošta | Odeslané | Odeslaná | Odoslaná pošta | Odoslané | Odeslané položky | Odoslané položky
| Elküldött elemek | Elküldött levelek | Elküldött üzenetek | Elküldött | Elemente trimise | Trimise | Mesaje trimise
| Poslano | Poslane stavke | Poslani elementi | Poslana pošta | Poslane poruke | Poslato | Послате ставке | Послато
| Saadetud | Saadetud üksused | Saadetud kirjad | Nosūtītie | Nosūtītie vienumi | Nosūtītās vēstules
| Nusiųsti elementai | Išsiųsti laiškai | Išsiųsta | Išsiųsti
Отправленные | Отправленные элементы | Отправленные письма | Надіслані | Надіслані елементи | Відправлені
| Изпратени | Изпратени елементи | Адпраўленыя | Дасланыя
Απεσταλμένα | Σταλμένα | Gönderilmiş Öğeler | Gönderilmiş | Gönderilmiş Postalar | Gönderilenler | Gönderilen
Elements enviats | Enviats | Missatges enviats | Bidalitakoak | Bidalitako elementuak | Bidalita
פריטים שנשלחו | נשלחו | דואר שנשלח | العناصر المرسلة | البريد المرسل | المرسلة | الرسائل المرسلة | ارسالشده | فرستادهشده
送信済みアイテム | 送信済み | 送信済みメール | 送信済みトレイ | 送信控え
| 已发送邮件 | 已发送 | 已发送消息 | 已傳送的郵件
| 寄件備份 | 寄件備份匣 | 寄件匣備份
보낸 편지함 | 보낸편지함 | 보낸 메일함 | 보낸메일함
รายการที่ถูกส่ง | รายการที่ส่ง | ส่งแล้ว | จดหมายที่ส่งแล้ว | Mục đã gửi | Thư đã gửi | Đã gửi
Item Terkirim | Terkirim | Pesan Terkirim | Item Dihantar | Mel Dihantar | भेजे गए आइटम | भेजे गए
"""


def _table(text: str) -> tuple[str, ...]:
    names = (name.strip() for line in text.splitlines() for name in line.split("|"))
    return tuple(dict.fromkeys(name for name in names if name))


_NAMES: Final[Mapping[Role, tuple[str, ...]]] = {Role.JUNK: _table(_JUNK), Role.SENT: _table(_SENT)}
