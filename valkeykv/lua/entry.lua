-- Entry. KEYS: the key. Returns the stored string and the deadline in milliseconds, -1 for none; nil if the key is not there.
local raw = redis.call('GET', KEYS[1])
if not raw then return false end
return {raw, redis.call('PEXPIRETIME', KEYS[1])}
