"""TLS and users. The server of the tests may have no TLS: what ends it is in front."""

import datetime as dt
import ipaddress
import ssl

import pytest
import redis.asyncio
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from tests.redis.proxy import Proxy
from tests.redis.server import RIGHTS

import redis
from adaptive_rate_limiter import Limiter
from adaptive_rate_limiter.backends import RedisBackend
from adaptive_rate_limiter.core.pool import Renewal
from adaptive_rate_limiter.exceptions import BackendConnectionError


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    """The path of a certificate for 127.0.0.1 that vouches for itself, with its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test")])
    now = dt.datetime.now(dt.timezone.utc)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False
        )
        .sign(key, hashes.SHA256())
    )
    path = tmp_path_factory.mktemp("tls") / "server.pem"
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path.write_bytes(private + made.public_bytes(serialization.Encoding.PEM))
    return str(path)


@pytest.fixture(scope="module")
def port(redis_server, certificate):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    with (
        redis.Redis(port=redis_server.port) as client,
        Proxy(redis_server.port, tls=context) as proxy,
    ):
        client.execute_command(
            "ACL", "SETUSER", "tls", "reset", "on", ">secret", "~adaptive-rate-limiter:*", *RIGHTS
        )
        yield proxy.port
        client.execute_command("ACL", "DELUSER", "tls")


def use(backend):
    limiter = Limiter(backend, quotas={"unit": "requests", "limit": 3, "window": 3600})
    for _ in range(3):
        limiter.acquire("m", timeout=10).settle()
    (bucket,) = backend.buckets("")
    assert not bucket.lease.outage
    assert limiter.try_acquire("m") is None
    backend.close()


def test_tls_and_a_user_by_url(port, certificate):
    url = f"rediss://tls:secret@127.0.0.1:{port}/0?ssl_ca_certs={certificate}"
    use(RedisBackend(url, namespace="tls url"))


def test_tls_and_a_user_by_an_asynchronous_client(port, certificate):
    client = redis.asyncio.Redis(
        host="127.0.0.1", port=port, ssl=True, ssl_ca_certs=certificate, username="tls", password="secret"
    )
    use(RedisBackend(redis_client=client, namespace="tls client"))


def test_a_provider_of_credentials_is_asked(redis_server, port):
    provider = redis.UsernamePasswordCredentialProvider("tls", "secret")
    client = redis.Redis(port=redis_server.port, credential_provider=provider)
    use(RedisBackend(redis_client=client, namespace="credentials"))


@pytest.mark.parametrize(
    "url",
    [
        "rediss://tls:secret@127.0.0.1:{port}/0",  # nobody vouches for the certificate
        "rediss://tls:wrong-secret@127.0.0.1:{port}/0?ssl_ca_certs={certificate}",
        "redis://tls:secret@127.0.0.1:{port}/0",  # no TLS
    ],
)
def test_what_is_not_let_in_counts_as_out_of_reach_and_names_no_password(port, certificate, url):
    backend = RedisBackend(url.format(port=port, certificate=certificate))
    with pytest.raises(BackendConnectionError) as raised:
        backend.renew("b", Renewal("w", 1))
    assert "secret" not in str(raised.value)
    backend.close()
