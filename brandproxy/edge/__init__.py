"""Floor 4, the edge: where recipients arrive. It serves recipients only; no admin route exists here.

- `assets`    objects of a tenant's storage under the tenant's name
"""
