# The images of kars, one a target; `make images` builds them.
#
#   router       beside every agent: Python, what the router imports, CA certificates; no shell, no package manager
#   controller   the same with what the controller imports
#   guard        what a sandbox's init containers need: sh, iptables and ip6tables, and git for agentCode.git
#
# Bases can be a mirror's, or pinned: --build-arg DEBIAN=...@sha256:...
ARG RUST=rust:1.95-slim-trixie
ARG DEBIAN=debian:trixie-slim

FROM ${RUST} AS wheel
RUN apt-get update && apt-get install -y --no-install-recommends python3-venv
WORKDIR /src
COPY requirements/build.txt requirements/
RUN python3 -m venv /build \
    && /build/bin/pip install --no-cache-dir --require-hashes --only-binary :all: -r requirements/build.txt
COPY Cargo.toml Cargo.lock pyproject.toml README.md LICENSE ./
COPY benches/load benches/load
COPY router_core router_core
COPY kars kars
RUN /build/bin/maturin build --release --locked --out /wheel

# Python and the libraries that it links, as if onto an empty system. What Debian's packages depend on for their own
# installation (dpkg, debconf, perl, a shell) stays out.
FROM ${DEBIAN} AS python
RUN apt-get update && apt-get install -y --no-install-recommends ca-certificates python3-pip python3-venv
WORKDIR /image
RUN mkdir -p etc/ssl/certs tmp usr/lib usr/lib64 usr/local/bin /debs/partial \
    && chmod 1777 tmp \
    && ln -s usr/lib usr/lib64 . \
    && ln -s /opt/kars/bin/kars usr/local/bin/kars-inference-router \
    && cp /etc/ssl/certs/ca-certificates.crt etc/ssl/certs/ \
    && printf '%s\n' root:x:0:0::/:/ kars:x:1000:1000::/tmp:/ router:x:1001:1001::/tmp:/ >etc/passwd \
    && printf '%s\n' root:x:0: kars:x:1000: router:x:1001: >etc/group \
    && echo 'hosts: files dns' >etc/nsswitch.conf
RUN python=$(basename "$(readlink -f /usr/bin/python3)") \
    && apt-get install -y --download-only --no-install-recommends \
        -o Dir::State::status=/dev/null -o Dir::Cache::archives=/debs "$python" \
    && for deb in /debs/lib*.deb /debs/python3*.deb /debs/tzdata*.deb /debs/zlib*.deb; do dpkg-deb --extract "$deb" . || exit; done \
    && ln -s "$python" usr/bin/python3 \
    && rm -rf usr/share/doc usr/share/man usr/share/lintian usr/lib/*/gconv

FROM python AS router-packages
RUN python3 -m venv --without-pip /opt/kars
ENV PIP_PYTHON=/opt/kars/bin/python3 PIP_NO_CACHE_DIR=1
COPY --from=wheel /wheel /wheel
COPY requirements/router.txt requirements/
RUN pip install --require-hashes --only-binary :all: -r requirements/router.txt && pip install --no-index --no-deps /wheel/*.whl

FROM router-packages AS controller-packages
COPY requirements/runtime.txt requirements/
RUN pip install --require-hashes --only-binary :all: -r requirements/runtime.txt

FROM ${DEBIAN} AS guard
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates git iptables \
    && rm -rf /var/lib/apt/lists/*
LABEL org.opencontainers.image.title=kars-guard org.opencontainers.image.licenses=MIT

FROM scratch AS base
COPY --from=python /image /
ENV PATH=/opt/kars/bin:/usr/bin LANG=C.UTF-8 PYTHONDONTWRITEBYTECODE=1 SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt
USER 1000:1000
WORKDIR /tmp
ENTRYPOINT ["kars"]
# Each image starts once while it is built, with nothing around it that could help.
RUN ["python3", "-c", "import asyncio, bz2, ctypes, lzma, sqlite3, ssl, uuid, zlib"]

FROM base AS router
COPY --from=router-packages /opt/kars /opt/kars
LABEL org.opencontainers.image.title=kars-inference-router org.opencontainers.image.licenses=MIT
RUN ["kars", "version"]
CMD ["router"]

FROM base AS controller
COPY --from=controller-packages /opt/kars /opt/kars
LABEL org.opencontainers.image.title=kars-controller org.opencontainers.image.licenses=MIT
RUN ["kars", "version"]
CMD ["controller"]
