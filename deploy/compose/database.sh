#!/bin/sh
# The role that Brain connects as, and those that it has to be a member of: docs/operating.md, under Rights.
set -eu
psql --no-psqlrc --quiet --set=ON_ERROR_STOP=1 --username="${POSTGRES_USER:-postgres}" --dbname="$POSTGRES_DB" \
    --set=password="$BRAIN_DATABASE_PASSWORD" <<'SQL'
CREATE ROLE brain_owner NOLOGIN;
CREATE ROLE brain_reader NOLOGIN;
CREATE ROLE brain_service LOGIN PASSWORD :'password';
GRANT brain_owner, brain_reader TO brain_service;
SELECT format('GRANT CREATE ON DATABASE %I TO brain_service', current_database()) \gexec
SQL
