# Run on a Jetson Xavier or Orin with JetPack 5 (L4T 35): Ubuntu 20.04, Python 3.8, TensorRT 8.5.2 of the base image.
# OpenCV (with GStreamer, for CSI cameras) and TensorRT's Python side come from NVIDIA's own packages; pip installs what
# they lack. cuda-python 11.8 is the last line with a wheel for CUDA 11, Python 3.8 and this processor; numba 0.58.1 the
# last with one for Python 3.8 (extra "fast").
FROM nvcr.io/nvidia/l4t-tensorrt:r8.5.2-runtime
COPY docker/scripts /scripts
RUN /scripts/install-packages.sh python3 python3-venv python3-libnvinfer libopencv-python
COPY pyproject.toml README.md LICENSE constraints.txt /source/
COPY rtda_deploy /source/rtda_deploy
COPY training /source/training
COPY export /source/export
COPY runtime /source/runtime
# hadolint ignore=DL3059
RUN /scripts/install-wheel.sh python3 /source /opt/rtda-deploy fast --system "cuda-python>=11.8,<11.8.4"
# hadolint ignore=DL3059
RUN /scripts/add-user.sh
ENV PATH=/opt/rtda-deploy/bin:$PATH PYTHONDONTWRITEBYTECODE=1
USER 1000
WORKDIR /data
ENTRYPOINT ["rtda-deploy"]
CMD ["--help"]
