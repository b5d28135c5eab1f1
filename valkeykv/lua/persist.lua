-- Expire with NoExpiry. KEYS: the key. PERSIST alone does not tell a missing key from one without a deadline.
if redis.call('EXISTS', KEYS[1]) == 0 then return 0 end
redis.call('PERSIST', KEYS[1])
return 1
