FROM python:3.13-slim AS builder

WORKDIR /src
COPY pyproject.toml constraints.txt README.md ./
COPY brain brain
COPY migrations migrations
# In the environment, where what builds the wheel is constrained too: pip before 25.3 reads the first, and later ones both.
RUN PIP_CONSTRAINT=constraints.txt PIP_BUILD_CONSTRAINT=constraints.txt \
    pip wheel --no-cache-dir --no-deps --wheel-dir /wheels .
# The database is another container's: no embedded server in here. And no pip: nothing is installed later.
RUN python -m venv --without-pip /opt/brain \
    && pip --python /opt/brain/bin/python install --no-cache-dir -c constraints.txt /wheels/*.whl

FROM python:3.13-slim

RUN useradd --uid 10001 --user-group --no-create-home --shell /usr/sbin/nologin brain
COPY --from=builder /opt/brain /opt/brain

# A number: Kubernetes checks that it is not root.
USER 10001
ENV PATH=/opt/brain/bin:$PATH BRAIN_HOST=0.0.0.0
EXPOSE 5221
HEALTHCHECK --interval=5s --timeout=3s --start-period=30s CMD ["python", "-c", \
    "import os, urllib.request as r; e = os.environ.get; port = e('BRAIN_PORT') or e('PORT') or 5221; r.urlopen(f'http://127.0.0.1:{port}/readyz', timeout=2)"]
# Exec form: Brain gets the signal that stops it.
CMD ["brain", "serve"]
