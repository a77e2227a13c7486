# syntax=docker/dockerfile:1
# Three separate layers: Python, the locked packages, and the project. A changed source line rebuilds only the last one.
FROM python:3.13.7-slim-trixie AS dependencies
RUN apt-get update \
    && apt-get install --yes --no-install-recommends binutils \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY pyproject.toml requirements.lock ./
COPY scripts/locked.py scripts/
# Debug symbols are a third of the packages' size. Dialects and lexers that nothing imports need no bytecode.
RUN python scripts/locked.py service page > /image.lock \
    && python -m venv --without-pip /opt/levelsync \
    && pip --python /opt/levelsync/bin/python install --no-cache-dir --no-compile --require-hashes --no-deps -r /image.lock \
    && find /opt/levelsync -name '*.so*' -type f -exec strip --strip-unneeded {} + \
    && /opt/levelsync/bin/python -m compileall -q -x 'pygments/(lexers|styles)|dialects/(mysql|oracle|mssql|sqlite)|/tests/' /opt/levelsync/lib
RUN python scripts/locked.py build > /build.lock \
    && pip install --no-cache-dir --require-hashes --no-deps -r /build.lock

FROM dependencies AS project
COPY . .
# /stage contains only the project's own files.
RUN pip wheel --no-cache-dir --no-deps --no-build-isolation --wheel-dir /wheels . \
    && pip --python /opt/levelsync/bin/python install --no-cache-dir --no-index --no-deps --root /stage /wheels/levelsync-*.whl

FROM python:3.13.7-slim-trixie
# Nothing is installed at run time, so pip would only help an attacker.
RUN rm -rf /usr/local/lib/python3.13/site-packages/pip* /usr/local/lib/python3.13/ensurepip /usr/local/bin/pip* \
    && useradd --system --uid 10001 --no-create-home --shell /usr/sbin/nologin levelsync
COPY --from=dependencies /opt/levelsync /opt/levelsync
COPY --from=project /stage/opt/levelsync /opt/levelsync
ARG VERSION=dev
ARG REVISION=unknown
LABEL org.opencontainers.image.title="levelsync" \
      org.opencontainers.image.description="Keeps a user's level in two PostgreSQL tables in agreement, driven by Kafka events" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
# Inside a container the service listens on every address. The published ports decide who can reach it.
ENV PATH=/opt/levelsync/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    LEVELSYNC_HTTP_HOST=0.0.0.0 \
    LEVELSYNC_LOG_FORMAT=json
WORKDIR /opt/levelsync
USER 10001
EXPOSE 8000
# /livez, not /readyz, because an outage of Kafka or PostgreSQL is no reason to replace the container.
HEALTHCHECK --interval=10s --timeout=5s --start-period=20s --retries=3 \
    CMD ["python", "-c", "import os, urllib.request as r; r.urlopen(f\"http://127.0.0.1:{os.environ.get('LEVELSYNC_HTTP_PORT', '8000')}/livez\", timeout=4)"]
ENTRYPOINT ["levelsync"]
CMD ["serve"]
