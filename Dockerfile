# The gateway as an image: everything pinned with hashes, no compiler, no shell user, nothing written outside /var/lib/fairlead.
#   docker build -t fairlead .
#   docker run --read-only --tmpfs /tmp -p 127.0.0.1:4356:4356 -v "$PWD/fairlead.yaml:/etc/fairlead/fairlead.yaml:ro" \
#     -v fairlead:/var/lib/fairlead -e OPENAI_API_KEY fairlead
# Keys come in at run time as environment variables (the config says ${NAME}); no layer has one.
ARG PYTHON=3.12-slim-bookworm

FROM python:${PYTHON} AS build
WORKDIR /src
COPY requirements/build.lock requirements/gateway.lock requirements/
# The environment that is served from has no pip of its own.
RUN python -m venv --without-pip /opt/fairlead \
    && pip --python /opt/fairlead/bin/python install --no-cache-dir --require-hashes -r requirements/gateway.lock \
    && pip install --no-cache-dir --require-hashes -r requirements/build.lock
COPY pyproject.toml README.md LICENSE ./
COPY src src
RUN pip wheel --no-cache-dir --no-deps --no-build-isolation --wheel-dir /dist . \
    && pip --python /opt/fairlead/bin/python install --no-cache-dir --no-deps --no-index /dist/*.whl

FROM python:${PYTHON}
# Numbers, so that Kubernetes can tell that it is not root.
RUN groupadd --system --gid 10001 fairlead \
    && useradd --system --uid 10001 --gid 10001 --home-dir /var/lib/fairlead --shell /usr/sbin/nologin fairlead \
    && install -d -m 0755 /etc/fairlead \
    && install -d -m 0750 -o fairlead -g fairlead /var/lib/fairlead
COPY --from=build /opt/fairlead /opt/fairlead
ENV PATH=/opt/fairlead/bin:$PATH \
    PYTHONUNBUFFERED=1
USER 10001:10001
WORKDIR /var/lib/fairlead
EXPOSE 4356
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=3s --start-period=20s --retries=3 \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:4356/healthz', timeout=2)"]
ENTRYPOINT ["fairlead"]
CMD ["serve", "/etc/fairlead/fairlead.yaml", "--host", "0.0.0.0", "--port", "4356"]
