"""Time stamps by RFC 3161: an authority's word that something existed at a moment. Needs the extra ``timestamp``."""

from __future__ import annotations

import urllib.error
import urllib.request
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from cryptography.x509 import load_pem_x509_certificates

from heirmark.errors import BadArtifact, BadConfig, told
from heirmark.wire.addresses import shown_address

if TYPE_CHECKING:
    from rfc3161_client import TimeStampResponse

LARGEST: Final = 1 << 20
_SECONDS = 30.0


def request_of(message: bytes) -> bytes:
    """What an authority is sent for a message: DER, ``application/timestamp-query``. It shows a hash of the message alone.

    Raises:
        BadConfig: when the extra is not installed.
    """
    client = _client()
    request = client.TimestampRequestBuilder().data(message).hash_algorithm(client.HashAlgorithm.SHA256).build()
    return bytes(request.as_bytes())


def fetch_stamp(message: bytes, url: str) -> bytes:
    """Have an authority stamp a message.

    Args:
        message: what is to be stamped; a hash of it is sent.
        url: of the authority, ``http://`` or ``https://``: what it says is signed either way.

    Returns:
        Its response, DER.

    Raises:
        BadArtifact: when it does not stamp.
        BadConfig: when the extra is not installed, or the URL is none.
    """
    if not url.startswith(("http://", "https://")):
        raise BadConfig(
            f"{shown_address(url)} is no address of a time-stamping authority: give http://... or https://..."
        )
    request = urllib.request.Request(
        url, data=request_of(message), headers={"Content-Type": "application/timestamp-query"}
    )
    try:
        with urllib.request.urlopen(request, timeout=_SECONDS) as answer:
            stamp = bytes(answer.read(LARGEST + 1))
    except (urllib.error.URLError, OSError) as error:
        raise BadArtifact(
            f"{shown_address(url)} does not stamp ({told(error)}): try again, or name another authority"
        ) from None
    _decoded(stamp)
    return stamp


def stamped_at(stamp: bytes, message: bytes, *, roots: bytes) -> datetime:
    """When an authority that is trusted stamped a message.

    Args:
        stamp: its response, DER.
        message: that was to be stamped.
        roots: certificates that are trusted, PEM; those between them and the authority's may be among them.

    Returns:
        The moment, UTC.

    Raises:
        BadArtifact: when the stamp is damaged, of another message, or by nobody who is trusted.
        BadConfig: when the extra is not installed, or the certificates are none.
    """
    client = _client()
    try:
        trusted = load_pem_x509_certificates(roots)
    except ValueError:
        raise BadConfig(
            "the roots of time-stamping authorities are no certificates in PEM: name another file"
        ) from None
    builder = client.VerifierBuilder()
    for each in trusted:
        is_root = each.issuer == each.subject
        builder = builder.add_root_certificate(each) if is_root else builder.add_intermediate_certificate(each)
    decoded = _decoded(stamp)
    try:
        builder.build().verify_message(decoded, message)
    except (client.VerificationError, ValueError) as error:
        raise BadArtifact(
            f"the time stamp does not hold ({told(error)}): it is of something else, or by nobody trusted"
        ) from None
    moment: datetime = decoded.tst_info.gen_time
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


def _decoded(stamp: bytes) -> TimeStampResponse:
    client = _client()
    if len(stamp) > LARGEST:
        raise BadArtifact("the time stamp is larger than any is: name another authority")
    try:
        decoded: TimeStampResponse = client.decode_timestamp_response(stamp)
        granted = decoded.status == client.PKIStatus.GRANTED
    except (ValueError, client.VerificationError) as error:
        raise BadArtifact(
            f"the time stamp cannot be read ({told(error)}): it is damaged, or no response of RFC 3161"
        ) from None
    if not granted:
        raise BadArtifact("the authority refused to stamp: name another one")
    return decoded


def _client() -> Any:
    try:
        import rfc3161_client
    except ImportError:
        raise BadConfig('time stamps are read by rfc3161-client: pip install "heirmark[timestamp]"') from None
    return rfc3161_client
