"""A real registry (Debian's docker-registry) on loopback, and what publishes to it as oras and cosign do."""

import hashlib
import http.client
import json
import os
import shutil
import socket
import subprocess
import time
from pathlib import Path
from urllib.parse import urlsplit

OCI = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
EMPTY = "application/vnd.oci.empty.v1+json"
SIMPLE = "application/vnd.dev.cosign.simplesigning.v1+json"
BUNDLE = "application/vnd.dev.sigstore.bundle.v0.3+json"
PATH = f"{os.environ['PATH']}:/usr/local/sbin:/usr/sbin:/sbin"


def sha256(data):
    return "sha256:" + hashlib.sha256(data).hexdigest()


def described(data, media_type, **more):
    return {"mediaType": media_type, "digest": sha256(data), "size": len(data), **more}


class Depot:
    """The process, and a client that writes."""

    def __init__(self, folder: Path, *, extra=""):
        program = shutil.which("docker-registry", path=PATH)
        assert program, "docker-registry is missing: .ci/toolchain test installs it"
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.host = f"127.0.0.1:{probe.getsockname()[1]}"
        self.folder = folder
        self.command = [program, "serve", str(folder / "config.yml")]
        (folder / "config.yml").write_text(
            f"version: 0.1\nlog:\n  level: error\n  accesslog:\n    disabled: true\n"
            f"storage:\n  filesystem:\n    rootdirectory: {folder / 'data'}\n  delete:\n    enabled: true\n"
            f"http:\n  addr: {self.host}\n{extra}"
        )
        self.headers = {}
        self.start()

    def start(self):
        """Start it, again with what was published when it was stopped."""
        environment = {"PATH": PATH, "OTEL_TRACES_EXPORTER": "none"}
        self.log = (self.folder / "log").open("ab")
        self.process = subprocess.Popen(self.command, stdout=self.log, stderr=self.log, env=environment)
        self.await_start(self.folder / "log")

    def await_start(self, log):
        for _ in range(200):
            try:
                socket.create_connection(tuple(self.host.split(":")), timeout=1).close()
            except OSError:
                assert self.process.poll() is None, log.read_text()
                time.sleep(0.05)
            else:
                return
        raise AssertionError(log.read_text())

    def stop(self):
        self.process.terminate()
        self.process.wait(10)
        self.log.close()

    def send(self, method, path, body=b"", **headers):
        connection = http.client.HTTPConnection(self.host, timeout=10)
        try:
            named = {name.replace("_", "-"): value for name, value in headers.items()}
            connection.request(method, path, body, self.headers | named)
            answer = connection.getresponse()
            data = answer.read()
            assert answer.status < 300, (method, path, answer.status, data)
            return answer
        finally:
            connection.close()

    def blob(self, repository, data):
        """Upload a blob; its digest."""
        where = urlsplit(self.send("POST", f"/v2/{repository}/blobs/uploads/").getheader("Location"))
        query = f"{where.query}&" if where.query else ""
        kind = "application/octet-stream"
        self.send("PUT", f"{where.path}?{query}digest={sha256(data)}", data, Content_Type=kind)
        return sha256(data)

    def manifest(self, repository, document, reference="", media_type=OCI):
        """Upload a manifest, under a tag if one is given; its digest."""
        data = document if isinstance(document, bytes) else json.dumps(document).encode()
        self.send("PUT", f"/v2/{repository}/manifests/{reference or sha256(data)}", data, Content_Type=media_type)
        return sha256(data)

    def artifact(self, repository, body, media_type, *, tag="", layers=None):
        """Publish an artifact as oras does; the manifest's bytes."""
        self.blob(repository, b"{}")
        layers = [body] if layers is None else layers
        for layer in layers:
            self.blob(repository, layer)
        data = artifact(layers, media_type)
        self.manifest(repository, data, tag)
        return data

    def attach(self, repository, subject, bundle, *, artifact_type=BUNDLE):
        """Publish a bundle as cosign 3 does to a registry without the referrers API."""
        self.blob(repository, b"{}")
        self.blob(repository, bundle)
        data = referrer(subject, bundle, artifact_type)
        self.manifest(repository, data)
        index = {
            "schemaVersion": 2,
            "mediaType": INDEX,
            "manifests": [described(data, OCI, artifactType=artifact_type)],
        }
        self.manifest(repository, index, sha256(subject).replace(":", "-"), INDEX)

    def sign_simple(self, repository, subject, signatures):
        """Publish payloads with annotations as cosign 2 does."""
        self.blob(repository, b"{}")
        layers = []
        for payload, annotations in signatures:
            self.blob(repository, payload)
            layers.append(described(payload, SIMPLE, annotations=annotations))
        config = {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": sha256(b"{}"), "size": 2}
        document = {"schemaVersion": 2, "mediaType": OCI, "config": config, "layers": layers}
        self.manifest(repository, document, f"{sha256(subject).replace(':', '-')}.sig")


def artifact(layers, media_type):
    return json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": OCI,
            "artifactType": media_type,
            "config": {"mediaType": EMPTY, "digest": sha256(b"{}"), "size": 2},
            "layers": [described(layer, media_type) for layer in layers],
        }
    ).encode()


def referrer(subject, bundle, artifact_type=BUNDLE):
    return json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": OCI,
            "artifactType": artifact_type,
            "config": {"mediaType": EMPTY, "digest": sha256(b"{}"), "size": 2},
            "layers": [described(bundle, BUNDLE)],
            "subject": described(subject, OCI),
        }
    ).encode()
