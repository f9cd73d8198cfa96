"""A Sigstore of our own: a certificate authority, a certificate log, a transparency log, and the root that names them.

Each part can be left out or made wrongly, so that the real verifier can be seen to mind it.
"""

import base64
import hashlib
import json
import struct
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

GITHUB = "https://token.actions.githubusercontent.com"
WORKFLOW = "https://github.com/example/policies/.github/workflows/publish.yml@refs/heads/main"
MOMENT = datetime(2026, 5, 4, 12, 0, tzinfo=UTC)
BUNDLE = "application/vnd.dev.sigstore.bundle.v0.3+json"
PREDICATE = "https://sigstore.dev/cosign/sign/v1"
STATEMENT = "https://in-toto.io/Statement/v1"


def b64(data):
    return base64.b64encode(data).decode()


def spki(key):
    return key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def key_id(key):
    return hashlib.sha256(spki(key)).digest()


def new_key():
    return ec.generate_private_key(ec.SECP256R1())


def sign(key, data):
    return key.sign(data, ec.ECDSA(hashes.SHA256()))


def name(text):
    return x509.Name(
        [x509.NameAttribute(NameOID.ORGANIZATION_NAME, "example.test"), x509.NameAttribute(NameOID.COMMON_NAME, text)]
    )


def utf8(text):
    data = text.encode()
    assert len(data) < 128
    return bytes([0x0C, len(data)]) + data


def pae(payload):
    kind = b"application/vnd.in-toto+json"
    return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)


def statement(digest, *, predicate=PREDICATE, kind=STATEMENT):
    return json.dumps(
        {
            "_type": kind,
            "subject": [{"digest": {"sha256": digest.removeprefix("sha256:")}}],
            "predicateType": predicate,
            "predicate": {},
        }
    ).encode()


def simple(digest, reference):
    return json.dumps(
        {
            "critical": {
                "identity": {"docker-reference": reference},
                "image": {"docker-manifest-digest": digest},
                "type": "cosign container image signature",
            },
            "optional": None,
        }
    ).encode()


class Tree:
    """A Merkle tree as of RFC 6962."""

    def __init__(self):
        self.leaves = []

    def add(self, body):
        self.leaves.append(hashlib.sha256(b"\0" + body).digest())
        return len(self.leaves) - 1

    def root(self, leaves=None):
        leaves = self.leaves if leaves is None else leaves
        if len(leaves) == 1:
            return leaves[0]
        cut = split(len(leaves))
        return hashlib.sha256(b"\1" + self.root(leaves[:cut]) + self.root(leaves[cut:])).digest()

    def path(self, index, leaves=None):
        leaves = self.leaves if leaves is None else leaves
        if len(leaves) == 1:
            return []
        cut = split(len(leaves))
        if index < cut:
            return [*self.path(index, leaves[:cut]), self.root(leaves[cut:])]
        return [*self.path(index - cut, leaves[cut:]), self.root(leaves[:cut])]


def split(count):
    """The largest power of two below a count."""
    return 1 << (count - 1).bit_length() - 1


class Log:
    """A transparency log: entries, a signed checkpoint, a signed promise per entry."""

    def __init__(self):
        self.key = new_key()
        self.tree = Tree()
        for number in range(5):
            self.tree.add(b"another entry %d" % number)

    def entry(self, body, kind, moment):
        index = self.tree.add(body)
        self.tree.add(b"a later entry")
        root, size = self.tree.root(), len(self.tree.leaves)
        note = f"log.example.test - 4711\n{size}\n{b64(root)}\n"
        signature = b64(key_id(self.key)[:4] + sign(self.key, note.encode()))
        promise = self.promise(body, index, moment)
        return {
            "logIndex": str(index),
            "logId": {"keyId": b64(key_id(self.key))},
            "kindVersion": {"kind": kind, "version": "0.0.1"},
            "integratedTime": str(promise["Payload"]["integratedTime"]),
            "inclusionPromise": {"signedEntryTimestamp": promise["SignedEntryTimestamp"]},
            "inclusionProof": {
                "logIndex": str(index),
                "rootHash": b64(root),
                "treeSize": str(size),
                "hashes": [b64(part) for part in self.tree.path(index)],
                "checkpoint": {"envelope": f"{note}\n\u2014 log.example.test {signature}\n"},
            },
            "canonicalizedBody": b64(body),
        }

    def promise(self, body, index, moment):
        payload = {
            "body": b64(body),
            "integratedTime": int(moment.timestamp()),
            "logID": key_id(self.key).hex(),
            "logIndex": index,
        }
        canonical = json.dumps(payload, sort_keys=True, separators=(",", ":")).encode()
        return {"SignedEntryTimestamp": b64(sign(self.key, canonical)), "Payload": payload}


class World:
    """The authority, the logs, and what they make."""

    def __init__(self):
        self.root_key, self.authority_key, self.ct_key = new_key(), new_key(), new_key()
        self.log = Log()
        self.root = self.authority("root", self.root_key, None, self.root_key)
        self.intermediate = self.authority("intermediate", self.authority_key, self.root, self.root_key)

    def authority(self, text, key, issuer, issuer_key):
        public = key.public_key()
        builder = (
            x509.CertificateBuilder()
            .subject_name(name(text))
            .issuer_name(issuer.subject if issuer else name(text))
            .public_key(public)
            .serial_number(x509.random_serial_number())
            .not_valid_before(MOMENT - timedelta(days=400))
            .not_valid_after(MOMENT + timedelta(days=4000))
            .add_extension(x509.BasicConstraints(ca=True, path_length=None if issuer is None else 0), critical=True)
            .add_extension(usage(signs_certificates=True), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()), critical=False)
        )
        return builder.sign(issuer_key, hashes.SHA256())

    def trusted_root(self):
        def instance(key):
            return {
                "baseUrl": "https://log.example.test",
                "hashAlgorithm": "SHA2_256",
                "publicKey": {
                    "rawBytes": b64(spki(key)),
                    "keyDetails": "PKIX_ECDSA_P256_SHA_256",
                    "validFor": {"start": "2020-01-01T00:00:00Z"},
                },
                "logId": {"keyId": b64(key_id(key))},
            }

        chain = [{"rawBytes": b64(one.public_bytes(Encoding.DER))} for one in (self.intermediate, self.root)]
        document = {
            "mediaType": "application/vnd.dev.sigstore.trustedroot+json;version=0.1",
            "tlogs": [instance(self.log.key)],
            "certificateAuthorities": [
                {
                    "subject": {"organization": "example.test", "commonName": "root"},
                    "uri": "https://ca.example.test",
                    "certChain": {"certificates": chain},
                    "validFor": {"start": "2020-01-01T00:00:00Z"},
                }
            ],
            "ctlogs": [instance(self.ct_key)],
        }
        return json.dumps(document).encode()

    def certificate(self, *, issuer=GITHUB, subject=WORKFLOW, sct=True, ct_key=None, authority_key=None, names=None):
        """A certificate of ten minutes around MOMENT, and its key."""
        key = new_key()
        if names is None:
            names = [x509.UniformResourceIdentifier(subject) if "://" in subject else x509.RFC822Name(subject)]
        authority_key = authority_key or self.authority_key
        builder = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([]))
            .issuer_name(self.intermediate.subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(MOMENT - timedelta(minutes=1))
            .not_valid_after(MOMENT + timedelta(minutes=9))
            .add_extension(usage(signs_certificates=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CODE_SIGNING]), critical=False)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self.authority_key.public_key()), critical=False
            )
            .add_extension(x509.SubjectAlternativeName(names), critical=True)
            .add_extension(unknown("1.3.6.1.4.1.57264.1.1", issuer.encode()), critical=False)
            .add_extension(unknown("1.3.6.1.4.1.57264.1.8", utf8(issuer)), critical=False)
        )
        if sct:
            before = builder.sign(authority_key, hashes.SHA256())
            stamps = self.stamp(before.tbs_certificate_bytes, ct_key or self.ct_key)
            builder = builder.add_extension(unknown("1.3.6.1.4.1.11129.2.4.2", stamps), critical=False)
        return key, builder.sign(authority_key, hashes.SHA256())

    def stamp(self, tbs, ct_key):
        """A list of one SCT over a precertificate (RFC 6962, 3.2 and 3.3)."""
        moment = int(MOMENT.timestamp() * 1000)
        signed = struct.pack("!BBQH", 0, 0, moment, 1) + hashlib.sha256(spki(self.authority_key)).digest()
        signed += len(tbs).to_bytes(3, "big") + tbs + b"\0\0"
        signature = sign(ct_key, signed)
        stamp = b"\0" + key_id(self.ct_key) + struct.pack("!QH", moment, 0) + b"\4\3"
        stamp += struct.pack("!H", len(signature)) + signature
        listed = struct.pack("!H", len(stamp)) + stamp
        listed = struct.pack("!H", len(listed)) + listed
        assert 0x80 > len(listed) - 128 >= 0 or len(listed) < 0x80
        return b"\x04" + (bytes([len(listed)]) if len(listed) < 0x80 else bytes([0x81, len(listed)])) + listed

    def bundle(self, digest, *, manifest=None, moment=MOMENT, signed=None, signing_key=None, **certificate):
        """A bundle as a document: DSSE over a statement, or over a manifest's bytes when they are given."""
        key, made = self.certificate(**certificate)
        key = signing_key or key
        pem = b64(made.public_bytes(Encoding.PEM))
        if manifest is None:
            payload = signed if signed is not None else statement(digest)
            signature = b64(sign(key, pae(payload)))
            body = {
                "apiVersion": "0.0.1",
                "kind": "dsse",
                "spec": {
                    "envelopeHash": {"algorithm": "sha256", "value": hashlib.sha256(payload).hexdigest()},
                    "payloadHash": {"algorithm": "sha256", "value": hashlib.sha256(payload).hexdigest()},
                    "signatures": [{"signature": signature, "verifier": pem}],
                },
            }
            content = {
                "dsseEnvelope": {
                    "payload": b64(payload),
                    "payloadType": "application/vnd.in-toto+json",
                    "signatures": [{"sig": signature}],
                }
            }
        else:
            signature = b64(sign(key, manifest))
            body = record(hashlib.sha256(manifest), signature, pem)
            content = {
                "messageSignature": {
                    "messageDigest": {"algorithm": "SHA2_256", "digest": b64(hashlib.sha256(manifest).digest())},
                    "signature": signature,
                }
            }
        entry = self.log.entry(compact(body), body["kind"], moment)
        return {
            "mediaType": BUNDLE,
            "verificationMaterial": {
                "certificate": {"rawBytes": b64(made.public_bytes(Encoding.DER))},
                "tlogEntries": [entry],
            },
            **content,
        }

    def annotations(self, payload, *, moment=MOMENT, signing_key=None, **certificate):
        """The annotations of the older layout over a payload; the log takes whatever was signed, by whatever key."""
        key, made = self.certificate(**certificate)
        pem = made.public_bytes(Encoding.PEM)
        signature = b64(sign(signing_key or key, payload))
        body = compact(record(hashlib.sha256(payload), signature, b64(pem)))
        return {
            "dev.cosignproject.cosign/signature": signature,
            "dev.sigstore.cosign/certificate": pem.decode(),
            "dev.sigstore.cosign/chain": self.intermediate.public_bytes(Encoding.PEM).decode(),
            "dev.sigstore.cosign/bundle": json.dumps(self.log.promise(body, 4711, moment)),
        }


def record(digest, signature, pem):
    return {
        "apiVersion": "0.0.1",
        "kind": "hashedrekord",
        "spec": {
            "data": {"hash": {"algorithm": "sha256", "value": digest.hexdigest()}},
            "signature": {"content": signature, "publicKey": {"content": pem}},
        },
    }


def compact(document):
    return json.dumps(document, sort_keys=True, separators=(",", ":")).encode()


def unknown(oid, value):
    return x509.UnrecognizedExtension(x509.ObjectIdentifier(oid), value)


def usage(*, signs_certificates):
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )
