-- Many entries. KEYS: keys of one slot. ARGV: how many bytes are enough.
-- Returns for each key what entry.lua does, {} for one that is not there or no
-- string. It may stop before the last key, but not before the first.
local out, bytes, enough = {}, 0, tonumber(ARGV[1])
for i, key in ipairs(KEYS) do
  local raw = redis.pcall('GET', key)
  if type(raw) == 'string' then
    out[i] = {raw, redis.call('PEXPIRETIME', key)}
    bytes = bytes + #raw
  else
    out[i] = {}
  end
  if bytes >= enough then break end
end
return out
