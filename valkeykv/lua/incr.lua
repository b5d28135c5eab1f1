-- Incr. KEYS: the key. ARGV: delta, ttl of a key that is created. Returns text.
local raw = redis.call('GET', KEYS[1])
if not raw then
  store(KEYS[1], ARGV[1], ARGV[2])
  return ARGV[1]
end
local value, meta = open(raw)
local sum, wrong = add(value, ARGV[1])
if not sum then return redis.error_reply(wrong) end
store(KEYS[1], seal(sum, meta), 'keep')
return sum
