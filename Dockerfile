# The gateway: LiteLLM from a lock file with hashes, compiled to byte-code, with litellm_oauth in it.
#   docker build -t litellm:oauth-custom .
#   docker build -t litellm:oauth-files --build-arg DATABASE_CLIENT=no .     for use_database: false only
#   docker buildx build --platform linux/amd64,linux/arm64 -t litellm:oauth-multiarch --push .
# BASE may be a Debian image (Python comes from its packages) or a python:3.11 to 3.13 one.
# Where a proxy signs TLS with a CA of its own: --secret id=ca,src=/etc/ssl/certs/ca-certificates.crt
ARG BASE=debian:trixie-slim
# yes, or no for an image without PostgreSQL's driver
ARG DATABASE_CLIENT=yes

FROM ${BASE} AS python
RUN command -v python3 >/dev/null \
 || { apt-get update -qq \
 && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends python3 ca-certificates \
 && rm -rf /var/lib/apt/lists/* /var/cache/debconf/* /var/log/*; }

FROM python AS build
RUN python3 -c 'import ensurepip' 2>/dev/null \
 || { apt-get update -qq \
 && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends python3-venv \
 && rm -rf /var/lib/apt/lists/*; }
WORKDIR /build
COPY requirements/gateway-build.txt requirements/gateway.txt requirements/
# The CA bundle is lent to single commands; it is in no layer.
RUN --mount=type=secret,id=ca,target=/run/ca.pem --mount=type=cache,target=/root/.cache/pip \
    if [ -s /run/ca.pem ]; then export SSL_CERT_FILE=/run/ca.pem PIP_CERT=/run/ca.pem; fi; \
    python3 -m venv /opt/build \
 && /opt/build/bin/pip install --quiet --disable-pip-version-check --require-hashes -r requirements/gateway-build.txt
RUN --mount=type=secret,id=ca,target=/run/ca.pem --mount=type=cache,target=/root/.cache/uv \
    if [ -s /run/ca.pem ]; then export SSL_CERT_FILE=/run/ca.pem; fi; \
    export UV_LINK_MODE=copy UV_COMPILE_BYTECODE=1 UV_PYTHON_DOWNLOADS=never; \
    /opt/build/bin/uv venv --quiet --python "$(command -v python3)" /opt/venv \
 && /opt/build/bin/uv pip install --quiet --python /opt/venv/bin/python --require-hashes -r requirements/gateway.txt
# The driver goes into a layer of its own, so that both kinds of image have all others in common.
RUN site=$(echo /opt/venv/lib/python3*/site-packages) \
 && mkdir -p "/opt/database-client$site" \
 && mv "$site"/psycopg* "/opt/database-client$site/"
COPY pyproject.toml ./
COPY src/ src/
COPY files/migrations/ files/migrations/
RUN /opt/build/bin/hatchling build -t wheel -d dist \
 && UV_LINK_MODE=copy UV_COMPILE_BYTECODE=1 \
    /opt/build/bin/uv pip install --quiet --offline --no-cache --no-deps --python /opt/venv/bin/python dist/*.whl
# The folder that people are told to look into.
RUN mkdir -p /app/.litellm /app/.litellm_journal /app/litellm/proxy/auth \
 && ln -s /opt/venv/lib/python3*/site-packages/litellm/proxy/auth/claude_oauth*.py /app/litellm/proxy/auth/

FROM python AS gateway
RUN echo 'litellm:x:10001:' >> /etc/group \
 && echo 'litellm:x:10001:10001:LiteLLM:/app:/bin/sh' >> /etc/passwd
COPY --from=build /opt/venv /opt/venv
COPY --from=build /app /app
RUN chown 10001:10001 /app/.litellm* && chmod 0700 /app/.litellm*
ENV PATH=/opt/venv/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
    HOME=/app \
    LANG=C.UTF-8 \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    # a large block is given back to the system when it is freed; left alone, the C library keeps what it once had (mallopt(3))
    MALLOC_MMAP_THRESHOLD_=1048576 \
    MALLOC_ARENA_MAX=2 \
    # these lists lie in the package; without this every start, or every first request, asks the network for newer ones
    LITELLM_LOCAL_MODEL_COST_MAP=True \
    LITELLM_LOCAL_ANTHROPIC_BETA_HEADERS=True \
    LITELLM_LOCAL_BLOG_POSTS=True \
    LITELLM_WORKER_STARTUP_HOOKS=litellm_oauth.gateway.startup:start \
    NUM_WORKERS=1
WORKDIR /app
USER 10001:10001
VOLUME /app/.litellm /app/.litellm_journal
EXPOSE 4000
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s \
  CMD ["python", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:4000/health/liveliness', timeout=4)"]
ENTRYPOINT ["python", "-m", "litellm_oauth.gateway.serve"]
CMD ["--config", "/app/config.yaml", "--host", "0.0.0.0", "--port", "4000", "--run_granian"]

FROM gateway AS database-client-no

FROM gateway AS database-client-yes
COPY --from=build /opt/database-client/ /

FROM database-client-${DATABASE_CLIENT}
