-- Take. KEYS: the key. ARGV: letter of the kind, capacity, amount, period, n, '1' to store nothing.
local raw = redis.call('GET', KEYS[1])
local old, meta = '', nil
if raw then old, meta = open(raw) end
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000000 + tonumber(time[2])
local next, ttl, usage = take(ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5]), old, now)
if not next then return redis.error_reply('KVWRONGTYPE') end
if ARGV[6] ~= '1' then
  if ttl > 0 then
    local over = math.fmod(now + ttl, 1000)
    local deadline = (now + ttl - over) / 1000
    if over > 0 then deadline = deadline + 1 end
    redis.call('SET', KEYS[1], seal(next, meta), 'PXAT', string.format('%.0f', deadline))
  elseif next ~= old then
    redis.call('DEL', KEYS[1])
  end
end
return usage
