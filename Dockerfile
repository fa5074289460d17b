# Two targets from one file:
#   docker build --target cpu  --tag lightcone:cpu .     docker run --publish 8000:8000 lightcone:cpu
#   docker build --target cuda --tag lightcone:cuda .    docker run --gpus all --publish 8000:8000 lightcone:cuda
# torch's wheel contains the CUDA libraries, so both targets use the same slim base image. For a CPU image without them,
# set TORCH_INDEX_URL to PyTorch's index of CPU wheels.
ARG PYTHON_VERSION=3.11

FROM python:${PYTHON_VERSION}-slim AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
WORKDIR /app
RUN python -m venv /opt/venv
ENV PATH=/opt/venv/bin:$PATH
COPY constraints.txt ./
ARG TORCH_INDEX_URL=""
RUN pip install ${TORCH_INDEX_URL:+--extra-index-url "${TORCH_INDEX_URL}"} --constraint constraints.txt torch
# Editable install: the server looks for the page and the shipped worlds next to the sources.
COPY pyproject.toml README.md LICENSE lightcone.py ./
COPY kernels kernels
COPY world world
COPY distill distill
COPY server server
COPY benchmarks benchmarks
COPY clients/python clients/python
COPY clients/web/dist clients/web/dist
COPY checkpoints checkpoints
RUN pip install --constraint constraints.txt --editable . --editable clients/python

FROM build AS build-cuda
RUN pip install --constraint constraints.txt --editable '.[gpu]'

FROM python:${PYTHON_VERSION}-slim AS base
RUN useradd --create-home --uid 10001 lightcone
ENV PATH=/opt/venv/bin:$PATH PYTHONUNBUFFERED=1
WORKDIR /app
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=3s --start-period=60s \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/healthz', timeout=2)"]
ENTRYPOINT ["lightcone"]
CMD ["serve", "--host", "0.0.0.0", "--port", "8000"]

FROM base AS cuda
COPY --from=build-cuda /opt/venv /opt/venv
COPY --from=build-cuda /app /app
ENV NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility
USER 10001

FROM base AS cpu
COPY --from=build /opt/venv /opt/venv
COPY --from=build /app /app
USER 10001
