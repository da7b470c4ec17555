"""Floor 4, tenants and hosts over HTTP on the control port.

- `api`         the operations: /v1/tenants, /v1/hosts, /v1/keys, /v1/blocks, /v1/audit
- `assets`      forgetting cached objects: /v1/assets/purge
- `views`       what goes in and out
- `operations`  what an operation is; makes both the routes and the OpenAPI path items of the same table
"""
