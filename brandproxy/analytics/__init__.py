"""Floor 4, analytics: what was clicked, by whom, when, and really by people.

- `filters`    which events a question is about; the one place where a key's tenant is enforced
- `periods`    calendar buckets in a time zone, as arithmetic the engines share
- `queries`    every question, written once for all engines
- `api`        the questions over HTTP, and their OpenAPI description
- `export`     event feeds: pages with cursors, JSON, NDJSON, CSV
- `live`       the live feed (server-sent events)
- `upkeep`     settling, retention, deletion by recipient
- `maintenance` the same on demand, over HTTP: forgetting, judging again, backups
- `webhooks/`  events sent on to others
- `dashboard/` the same for people, as pages
"""
