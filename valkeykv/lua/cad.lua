-- CompareAndDelete. KEYS: the key. ARGV: old.
local raw = redis.call('GET', KEYS[1])
if not raw or open(raw) ~= ARGV[1] then return 0 end
return redis.call('DEL', KEYS[1])
