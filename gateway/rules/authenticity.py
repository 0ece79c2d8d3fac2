"""Brings together what the provider said about a message's sender and what we found out: one `Authentication`."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from gateway.mime.scan import HeaderFacts
from gateway.model import Authentication
from gateway.rules import authres
from gateway.rules.authres import Said
from gateway.rules.dmarc import Dmarc, Identifiers
from gateway.rules.dns import domain_of
from gateway.rules.signatures import Sealed, Signed, signers_of
from gateway.rules.spf import Spf
from gateway.text import clean

US = "us"
_RESULTS_READ = 8_192  # characters


def authors_of(facts: HeaderFacts) -> tuple[str, ...]:
    """Return the domains of From, each once, as they are asked for."""
    return tuple(dict.fromkeys(filter(None, (domain_of(box.domain) for box in facts.authors))))


def of_provider(said: Said, provider: str) -> Authentication:
    """Return the provider's own word."""
    return Authentication(
        said.spf,
        said.dkim,
        said.dmarc,
        said.policy if said.dmarc == "fail" else "",
        said.by or provider,
        _line(said.spf, said.spf_domain, said.dkim, said.signers, said.dmarc, said.policy, ""),
    )


def identifiers(
    said: Said | None, spf: Spf | None, signed: Sequence[Signed] | None, *, is_touched: bool
) -> Identifiers:
    """Return what of the sender is proven, for DMARC. None: it was not looked at.

    `is_touched`: the provider rewrites the mail that it stores, so that a broken signature says nothing about it.
    """
    spf_word, spf_domain = _spf(said, spf)
    dkim_word, signers = _dkim(said, signed)
    is_ours = said is None or not said.dkim
    is_dkim_certain = dkim_word not in ("", "temperror") and not (
        is_touched and is_ours and dkim_word not in ("pass", "none")
    )
    return Identifiers(
        spf_domain if spf_word == "pass" else "",
        signers,
        is_uncertain=spf_word in ("", "temperror") or not is_dkim_certain,
    )


def found_out(
    said: Said | None,
    spf: Spf | None,
    signed: Sequence[Signed] | None,
    dmarc: Dmarc,
    *,
    provider: str,
    is_touched: bool,
    via: str = "",
) -> Authentication:
    """Return the verdict where we had to find out ourselves, at least in part. `via`: the sealer that we believe."""
    spf_word, spf_domain = _spf(said, spf)
    dkim_word, signers = _dkim(said, signed)
    if is_touched and dkim_word == "fail" and not (said and said.dkim):
        dkim_word = "neutral"
    word = dmarc.result
    if word == "temperror" and "temperror" not in (spf_word, dkim_word) and dmarc.policy:
        word = ""  # nothing went wrong: it is only that nobody can know
    reasons = [dmarc.detail, *(one.detail for one in signed or () if one.detail)]
    if via:
        word, reasons = "pass", [f"{via} vouches for it (ARC)"]
    by = US if said is None else f"{said.by or provider} and {US}"
    return Authentication(
        spf_word,
        dkim_word,
        word,
        dmarc.policy if word == "fail" else "",
        by,
        _line(spf_word, spf_domain, dkim_word, signers, word, dmarc.policy, "; ".join(filter(None, reasons[:3]))),
    )


def vouched(sealed: Sequence[Sealed], trusted: Collection[str], authors: Sequence[str]) -> str:
    """Return the trusted sealer that saw DMARC pass for the same author, "" when none did (RFC 8617 §7.2).

    Only as far back as every later sealer is trusted, too: any other could have changed the message in between.
    """
    for one in sealed:
        if not any(one.domain == name or one.domain.endswith(f".{name}") for name in trusted):
            return ""
        for result in authres.parse(one.results[:_RESULTS_READ]).results:
            author = domain_of(result.value("header.from").rpartition("@")[2])
            if result.method == "dmarc" and authres.word_of(result) == "pass" and author in authors:
                return one.domain
    return ""


def _spf(said: Said | None, spf: Spf | None) -> tuple[str, str]:
    if said is not None and said.spf:
        return said.spf, said.spf_domain
    return (spf.result, spf.domain) if spf is not None else ("", "")


def _dkim(said: Said | None, signed: Sequence[Signed] | None) -> tuple[str, tuple[str, ...]]:
    if said is not None and said.dkim:
        return said.dkim, said.signers
    if signed is None:
        return "", ()
    return authres.best(one.word for one in signed) or "none", signers_of(signed)


def _line(spf: str, spf_domain: str, dkim: str, signers: Sequence[str], dmarc: str, policy: str, reason: str) -> str:
    """Return `spf=pass (a.example), dkim=none, dmarc=fail (reject): why`."""
    told = [
        ("spf", spf, spf_domain),
        ("dkim", dkim, " ".join(signers[:3])),
        ("dmarc", dmarc, policy if dmarc == "fail" else ""),
    ]
    line = ", ".join(f"{name}={word}" + (f" ({more})" if more else "") for name, word, more in told if word)
    return clean(": ".join(filter(None, (line, reason))))
