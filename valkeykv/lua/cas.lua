-- CompareAndSwap. KEYS: the key. ARGV: old, new, ttl.
local raw = redis.call('GET', KEYS[1])
if not raw then return 0 end
local value, meta = open(raw)
if value ~= ARGV[1] then return 0 end
store(KEYS[1], seal(ARGV[2], meta), ARGV[3])
return 1
