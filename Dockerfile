# The gateway: `docker build -t streamguard .`, then
#   docker run --name gateway -p 127.0.0.1:8383:8383 -e OPENAI_API_KEY \
#     -v ./gateway.toml:/etc/streamguard/gateway.toml:ro -v streamguard:/var/lib/streamguard streamguard
# with keys = "sqlite:///streamguard-keys.db" in the file, since it listens beyond the container, and
#   docker exec gateway streamguard keys create --tenant acme
FROM python:3.13-slim AS build
WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY streamguard ./streamguard
RUN python -m venv /opt/streamguard \
    && /opt/streamguard/bin/pip install --no-cache-dir '.[gateway,postgres,prometheus,redis]'

FROM python:3.13-slim
COPY --from=build /opt/streamguard /opt/streamguard
RUN useradd --system --uid 10001 --create-home --home-dir /var/lib/streamguard streamguard
USER streamguard
WORKDIR /var/lib/streamguard
ENV PATH=/opt/streamguard/bin:$PATH PYTHONUNBUFFERED=1
VOLUME /var/lib/streamguard
EXPOSE 8383
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=3s --start-period=15s \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8383/healthz', timeout=2)"]
ENTRYPOINT ["streamguard"]
CMD ["serve", "--config", "/etc/streamguard/gateway.toml", "--host", "0.0.0.0", "--json"]
