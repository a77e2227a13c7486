# The wheel is built and installed in a stage of its own: the image has no pip cache, no compiler and no sources.
FROM python:3.13.7-slim-trixie AS build
WORKDIR /src
COPY . .
RUN pip wheel --no-cache-dir --no-deps --wheel-dir /wheels . \
    && python -m venv /opt/levelsync \
    && /opt/levelsync/bin/pip install --no-cache-dir "$(ls /wheels/levelsync-*.whl)[service,page]"

FROM python:3.13.7-slim-trixie
RUN useradd --system --uid 10001 --no-create-home --shell /usr/sbin/nologin levelsync
COPY --from=build /opt/levelsync /opt/levelsync
# Inside a container the service listens on every address: what reaches it is decided by the published ports.
ENV PATH=/opt/levelsync/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    LEVELSYNC_HTTP_HOST=0.0.0.0 \
    LEVELSYNC_LOG_FORMAT=json
WORKDIR /opt/levelsync
USER 10001
EXPOSE 8000
# /livez, not /readyz: an outage of Kafka or PostgreSQL is no reason to replace the container.
HEALTHCHECK --interval=10s --timeout=5s --start-period=20s --retries=3 \
    CMD ["python", "-c", "import os, urllib.request as r; r.urlopen(f\"http://127.0.0.1:{os.environ.get('LEVELSYNC_HTTP_PORT', '8000')}/livez\", timeout=4)"]
ENTRYPOINT ["levelsync"]
CMD ["serve"]
