# Run on a desktop's NVIDIA GPU: ONNX Runtime's CUDA provider, and engines of TensorRT 10 built in the container.
# The base has CUDA 12.6, cuBLAS and cuDNN 9; the host needs a driver for it (560 or newer) and the container toolkit.
FROM nvidia/cuda:12.6.3-cudnn-runtime-ubuntu24.04 AS build
ARG EXTRAS=gpu-cu12,tensorrt-cu12
COPY docker/scripts /scripts
RUN /scripts/install-packages.sh python3 python3-venv
COPY pyproject.toml README.md LICENSE constraints.txt /source/
COPY rtda_deploy /source/rtda_deploy
COPY training /source/training
COPY export /source/export
COPY runtime /source/runtime
RUN /scripts/install-wheel.sh python3 /source /opt/rtda-deploy "$EXTRAS"

FROM nvidia/cuda:12.6.3-cudnn-runtime-ubuntu24.04
COPY docker/scripts /scripts
RUN /scripts/install-packages.sh python3
# hadolint ignore=DL3059
RUN /scripts/add-user.sh
COPY --from=build /opt/rtda-deploy /opt/rtda-deploy
ENV PATH=/opt/rtda-deploy/bin:$PATH PYTHONDONTWRITEBYTECODE=1
USER 1000
WORKDIR /data
ENTRYPOINT ["rtda-deploy"]
CMD ["--help"]
