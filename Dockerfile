# Serves captions over HTTP. Nothing in the image is a model: mount one, and name it.
#
#   docker build -t paligemma .                                             # for a CPU
#   docker build -t paligemma:cuda --build-arg ACCELERATOR=cuda .           # for NVIDIA's cards
#   docker run -p 127.0.0.1:8000:8000 -v ./model:/model:ro paligemma --checkpoint /model
#   docker run --gpus all -p 127.0.0.1:8000:8000 -v ./model:/model:ro paligemma:cuda \
#     --checkpoint /model

ARG PYTHON=3.12
FROM python:${PYTHON}-slim AS build
# "cpu", or "cuda": its wheels bring CUDA, so the base image is the same; the host has the driver.
ARG ACCELERATOR=cpu
WORKDIR /source
COPY setup.py pyproject.toml README.md LICENSE constraints.txt ./
COPY paligemma_lib paligemma_lib
COPY flickr8k_tfds flickr8k_tfds
RUN python -m venv /opt/paligemma \
    && if [ "$ACCELERATOR" = cuda ]; then extras=serve,cuda; else extras=serve; fi \
    && /opt/paligemma/bin/pip install --no-cache-dir -c constraints.txt ".[$extras]"

FROM python:${PYTHON}-slim
COPY --from=build /opt/paligemma /opt/paligemma
# A new volume takes the owner of the folder that it is mounted on.
RUN useradd --no-log-init --uid 10001 --create-home paligemma \
    && install -d -o 10001 -g 10001 /home/paligemma/xla \
    && mkdir /model
USER 10001
ENV PATH=/opt/paligemma/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    TF_CPP_MIN_LOG_LEVEL=3 \
    # Programs that XLA has compiled; mount a volume here to start sooner the next time.
    JAX_COMPILATION_CACHE_DIR=/home/paligemma/xla
EXPOSE 8000
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=300s --retries=3 \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/healthz', timeout=4)"]
# 0.0.0.0: of the container. Which addresses of the host lead there, `docker run -p` says.
ENTRYPOINT ["paligemma", "serve", "--host", "0.0.0.0", "--port", "8000"]
CMD ["--checkpoint", "nano"]
