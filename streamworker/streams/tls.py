"""What goes wrong with certificates, in one sentence with the repair; redis-py and OpenSSL speak of it in many voices."""

from __future__ import annotations

import ssl
from collections.abc import Iterator, Mapping
from typing import Any

from streamworker.errors import SetupError

_NAME_MISMATCHES = frozenset({62, 63, 64})
"""X509_V_ERR_HOSTNAME_MISMATCH, …EMAIL_MISMATCH, …IP_ADDRESS_MISMATCH: https://docs.openssl.org/3.0/man3/X509_STORE_CTX_get_error/"""

_CERT_REQS = frozenset({None, "none", "optional", "required", *ssl.VerifyMode})
_REPAIRS = {
    "ssl_certfile": "see that both are PEM and belong together, with the key in ssl_keyfile=PATH unless it is in the same file",
    "ssl_ca_path": "name a directory of certificates",
    "ssl_min_version": "write 771 for TLS 1.2 or 772 for TLS 1.3",
    "ssl_ciphers": "write OpenSSL's names, such as ECDHE-RSA-AES256-GCM-SHA384",
}

WANTS_ONE = "name one that its CA has signed, with ssl_certfile=PATH&ssl_keyfile=PATH in the URL"


def check(options: Mapping[str, Any]) -> None:
    """See that the files and words of these TLS options can be used. Raises `SetupError` that names the first that cannot.

    redis-py would find out in the middle of connecting, with a text that names no file.
    """
    context = ssl.create_default_context()
    if options.get("ssl_keyfile") and not options.get("ssl_certfile"):
        raise SetupError("the Redis URL names a key but no certificate: add ssl_certfile=PATH")
    if options.get("ssl_cert_reqs") not in _CERT_REQS:
        raise SetupError("ssl_cert_reqs of the Redis URL is none, optional or required (the default)")
    steps = {
        "ssl_ca_certs": lambda value: context.load_verify_locations(cafile=value),
        "ssl_ca_path": lambda value: context.load_verify_locations(capath=value),
        "ssl_ca_data": lambda value: context.load_verify_locations(cadata=value),
        "ssl_certfile": lambda value: context.load_cert_chain(
            value, options.get("ssl_keyfile"), lambda: options.get("ssl_password") or ""
        ),
        "ssl_min_version": lambda value: setattr(context, "minimum_version", value),
        "ssl_ciphers": context.set_ciphers,
    }
    for name, step in steps.items():
        if name in options:
            try:
                step(options[name])
            except (OSError, ValueError, TypeError) as error:
                repair = _REPAIRS.get(name, "see that it is whole, and in PEM")
                reason = "it cannot be read" if isinstance(error, FileNotFoundError | PermissionError) else _words(error)
                key = " and its key" if name == "ssl_certfile" else ""
                raise SetupError(f"{name} of the Redis URL{key} cannot be used: {reason}; {repair}") from None


def sentence_for(error: BaseException) -> str | None:
    """What an error while connecting says about certificates; `None` when it is about something else."""
    for link in _chain(error):
        if isinstance(link, ssl.SSLCertVerificationError):
            if link.verify_code in _NAME_MISMATCHES:
                return "the server's certificate is not for the host name in the URL: connect by a name that it holds"
            why = link.verify_message
            return f"the server's certificate cannot be verified ({why}): name the CA that signed it, with ssl_ca_certs=PATH in the URL"
        text = str(link)
        if "CERTIFICATE_REQUIRED" in text or "ALERT_UNKNOWN_CA" in text or "ALERT_BAD_CERTIFICATE" in text:
            return f"the server does not let us in without a client certificate that it trusts: {WANTS_ONE}"
        if isinstance(link, ssl.SSLEOFError):
            return f"the server ended the TLS connection; if it wants a client certificate, {WANTS_ONE}"
        if isinstance(link, ssl.SSLError) and "WRONG_VERSION_NUMBER" in text:
            return "the server does not speak TLS on this port: write redis://…, or its TLS port"
    return None


def _chain(error: BaseException) -> Iterator[BaseException]:
    """The error and those it came from, of which redis-py keeps only some as a cause."""
    link: BaseException | None = error
    for _ in range(10):
        if link is None:
            return
        yield link
        link = link.__context__ if link.__cause__ is None else link.__cause__


def _words(error: Exception) -> str:
    """OpenSSL's own words, without its source's file and line."""
    reason = getattr(error, "reason", None)
    return str(reason).replace("_", " ").lower() if reason else type(error).__name__
