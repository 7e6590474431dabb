FROM python:3.13-slim

RUN useradd --uid 10001 --create-home brain
WORKDIR /srv/brain
COPY pyproject.toml constraints.txt README.md ./
COPY brain brain
COPY migrations migrations
# The database is another container's: no embedded server in here.
RUN pip install --no-cache-dir -c constraints.txt .

USER 10001
ENV BRAIN_HOST=0.0.0.0
EXPOSE 5221
HEALTHCHECK --interval=5s --timeout=3s --start-period=10s CMD ["python", "-c", \
    "import urllib.request as r; r.urlopen('http://127.0.0.1:5221/readyz', timeout=2)"]
# Exec form: Brain gets the signal that stops it.
CMD ["brain", "serve"]
