# Training and export. Build from the repository root:
#   docker build --file docker/training.Dockerfile --tag unihead-training .
# torch comes as the CUDA build (about 6 GB), which runs on a CPU too. For a smaller image name PyTorch's own list of CPU
# builds, whose versions pip then prefers:  --build-arg PIP_EXTRA_INDEX_URL=...

FROM python:3.12-slim-bookworm
# pip reads it from the environment of the steps below.
ARG PIP_EXTRA_INDEX_URL
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_NO_CACHE_DIR=1 \
    PIP_ROOT_USER_ACTION=ignore \
    PYTHONUNBUFFERED=1
LABEL org.opencontainers.image.title="unihead-training" \
      org.opencontainers.image.description="Trains and exports the model that unihead serves" \
      org.opencontainers.image.licenses="Apache-2.0"
RUN groupadd --gid 10001 unihead \
    && useradd --uid 10001 --gid 10001 --create-home unihead \
    && install --directory --owner 10001 --group 10001 /runs /models
RUN pip install 'torch>=2.11' 'torchvision>=0.26'
WORKDIR /src
COPY pyproject.toml hatch_build.py README.md LICENSE ./
COPY export ./export
COPY training ./training
COPY service ./service
# hadolint ignore=DL3013  # this folder has no version to pin, and pyproject.toml bounds what it needs
RUN pip install '.[train,teachers,distributed]'
COPY docker/train.sh /usr/local/bin/train
USER 10001:10001
WORKDIR /runs
CMD ["train"]
