-- Put with a deadline. KEYS: the key. ARGV: the stored string, the deadline in milliseconds since 1970.
local time = redis.call('TIME')
if tonumber(ARGV[2]) <= tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000) then
  redis.call('DEL', KEYS[1])
  return 0
end
redis.call('SET', KEYS[1], ARGV[1], 'PXAT', ARGV[2])
return 1
