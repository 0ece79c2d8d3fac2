"""Which folders are watched as what, from the LIST answers of real servers."""

from __future__ import annotations

import pytest

from gateway.config.providers import PROFILES
from gateway.inbound.folders import roles
from gateway.inbound.names import FolderListing
from gateway.model import Role

QUEUE, JUNK, SENT = Role.QUEUE, Role.JUNK, Role.SENT


def listing(text: str, delimiter: str | None = "/") -> list[FolderListing]:
    """One folder a line: its name, then its attributes."""
    found = []
    for line in text.strip().splitlines():
        name, *attributes = line.strip().split(" \\")
        found.append(FolderListing(name, delimiter, frozenset(f"\\{one.lower()}" for one in attributes)))
    return found


GMAIL = listing(
    r"""
    INBOX \HasNoChildren
    [Gmail]/Alle Nachrichten \All \HasNoChildren
    [Gmail]/Gesendet \HasNoChildren \Sent
    [Gmail]/Papierkorb \HasNoChildren \Trash
    [Gmail]/Spam \HasNoChildren \Junk
    [Gmail]/Wichtig \HasNoChildren \Important
    Projekte/Spam \HasNoChildren
    """
)
MICROSOFT_ATTRIBUTES = listing(
    r"""
    Archive \HasNoChildren
    Deleted Items \HasNoChildren \Trash
    Drafts \HasNoChildren \Drafts
    INBOX \Marked \HasNoChildren
    Junk Email \HasNoChildren \Junk
    Sent Items \HasNoChildren \Sent
    """
)
MICROSOFT_DE = listing("Archiv\nEntwürfe\nGelöschte Elemente\nGesendete Elemente\nINBOX\nJunk-E-Mail\nPostausgang")
MICROSOFT_FR = listing(
    "Archive\nBrouillons\nBoîte d'envoi\nCourrier indésirable\nÉléments envoyés\nÉléments supprimés\nINBOX"
)
MICROSOFT_PT_BR = listing("Arquivo Morto\nINBOX\nItens Enviados\nItens Excluídos\nLixo Eletrônico\nRascunhos")
MICROSOFT_PT = listing("Arquivo\nCorreio Eletrónico Não Solicitado\nINBOX\nItens Eliminados\nItens Enviados")
YAHOO = listing("Archive\nBulk Mail\nDraft\nInbox\nSent\nTrash")
YAHOO_MARKED = listing("Archive \\Archive\nBulk Mail \\Junk\nDraft \\Drafts\nInbox\nSent \\Sent\nTrash \\Trash")
AOL = listing("Inbox\nBulk\nDraft\nSent\nTrash")
ICLOUD = listing("INBOX\nArchive\nDeleted Messages\nDrafts\nJunk\nNotes\nSent Messages")
FASTMAIL = listing("INBOX\nArchive \\Archive\nDrafts \\Drafts\nSent \\Sent\nSpam \\Junk\nTrash \\Trash")
DOVECOT = listing("INBOX\nDrafts \\Drafts\nJunk \\Junk\nSent \\Sent\nSent Messages \\Sent\nTrash \\Trash")
DOVECOT_BARE = listing("INBOX\nDrafts\nJunk\nSent\nTrash")
CYRUS = listing("INBOX\nINBOX.Drafts\nINBOX.Junk\nINBOX.Sent\nINBOX.Trash\nINBOX.Archive.Sent", ".")
COURIER = listing("INBOX\nINBOX.Sent\nINBOX.Trash\nINBOX.Spam", ".")


@pytest.mark.parametrize(
    ("provider", "listed", "expected"),
    [
        pytest.param("gmail", GMAIL, {"[Gmail]/Spam": JUNK, "[Gmail]/Gesendet": SENT}, id="gmail-de"),
        pytest.param("microsoft", MICROSOFT_ATTRIBUTES, {"Junk Email": JUNK, "Sent Items": SENT}, id="microsoft"),
        pytest.param("microsoft", MICROSOFT_DE, {"Junk-E-Mail": JUNK, "Gesendete Elemente": SENT}, id="microsoft-de"),
        pytest.param(
            "microsoft", MICROSOFT_FR, {"Courrier indésirable": JUNK, "Éléments envoyés": SENT}, id="microsoft-fr"
        ),
        pytest.param(
            "microsoft", MICROSOFT_PT_BR, {"Lixo Eletrônico": JUNK, "Itens Enviados": SENT}, id="microsoft-pt-br"
        ),
        pytest.param(
            "microsoft",
            MICROSOFT_PT,
            {"Correio Eletrónico Não Solicitado": JUNK, "Itens Enviados": SENT},
            id="microsoft-pt",
        ),
        pytest.param("yahoo", YAHOO, {"Bulk Mail": JUNK, "Sent": SENT}, id="yahoo"),
        pytest.param("yahoo", YAHOO_MARKED, {"Bulk Mail": JUNK, "Sent": SENT}, id="yahoo-marked"),
        pytest.param("aol", AOL, {"Bulk": JUNK, "Sent": SENT}, id="aol"),
        pytest.param("icloud", ICLOUD, {"Junk": JUNK, "Sent Messages": SENT}, id="icloud"),
        pytest.param("fastmail", FASTMAIL, {"Spam": JUNK, "Sent": SENT}, id="fastmail"),
        pytest.param("custom", DOVECOT, {"Junk": JUNK, "Sent": SENT}, id="dovecot"),
        pytest.param("custom", DOVECOT_BARE, {"Junk": JUNK, "Sent": SENT}, id="dovecot-without-special-use"),
        pytest.param("custom", CYRUS, {"INBOX.Junk": JUNK, "INBOX.Sent": SENT}, id="cyrus"),
        pytest.param("custom", COURIER, {"INBOX.Spam": JUNK, "INBOX.Sent": SENT}, id="courier"),
        pytest.param("custom", listing("INBOX", None), {}, id="nothing-but-inbox"),
        pytest.param("custom", [], {}, id="nothing-listed"),
    ],
)
def test_junk_and_sent_are_found(provider: str, listed: list[FolderListing], expected: dict[str, Role]) -> None:
    found = roles(listed, ("INBOX",), None, None, PROFILES[provider])
    assert list(found.items()) == [("INBOX", QUEUE), *expected.items()]


@pytest.mark.parametrize("provider", PROFILES)
def test_the_profiles_names_are_known_without_an_attribute(provider: str) -> None:
    for junk in PROFILES[provider].junk:
        for sent in PROFILES[provider].sent:
            found = roles(listing(f"INBOX\n{junk}\n{sent}"), ("INBOX",), None, None, PROFILES[provider])
            assert found == {"INBOX": QUEUE, junk: JUNK, sent: SENT}


@pytest.mark.parametrize(
    ("junk", "sent"),
    [
        pytest.param("Нежелательная почта", "Отправленные", id="ru"),
        pytest.param("迷惑メール", "送信済みアイテム", id="ja"),
        pytest.param("垃圾邮件", "已发送邮件", id="zh"),
        pytest.param("Correo no deseado", "Elementos enviados", id="es"),
        pytest.param("Posta indesiderata", "Posta inviata", id="it"),
        pytest.param("Ongewenste e-mail", "Verzonden items", id="nl"),
        pytest.param("Wiadomości-śmieci", "Elementy wysłane", id="pl"),
        pytest.param("GEREKSİZ E-POSTA", "Gönderilmiş Öğeler", id="tr"),
        pytest.param("דואר זבל", "פריטים שנשלחו", id="he"),
        pytest.param("junk e-mail", "SENT-MAIL", id="en-in-any-case"),
        pytest.param("Courrier inde\u0301sirable", "E\u0301le\u0301ments envoye\u0301s", id="fr-decomposed"),
        pytest.param("INBOX/Junk", "INBOX/Sent Items", id="under-inbox"),
        pytest.param("Inbox/Spam", "Mail/sent_mail", id="under-other-prefixes"),
        pytest.param("[Google Mail]/Spam", "[Google Mail]/Sent Mail", id="under-google-mail"),
    ],
)
def test_names_in_many_languages_are_known(junk: str, sent: str) -> None:
    found = roles(listing(f"INBOX\n{sent}\n{junk}"), ("INBOX",), None, None, PROFILES["custom"])
    assert found == {"INBOX": QUEUE, junk: JUNK, sent: SENT}


@pytest.mark.parametrize("name", ["Projects/Spam", "Junk cars", "Spam/2019", "Trash", "INBOX.Spam"])
def test_a_folder_that_only_sounds_like_it_is_not_taken_for_junk(name: str) -> None:
    assert roles(listing(f"INBOX\n{name}"), ("INBOX",), None, None, PROFILES["custom"]) == {"INBOX": QUEUE}


def test_what_the_admin_names_comes_before_what_the_server_says() -> None:
    found = roles(DOVECOT, ("INBOX",), "Quarantäne", "Ablage/Gesendet", PROFILES["custom"])
    assert list(found.items()) == [("INBOX", QUEUE), ("Quarantäne", JUNK), ("Ablage/Gesendet", SENT)]


def test_what_the_server_says_comes_before_names() -> None:
    listed = listing("INBOX\nJunk\nSent\nMüll \\Junk\nWeg \\Sent")
    assert roles(listed, ("INBOX",), None, None, PROFILES["custom"]) == {"INBOX": QUEUE, "Müll": JUNK, "Weg": SENT}


def test_the_providers_own_name_comes_before_others() -> None:
    listed = listing("INBOX\nSpam\nBulk Mail\nSent Items\nSent")
    assert roles(listed, ("INBOX",), None, None, PROFILES["yahoo"]) == {"INBOX": QUEUE, "Bulk Mail": JUNK, "Sent": SENT}


def test_another_persons_marked_folder_is_not_ours() -> None:
    listed = listing("Shared/ben/Junk \\Junk\nINBOX\nJunk \\Junk")
    assert roles(listed, ("INBOX",), None, "", PROFILES["custom"]) == {"INBOX": QUEUE, "Junk": JUNK}


def test_empty_means_do_not_watch() -> None:
    assert roles(DOVECOT, ("INBOX",), "", "", PROFILES["custom"]) == {"INBOX": QUEUE}


def test_a_folder_that_the_admin_lists_is_a_queues_even_if_the_server_calls_it_junk() -> None:
    found = roles(DOVECOT, ("INBOX", "Junk", "Sent"), None, None, PROFILES["custom"])
    assert found == {"INBOX": QUEUE, "Junk": QUEUE, "Sent": QUEUE}


def test_the_touchpoints_folders_come_first_in_their_order_also_where_the_server_does_not_list_them() -> None:
    found = roles(DOVECOT, ("Orders", "INBOX"), None, None, PROFILES["custom"])
    assert list(found.items()) == [("Orders", QUEUE), ("INBOX", QUEUE), ("Junk", JUNK), ("Sent", SENT)]


@pytest.mark.parametrize("name", ["INBOX", "Inbox", "inbox"])
def test_inbox_has_one_name(name: str) -> None:
    assert roles(YAHOO, (name,), None, None, PROFILES["yahoo"])["INBOX"] is QUEUE
    assert roles(YAHOO, (name, "inbox"), name, "", PROFILES["yahoo"]) == {"INBOX": QUEUE}
