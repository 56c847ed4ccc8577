# Train, export and run on a desktop's CPU. EXTRAS=runtime gives a small image without torch, which only runs.
FROM python:3.11.13-slim-bookworm AS build
ARG EXTRAS=all
# May name an index with torch's CPU build, which saves gigabytes.
ARG PIP_EXTRA_INDEX_URL=
COPY docker/scripts /scripts
COPY pyproject.toml README.md LICENSE constraints.txt /source/
COPY rtda_deploy /source/rtda_deploy
COPY training /source/training
COPY export /source/export
COPY runtime /source/runtime
RUN /scripts/install-wheel.sh python3 /source /opt/rtda-deploy "$EXTRAS"

FROM python:3.11.13-slim-bookworm
COPY docker/scripts/add-user.sh /scripts/
RUN /scripts/add-user.sh
COPY --from=build /opt/rtda-deploy /opt/rtda-deploy
ENV PATH=/opt/rtda-deploy/bin:$PATH PYTHONDONTWRITEBYTECODE=1
USER 1000
WORKDIR /data
ENTRYPOINT ["rtda-deploy"]
CMD ["--help"]
