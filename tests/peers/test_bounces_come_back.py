"""Real servers report what became of our mail: Postfix writes it, Dovecot keeps it, we join it to what it is about."""

from __future__ import annotations

from collections.abc import Callable
from email import policy
from email.message import EmailMessage
from typing import Any

from tests.support.daemon import Daemon, Site
from tests.support.provider import CUSTOMER, Provider
from tests.support.waiting import wait_until

TEAM, ANA = "desk", "ana@gateway.example"
NOBODY = "nobody@clients.example"  # the provider takes mail for it, and finds later that there is no such mailbox
PERSONAL = f"agent:{ANA}"


def letter(number: int, to: str, **fields: str) -> EmailMessage:
    message = EmailMessage()
    message["From"] = f"{TEAM}@support.example"
    message["To"] = to
    message["Subject"] = f"Your order {number}"
    message["Message-ID"] = f"<order.{number}@client.example>"
    for name, value in fields.items():
        message[name.replace("_", "-")] = value
    message.set_content("Dear customer,\n\nit is on its way.\n")
    return message


def submit(daemon: Daemon, message: EmailMessage, mail: tuple[str, ...] = (), rcpt: tuple[str, ...] = ()) -> str:
    """Return the queue id."""
    session = daemon.submit(ANA, "password of ana")
    try:
        session.ehlo()
        assert session.mail(f"{TEAM}@support.example", list(mail))[0] == 250
        assert session.rcpt(message["To"], list(rcpt))[0] == 250
        code, text = session.data(message.as_bytes(policy=policy.SMTP))
        assert code == 250, text
        return text.decode().rpartition(" ")[2]
    finally:
        session.close()


def only(daemon: Daemon, subject: str) -> Callable[[], dict[str, Any] | None]:
    return lambda: next((one for one in daemon.conversations() if subject in one["subject"]), None)


def test_what_the_provider_returns_is_joined_to_the_message_and_goes_to_its_writer(
    provider: Provider, make_daemon: Callable[..., Daemon]
) -> None:
    site = Site([provider.touchpoint(TEAM, "both")])
    site.add_agent(ANA, "password of ana", [TEAM])
    daemon = make_daemon(site)
    daemon.start()
    daemon.wait_connected(TEAM)

    # somebody asks, and the answer cannot be delivered
    question = f"From: {NOBODY}\r\nSubject: Where is it?\r\nMessage-ID: <q@clients.example>\r\n\r\nHm\r\n"
    provider.dovecot.deliver(f"{TEAM}@support.example", question.encode())
    wait_until(lambda: only(daemon, "Where is it?")(), "the question came", state=daemon.log_tail)
    answer = letter(1, NOBODY, In_Reply_To="<q@clients.example>")
    id = submit(daemon, answer, ("ENVID=order+2B1", "RET=HDRS"))
    wait_until(
        lambda: daemon.ask("outbox.show", id=id)["recipients"][0]["bounced"],
        "the answer bounced",
        state=daemon.log_tail,
    )
    (recipient,) = daemon.ask("outbox.show", id=id)["recipients"]
    assert recipient["state"] == "delivered"  # by us; what came later is told beside it
    assert recipient["bounced"].startswith(f"Not delivered to {NOBODY}: there is no such mailbox (550 5.1.1")
    conversation = only(daemon, "Where is it?")()
    assert conversation is not None
    assert (conversation["state"], conversation["queues"]) == ("open", sorted([PERSONAL, TEAM]))
    shown = daemon.run("queue", "show", conversation["id"]).stdout
    assert recipient["bounced"] in shown
    assert recipient["bounced"] in daemon.run("queue", "read", conversation["id"]).stdout
    assert recipient["bounced"] in daemon.run("outbox", "show", id).stdout

    # to write there again is accepted, with a warning
    submit(daemon, letter(2, NOBODY))
    warning = only(daemon, "Perhaps not reached")()
    assert warning is not None
    assert warning["queues"] == [PERSONAL]

    # who asks to hear of success does
    submit(daemon, letter(3, CUSTOMER), rcpt=(f"NOTIFY=SUCCESS,FAILURE ORCPT=rfc822;{CUSTOMER}",))
    wait_until(
        lambda: any("Success" in one["subject"] for one in daemon.conversations()), "success", state=daemon.log_tail
    )
    success = only(daemon, "Success")()
    assert success is not None
    assert success["queues"] == [PERSONAL]
    (note,) = [one["note"] for one in daemon.ask("queue.show", id=success["id"])["messages"] if one["note"]]
    assert CUSTOMER in note
    assert note.startswith(("Delivered to", "Passed on for"))
