# The service alone: no torch, no compiler, no pip, no root. Build from the repository root:
#   docker build --file docker/service.Dockerfile --tag unihead .
# and, for an image that says where it comes from, with
#   --build-arg REVISION="$(git rev-parse HEAD)" --build-arg CREATED="$(date --utc +%Y-%m-%dT%H:%M:%SZ)"
# For linux/amd64, and for linux/arm64, where Pillow resizes in place of cykooz.resizer, which has no wheel there.
# A tag of the base can move, its digest cannot. To pin it, put @sha256:... behind both tags, as this prints it:
#   docker buildx imagetools inspect python:3.12-slim-bookworm --format '{{.Manifest.Digest}}'

FROM python:3.12-slim-bookworm AS builder
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_NO_CACHE_DIR=1 \
    PIP_ROOT_USER_ACTION=ignore
# Without pip: nothing in the final image's environment installs anything.
RUN python -m venv --without-pip /opt/unihead
WORKDIR /src
# Dependencies first, in a layer that survives every change of the code. `make lock` writes the hashes; a file with any
# other is refused, and nothing is compiled. Second what builds our own wheel, which stays in this stage.
# `--build-arg EXTRA=tracing`, or grpc, installs what that extra needs too.
ARG EXTRA=""
COPY docker/requirements.lock docker/requirements-tracing.lock docker/requirements-grpc.lock docker/requirements-build.lock ./
RUN pip --python /opt/unihead/bin/python install --require-hashes --only-binary :all: --requirement "requirements${EXTRA:+-$EXTRA}.lock" \
    && pip install --require-hashes --only-binary :all: --requirement requirements-build.lock
COPY pyproject.toml hatch_build.py README.md LICENSE ./
COPY export ./export
COPY training ./training
COPY service ./service
RUN pip wheel --no-index --no-deps --no-build-isolation --wheel-dir /wheel . \
    && pip --python /opt/unihead/bin/python install --no-index --no-deps /wheel/*.whl

FROM python:3.12-slim-bookworm
ENV PATH=/opt/unihead/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    UNIHEAD_HOST=0.0.0.0 \
    UNIHEAD_PORT=8000
# The base's pip goes too.
RUN groupadd --gid 10001 unihead \
    && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin unihead \
    && pip uninstall --yes --root-user-action ignore pip
COPY --from=builder /opt/unihead /opt/unihead
# Empty, and root's: whatever would open a path that is not absolute finds nothing of the system's there.
WORKDIR /empty
# Numbers, because Kubernetes' runAsNonRoot cannot judge a name.
USER 10001:10001
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=3 CMD ["unihead-serve", "health"]
CMD ["unihead-serve"]
# Last, because two of them change with every build.
ARG REVISION=""
ARG CREATED=""
LABEL org.opencontainers.image.title="unihead" \
      org.opencontainers.image.description="One small vision model that segments, detects and classifies a picture in a single forward pass, served over HTTP" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="0.1.0" \
      org.opencontainers.image.revision="$REVISION" \
      org.opencontainers.image.created="$CREATED"
