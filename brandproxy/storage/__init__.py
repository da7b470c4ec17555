"""Floor 2, storage: the objects of tenants' origins, read safely and kept near.

- `base`      what every kind of storage does: open one object
- `web`       https:// storage, and buckets (s3, gs, az) through presigned URLs
- `local`     file:// folders and memory:// (tests, demonstrations)
- `origins`   a tenant's origin as sources: first choice, failover, health
- `disk`      the cache's part on disk, shared by the worker processes of a machine
- `bodies`    objects ready to be sent: in memory, in a file, or still arriving
- `cache`     memory over disk over origins: one fetch for many askers, stale rather than failing
- `variants`  smaller forms of images, made by `convert`, a program of its own, in bounded numbers
- `purge`     forgetting objects on every edge
- `snapshot`  copies of mailed images that do not change any more
"""
