"""brandproxy: links and images in outgoing mail under the customer's own name.

The map, in floors; imports run downward only (`tests/test_house.py` proves it):

    5  cli  serve  demo            commands; composition root
    4  filters  edge  analytics  admin      front ends; they never import each other
    3  tenants  directory  access  blocks  context  web  certs  onboarding  shipping    what the nouns do
    2  store  spool  engines  acme  resolver  fetch      the outside world, one module each
    1  core                        pure: bytes, values and `now` in; values out
    0  model  errors  config       the nouns

This module is the library for mail pipelines; it needs floors 0 and 1 only.
"""

__version__ = "0.1.0"
