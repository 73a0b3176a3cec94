# One image for all services: `interlock serve detector | publisher | scheduler`.
ARG BASE=python:3.11-slim-bookworm

FROM ${BASE} AS build
ENV UV_PROJECT_ENVIRONMENT=/opt/interlock UV_PYTHON_DOWNLOADS=never UV_LINK_MODE=copy UV_COMPILE_BYTECODE=1
RUN python -m venv /opt/uv && /opt/uv/bin/python -m pip install --quiet uv==0.13.9
WORKDIR /src
COPY pyproject.toml uv.lock README.md LICENSE ./
RUN /opt/uv/bin/uv sync --quiet --locked --no-dev --no-install-project
COPY schemas schemas
COPY services services
COPY ops ops
RUN /opt/uv/bin/uv sync --quiet --locked --no-dev --no-editable

FROM ${BASE}
RUN useradd --system --uid 10001 --no-create-home interlock
COPY --from=build /opt/interlock /opt/interlock
ENV PATH=/opt/interlock/bin:$PATH PYTHONUNBUFFERED=1 INTERLOCK_HOST=0.0.0.0 INTERLOCK_PORT=8000
USER interlock
EXPOSE 8000
HEALTHCHECK --interval=5s --timeout=6s --start-period=60s CMD ["python", "-c", \
    "import urllib.request as u; u.urlopen('http://127.0.0.1:8000/readyz', timeout=5)"]
ENTRYPOINT ["interlock"]
