# softsgx in an image, for CI and for a first look (docs/ci.md).
#
#   docker build -t softsgx .
#   docker run --rm softsgx                  # examples/edmm, as `make demo`
#   docker run --rm softsgx softsgx doctor
#
# Nothing of it needs a capability, a device or a seccomp profile of its own.

FROM debian:bookworm-slim AS python
RUN apt-get update \
    && apt-get install -y --no-install-recommends python3 \
    && rm -rf /var/lib/apt/lists/*

FROM python AS build
RUN apt-get update \
    && apt-get install -y --no-install-recommends gcc libc6-dev make python3-venv \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY . .
# The versions of the lock, also for what builds the wheel.
ENV PIP_CONSTRAINT=/src/requirements/dev.txt PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
RUN python3 -m venv /opt/softsgx \
    && /opt/softsgx/bin/pip install setuptools \
    && /opt/softsgx/bin/pip wheel --no-deps --no-build-isolation --wheel-dir /wheels .
# What else the image is to have, for example: docker build --build-arg WITH=pytest -t softsgx .
ARG WITH=""
RUN /opt/softsgx/bin/pip install /wheels/softsgx-*.whl ${WITH} \
    && /opt/softsgx/bin/pip uninstall --yes setuptools
# The rules of `make demo`, with the environment that is there already.
RUN make RUN=/opt/softsgx/.stamp DEMO=/opt/demo --old-file=/opt/softsgx/.stamp \
    /opt/demo/host /opt/demo/enclave.sig \
    && rm /opt/demo/key.pem

FROM python
RUN useradd --create-home --uid 1000 softsgx
COPY --from=build /opt/softsgx /opt/softsgx
COPY --from=build /opt/demo /opt/demo
ENV PATH=/opt/softsgx/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
USER 1000
WORKDIR /home/softsgx
CMD ["softsgx", "run", "--explain", "--stats", "--", "/opt/demo/host", "/opt/demo/enclave.sgxs", "/opt/demo/enclave.sig"]
