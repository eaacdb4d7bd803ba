import datetime

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from extauthz.checkapi.peer import MAX_CERTIFICATE_BYTES, PeerCertificates
from extauthz.minting import SigningKey

peer_principals = PeerCertificates().principals


def certificate(*names: x509.GeneralName, subject: str = "") -> str:
    key = SigningKey.generate("ES256").private
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    parts = {NameOID.ORGANIZATION_NAME: "O", NameOID.COMMON_NAME: subject}
    name = x509.Name([x509.NameAttribute(part, value) for part, value in parts.items()] if subject else [])
    start = datetime.datetime(2024, 1, 1)
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    builder = builder.serial_number(7).not_valid_before(start).not_valid_after(start + datetime.timedelta(days=9999))
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    pem = builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM).decode()
    return pem.replace("\n", "%0A").replace(" ", "%20").replace("+", "%2B")


def test_every_uri_and_dns_name_and_the_subject_count():
    pem = certificate(
        x509.DNSName("d.example"),
        x509.UniformResourceIdentifier("spiffe://td/ns/a/sa/b"),
        x509.UniformResourceIdentifier("spiffe://td/ns/a/sa/c"),
        subject="me",
    )
    assert set(peer_principals(pem, "")) == {
        "spiffe://td/ns/a/sa/b",
        "spiffe://td/ns/a/sa/c",
        "d.example",
        "CN=me,O=O",
    }


def test_without_a_readable_certificate_the_principal_is_all_there_is():
    assert peer_principals("", "spiffe://a") == ("spiffe://a",)
    assert peer_principals("junk", "spiffe://a") == ("spiffe://a",)
    assert peer_principals("", "") == ()


def test_a_certificate_without_names_still_has_its_subject():
    assert peer_principals(certificate(subject="me"), "") == ("CN=me,O=O",)
    assert peer_principals(certificate(), "") == ()


def test_certificates_are_remembered_within_bounds():
    certificates = PeerCertificates(cache_bytes=2 * MAX_CERTIFICATE_BYTES)
    pem = certificate(subject="me")
    padded = [f"{pem}{'%0A' * (number * 5000)}" for number in range(1, 5)]
    for _ in range(2):
        for text in padded:
            assert certificates.principals(text, "") == ("CN=me,O=O",)
    assert certificates.principals("x" * (MAX_CERTIFICATE_BYTES + 1), "spiffe://a") == ("spiffe://a",)
