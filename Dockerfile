# syntax=docker/dockerfile:1
# brandproxy: every role from one image; which one is `serve --role …`.
#
# Nothing but the base image and the hashed lock comes from outside. An index other than the default one is given
# as a build argument or secret of pip's own (PIP_INDEX_URL, pip.conf), never written here. Pin the base by digest
# in your registry: `--build-arg BASE=python:3.13-slim-bookworm@sha256:…`. An SBOM is an attestation of the build:
# `docker buildx build --sbom=true --provenance=true …`; the locked packages are listed in the image as well.
ARG BASE=python:3.13-slim-bookworm

FROM ${BASE} AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PYTHONDONTWRITEBYTECODE=1
WORKDIR /src
COPY requirements-server.lock ./
RUN python -m venv /opt/brandproxy \
 && /opt/brandproxy/bin/pip install --only-binary :all: --require-hashes -r requirements-server.lock
COPY pyproject.toml README.md LICENSE ./
COPY brandproxy ./brandproxy
# The package itself is pure Python and is put in place as it is: no build tools come from anywhere.
RUN site="$(/opt/brandproxy/bin/python -c 'import site; print(site.getsitepackages()[0])')" \
 && cp -r brandproxy "$site/" \
 && printf '#!/opt/brandproxy/bin/python\nfrom brandproxy.cli import main\nmain()\n' > /opt/brandproxy/bin/brandproxy \
 && chmod 755 /opt/brandproxy/bin/brandproxy \
 && /opt/brandproxy/bin/python -m compileall -q -j 0 /opt/brandproxy/lib \
 && /opt/brandproxy/bin/pip freeze > /opt/brandproxy/packages.txt \
 && rm -rf /opt/brandproxy/lib/python*/site-packages/pip* /opt/brandproxy/bin/pip*

FROM ${BASE}
# 10001: no user of the base image, and what k8s/ runs as. No shell is needed to run it.
RUN useradd --system --uid 10001 --no-create-home --shell /usr/sbin/nologin brandproxy \
 && install -d -o brandproxy -g brandproxy -m 0700 /data
COPY --from=build /opt/brandproxy /opt/brandproxy
ENV PATH=/opt/brandproxy/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    BRANDPROXY_DATA=/data \
    BRANDPROXY_EDGE_HTTP=0.0.0.0:8080 \
    BRANDPROXY_EDGE_HTTPS=0.0.0.0:8443 \
    BRANDPROXY_CONTROL_LISTEN=0.0.0.0:8090 \
    BRANDPROXY_METRICS_LISTEN=0.0.0.0:9090
USER 10001:10001
# All state is here: spool, replica, certificates, master.key (unless BRANDPROXY_MASTER_KEY is given). The root
# file system may be read-only (`docker run --read-only --tmpfs /tmp`).
VOLUME /data
EXPOSE 8080 8443 8090 9090
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=3s --start-period=60s \
  CMD ["python", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:9090/metrics', timeout=2)"]
ENTRYPOINT ["brandproxy"]
CMD ["serve", "--role", "edge"]
