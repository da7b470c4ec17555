"""Webhooks: events sent on to an ESP's or tenant's own server, signed as Standard Webhooks 1.0 says.

- `book`      what is kept in the store: webhooks, how far each has come, batches that were given up
- `delivery`  sending, in order, with back-off
- `api`       `/v1/webhooks`

The analytics engine is the queue: a webhook is a place in the order in which events were taken in, so nothing
is written twice, a recipient who was forgotten is not sent later, and sending again is moving a place back.
"""
