FROM python:3.11-slim-bookworm

WORKDIR /opt/rtda-deploy
COPY pyproject.toml README.md LICENSE constraints.txt ./
COPY rtda_deploy rtda_deploy
COPY training training
COPY export export
COPY runtime runtime
# torch first and exact; PIP_EXTRA_INDEX_URL may name an index with its CPU build, which saves gigabytes.
ARG PIP_EXTRA_INDEX_URL=
RUN pip install --no-cache-dir "$(grep '^torch==' constraints.txt)" -c constraints.txt ".[all]"

RUN useradd --create-home robot && mkdir /data && chown robot /data
USER robot
WORKDIR /data
ENTRYPOINT ["rtda-deploy"]
CMD ["--help"]
