# medseg in a container: the steps of the README's "Without make", on Debian with the packages its "Try it" names.
#
#     docker build -t medseg .
#     docker run --rm -v "$PWD:/data" --user "$(id -u):$(id -g)" medseg segment scan.nii.gz -o results
#
# A GPU: `docker run --gpus all ...` where the NVIDIA container toolkit is installed.
FROM debian:bookworm-slim

RUN apt-get update \
    && apt-get install --yes --no-install-recommends python3 python3-venv python3-dev make g++ \
    && rm -rf /var/lib/apt/lists/*

WORKDIR /opt/medseg
COPY . .
RUN python=$(.ci/prerequisites) \
    && $python -m venv .venv \
    && .venv/bin/pip install --no-cache-dir ".[offline,dicom]"

# Whoever runs it, caches need a place that can be written to.
ENV HOME=/tmp MPLCONFIGDIR=/tmp
RUN useradd --no-create-home medseg
USER medseg
WORKDIR /data
ENTRYPOINT ["/opt/medseg/.venv/bin/medseg"]
CMD ["--help"]
