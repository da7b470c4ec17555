"""Floor 3, webhooks: what happens is sent on to an ESP's or tenant's own server (Standard Webhooks 1.0).

- `book`      what is kept in the store: webhooks, how far each has come, batches that were given up
- `delivery`  sending, in order, with back-off
- `notices`   changes of hosts and certificates, written down where they happen
- `changes`   the lane that sends those; the one of clicks and opens is `analytics.webhooks.events`

A lane is an order of things that happened, kept elsewhere anyway: a webhook is a place in it, so nothing is
written for each receiver, and sending again is moving a place back.
"""
