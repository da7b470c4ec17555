"""Floor 2, the spool: events on local disk before the recipient is answered, kept until they are shipped.

- `writer`   `Spool`: append with group commit, rotation, bounds; one for each edge process
- `segment`  the file format; `segments`, `read`, `remove` for whoever ships them

A segment is one file `<uuid7>-<writer>.seg`: an 8-byte header with the format version, then records
`magic u16 · length u32 · CRC-32 u32 · payload`, big-endian. The live writer holds an flock on its segment; a
segment nobody holds is sealed, whatever became of its writer, so a crash needs no repair: a torn tail was never
acknowledged and reading ends before it. Damage inside a sealed segment costs the damaged records only.
"""

from brandproxy.spool.segment import Batch, Segment, read, remove, segments, size
from brandproxy.spool.writer import Commit, Spool

__all__ = ["Batch", "Commit", "Segment", "Spool", "read", "remove", "segments", "size"]
