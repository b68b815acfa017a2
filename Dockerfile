# leukokit on a CPU:
#
#   docker build --tag leukokit .
#   docker run --rm --user "$(id -u)" --volume "$PWD:/data" leukokit detect smear.jpg
#
# CI also runs the steps below without docker: tools/docker_steps.py.
FROM python:3.13-slim

# The build of PyTorch: 'cpu' is small, 'auto' or 'cu128' brings CUDA.
ARG UV_TORCH_BACKEND=cpu

COPY pyproject.toml README.md LICENSE /src/
COPY leukokit /src/leukokit/
RUN pip install --no-cache-dir uv==0.13.9 \
 && uv pip install --python "$(command -v python)" --no-cache "/src[parquet]"

# Any user may run it: caches go where every user can write.
ENV HOME=/tmp

WORKDIR /data
ENTRYPOINT ["leukokit"]
CMD ["--help"]
