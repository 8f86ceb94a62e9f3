# Not run yet, because there was no Docker. Build, and train on a GPU (without one, leave --gpus out):
#
#   docker build --tag classifier .
#   docker run --gpus all --shm-size 2g --volume ./data:/app/data --volume ./runs:/app/runs classifier \
#     fit --config configs/resnet.yaml
FROM python:3.13-slim
RUN apt-get update && apt-get install --yes --no-install-recommends git make && rm -rf /var/lib/apt/lists/*
WORKDIR /app
COPY . .
RUN make .venv/installed
ENTRYPOINT [".venv/bin/python", "-m", "project"]
CMD ["--help"]
