"""The dashboard at `/` of the control port: pages rendered here, readable without JavaScript.

- `pages`    the routes and what each page shows
- `session`  signing in with an API key, security headers, rendering
- `view`     periods, links that keep the present filters, numbers and times for people
- `templates/`, `static/`  Jinja2 pages, one style sheet, one script; uPlot 1.6.32 (MIT, uplot.LICENSE.txt)
- `clickmap` a campaign's mail with shares drawn over its links
- `hosts`    hosts with their record and certificate

The script only improves what is there: it draws charts from the tables, asks for the page again when the live
feed tells of new events, and shows times in the reader's zone.
"""
