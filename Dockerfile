# syntax=docker/dockerfile:1
# brandproxy: every role from one image; which one is `serve --role …`. `make image` builds it with docker, podman or
# buildah; `make image-check` also makes a base without any registry, runs what came out and holds it to its promises.
#
# Nothing but the base image and the hashed lock comes from outside. Where the lock's wheels come from is the build
# host's business and never written here, nor into a layer:
#   - a folder `wheels/` in the context: pip looks at nothing else, and the build needs no network
#   - or pip's own settings as a secret: `--secret id=pip.conf,src=…`
# BASE is any Debian with Python 3.11 or later and its venv module. Pin it by digest in your registry:
# `--build-arg BASE=python:3.13-slim-bookworm@sha256:…`. The list of what is inside is /opt/brandproxy/sbom.cdx.json.
ARG BASE=python:3.13-slim-bookworm

FROM ${BASE} AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PYTHONDONTWRITEBYTECODE=1
WORKDIR /src
COPY requirements-server.lock wheel[s] ./wheels/
RUN --mount=type=secret,id=pip.conf,target=/etc/pip.conf \
    if ls wheels/*.whl >/dev/null 2>&1; then export PIP_NO_INDEX=1 PIP_FIND_LINKS=wheels; fi \
 && python3 -m venv /opt/brandproxy \
 && /opt/brandproxy/bin/pip install --only-binary :all: --require-hashes -r wheels/requirements-server.lock
COPY pyproject.toml README.md LICENSE sbom.py ./
COPY brandproxy ./brandproxy
# The package itself is pure Python and is put in place as it is: no build tools come from anywhere. Libraries' own
# tests go, with the private keys in them that every scanner finds. Byte code is not compared with its source's date:
# layers change dates, and a read-only root cannot keep what is compiled anew.
RUN site="$(/opt/brandproxy/bin/python -c 'import site; print(site.getsitepackages()[0])')" \
 && cp -r brandproxy "$site/" \
 && printf '#!/opt/brandproxy/bin/python\nfrom brandproxy.cli import main\nmain()\n' > /opt/brandproxy/bin/brandproxy \
 && chmod 755 /opt/brandproxy/bin/brandproxy \
 && /opt/brandproxy/bin/pip uninstall -q -y pip setuptools 2>/dev/null \
 && /opt/brandproxy/bin/python sbom.py > /opt/brandproxy/sbom.cdx.json \
 && find /opt/brandproxy/lib -type d '(' -name __pycache__ -o -path '*/site-packages/*/tests' ')' -prune -exec rm -rf {} + \
 && /opt/brandproxy/bin/python -m compileall -q -j 0 --invalidation-mode unchecked-hash /opt/brandproxy/lib \
 && chmod -R go-w,a+rX /opt/brandproxy

FROM ${BASE}
# 10001: no user of the base image, and what k8s/ runs as. No shell is needed to run it. A package installer has
# nothing to do in a running container: the official base brings pip, it goes. So do set-user-id bits.
RUN echo 'brandproxy:x:10001:10001::/data:/usr/sbin/nologin' >> /etc/passwd \
 && echo 'brandproxy:x:10001:' >> /etc/group \
 && install -d -o 10001 -g 10001 -m 0700 /data \
 && rm -rf /usr/local/lib/python3*/site-packages/pip* /usr/local/lib/python3*/ensurepip /usr/local/bin/pip* \
    /usr/lib/python3*/ensurepip /usr/share/python-wheels /root/.cache \
 && find / -xdev -type f -perm /6000 -exec chmod a-s {} +
COPY --from=build /opt/brandproxy /opt/brandproxy
ENV PATH=/opt/brandproxy/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    BRANDPROXY_DATA=/data \
    BRANDPROXY_EDGE_HTTP=0.0.0.0:8080 \
    BRANDPROXY_EDGE_HTTPS=0.0.0.0:8443 \
    BRANDPROXY_CONTROL_LISTEN=0.0.0.0:8090 \
    BRANDPROXY_CONTROL_PUBLIC_LISTEN=0.0.0.0:8091 \
    BRANDPROXY_METRICS_LISTEN=0.0.0.0:9090
USER 10001:10001
# All state is here: spool, replica, certificates, master.key (unless BRANDPROXY_MASTER_KEY is given). The root
# file system may be read-only (`docker run --read-only --tmpfs /tmp`).
VOLUME /data
EXPOSE 8080 8443 8090 8091 9090
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=3s --start-period=60s \
  CMD ["python", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:9090/metrics', timeout=2)"]
ENTRYPOINT ["brandproxy"]
CMD ["serve", "--role", "edge"]
