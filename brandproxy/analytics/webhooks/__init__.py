"""Webhooks at the front end: `events`, the lane of clicks, opens and unsubscribes; `api`, `/v1/webhooks`.

The analytics engine is that lane's queue: nothing is written twice, and a recipient who was forgotten is not sent
later. What is kept and how it is sent: `brandproxy.webhooks`.
"""
