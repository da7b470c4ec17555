"""What runs inside Redis: each script is one atomic step, so the feed and the entries never disagree.

All keys share the hash tag `{brandproxy}` and so one slot of a cluster; their format is the value of `format`:

    {brandproxy}:format     "1"
    {brandproxy}:clock      the last number given: microseconds, always growing, also over a fail-over that lost
                            the newest writes. Versions, feed ids and fences are such numbers.
    {brandproxy}:entry      hash: key -> "<version>:<value>"
    {brandproxy}:index      sorted set of the keys, all of score 0: ordered listing
    {brandproxy}:feed       stream: id "<version>-0", field k = key; at least the newest 50,000; never empty
    {brandproxy}:lock:NAME  "<holder>", ends with its lease

`#!lua` scripts (Redis 7, Valkey) are refused as a whole when memory is full; deleting is allowed then.
"""

from __future__ import annotations

from brandproxy.store.base import FEED_KEPT

TAG = "{brandproxy}"
FORMAT, CLOCK, ENTRY, INDEX, FEED = (f"{TAG}:{name}" for name in ("format", "clock", "entry", "index", "feed"))

_TICK = """
local function tick()
  local t = redis.call('TIME')
  local now = t[1] * 1000000 + t[2]
  local last = tonumber(redis.call('GET', KEYS[1]) or '0')
  if now <= last then now = last + 1 end
  now = string.format('%.0f', now)
  redis.call('SET', KEYS[1], now)
  return now
end
"""
_FEED = f"""
local function tell(at, key)
  redis.call('XADD', KEYS[4], 'MAXLEN', '~', '{FEED_KEPT}', at .. '-0', 'k', key)
end
"""

# The locks that the writer holds come behind the other keys, their holders behind the other arguments. A process
# that slept through its lease and goes on writes nothing.
FENCED = "FENCED"
_FENCE = f"""
for i = 5, #KEYS do
  if redis.call('GET', KEYS[i]) ~= ARGV[#ARGV - #KEYS + i] then return redis.error_reply('{FENCED} lock lost') end
end
"""

# KEYS clock entry index feed [lock…]; ARGV key value mode version ("create" | "put" | "replace") [holder…]
# -> version or nil
WRITE = f"""#!lua
{_TICK}{_FEED}{_FENCE}
local key, value, mode = ARGV[1], ARGV[2], ARGV[3]
local found = redis.call('HGET', KEYS[2], key)
if mode == 'create' and found then return false end
if mode == 'replace' and (not found or string.match(found, '^(%d+):') ~= ARGV[4]) then return false end
local at = tick()
redis.call('HSET', KEYS[2], key, at .. ':' .. value)
if not found then redis.call('ZADD', KEYS[3], 0, key) end
tell(at, key)
return at
"""

# KEYS clock entry index feed [lock…]; ARGV key version ("" for any) [holder…] -> 1 or nil
DELETE = f"""#!lua flags=allow-oom
{_TICK}{_FEED}{_FENCE}
local found = redis.call('HGET', KEYS[2], ARGV[1])
if not found or (ARGV[2] ~= '' and string.match(found, '^(%d+):') ~= ARGV[2]) then return false end
redis.call('HDEL', KEYS[2], ARGV[1])
redis.call('ZREM', KEYS[3], ARGV[1])
tell(tick(), ARGV[1])
return 1
"""

# KEYS entry index; ARGV from to count -> flat list key, "<version>:<value>", …
LIST = """#!lua flags=no-writes
local keys = redis.call('ZRANGEBYLEX', KEYS[2], ARGV[1], ARGV[2], 'LIMIT', 0, ARGV[3])
local found = {}
for _, key in ipairs(keys) do
  found[#found + 1] = key
  found[#found + 1] = redis.call('HGET', KEYS[1], key)
end
return found
"""

# KEYS clock entry index feed -> the newest id; makes the feed's first entry
CURSOR = f"""#!lua flags=allow-oom
{_TICK}{_FEED}
local last = redis.call('XREVRANGE', KEYS[4], '+', '-', 'COUNT', 1)
if #last == 0 then
  tell(tick(), '')
  last = redis.call('XREVRANGE', KEYS[4], '+', '-', 'COUNT', 1)
end
return last[1][1]
"""

# KEYS entry feed; ARGV cursor count -> nil when the feed does not hold the cursor; else flat id, key, value or nil
CHANGES = """#!lua flags=no-writes
if #redis.call('XRANGE', KEYS[2], ARGV[1], ARGV[1]) == 0 then return false end
local found = {}
for _, row in ipairs(redis.call('XRANGE', KEYS[2], '(' .. ARGV[1], '+', 'COUNT', ARGV[2])) do
  found[#found + 1] = row[1]
  found[#found + 1] = row[2][2]
  found[#found + 1] = redis.call('HGET', KEYS[1], row[2][2])
end
return found
"""

# KEYS clock lock; ARGV holder ttl-in-ms -> fence or nil
LOCK = f"""#!lua
{_TICK}
if not redis.call('SET', KEYS[2], ARGV[1], 'NX', 'PX', ARGV[2]) then return false end
return tick()
"""

# KEYS lock; ARGV holder ttl-in-ms -> 1 or 0. Allowed with memory full: the holder does not lose it for that.
RENEW = """#!lua flags=allow-oom
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
return redis.call('PEXPIRE', KEYS[1], ARGV[2])
"""

RELEASE = """#!lua flags=allow-oom
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
return redis.call('DEL', KEYS[1])
"""
