"""Mail that a scanner has an opinion about."""

from __future__ import annotations

from email.message import EmailMessage

GTUBE = "XJS*C4JDBQADN1.NSBN3*2IDNEN*GTUBE-STANDARD-ANTI-UBE-TEST-EMAIL*C.34X"  # every scanner calls this spam
LURE = (
    "Dear winner, the lottery board has chosen your mailbox for a prize of many millions. Send your bank details to"
    " claim this unbelievable prize before Friday, or another lucky winner collects the money in your place."
)
ORDER = (
    "Dear support, the printer that we bought from you in March does not find its paper tray any more. We have cleaned"
    " the sensor as your handbook says on page twelve. Could you send a technician to our office next week?"
)


def lure(text: str, number: int = 1, subject: str = "A question") -> bytes:
    message = EmailMessage()
    message["From"] = "Customer <customer@clients.example>"
    message["To"] = "support@support.example"
    message["Subject"] = f"{subject} {number}"
    message["Date"] = "Mon, 23 Nov 2026 10:00:00 +0000"
    message["Message-ID"] = f"<{subject.replace(' ', '-')}.{number}@clients.example>"
    message.set_content(f"{text}\n\nNumber {number}.\n")
    return message.as_bytes().replace(b"\n", b"\r\n")
