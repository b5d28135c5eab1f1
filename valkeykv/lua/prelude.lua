-- What the scripts share. Numbers that count something the caller stored are
-- kept as text throughout: a Lua number is a double and would round an int64.

-- Bytes that a stored string begins with if it is an envelope.
local MAGIC = '{{MAGIC}}'

-- open returns the value that a stored string stands for and its metadata, nil
-- if the string is the plain value.
local function open(raw)
  if string.sub(raw, 1, 16) ~= MAGIC then return raw, nil end
  local size = string.sub(raw, 17, 24)
  if not string.find(size, '^[0-9a-f]+$') or #size ~= 8 then return raw, nil end
  local n = tonumber(size, 16)
  if #raw < 24 + n then return raw, nil end
  return string.sub(raw, 25 + n), string.sub(raw, 25, 24 + n)
end

-- seal is the reverse of open. A value that could be taken for an envelope is put into one without metadata.
local function seal(value, meta)
  if (not meta or meta == '') and string.sub(value, 1, 16) ~= MAGIC then return value end
  meta = meta or ''
  return MAGIC .. string.format('%08x', #meta) .. meta .. value
end

-- store sets key; ttl is '' for none, 'keep', or milliseconds.
local function store(key, raw, ttl)
  if ttl == '' then return redis.call('SET', key, raw) end
  if ttl == 'keep' then return redis.call('SET', key, raw, 'KEEPTTL') end
  return redis.call('SET', key, raw, 'PX', ttl)
end

-- split returns the int64 that text writes as Go prints it, as two numbers
-- of the same sign: billions and the rest. Nil if text writes none.
local function split(text)
  local sign, digits = string.match(text, '^(%-?)([0-9]+)$')
  if not digits or #digits > 19 then return nil end
  if string.sub(digits, 1, 1) == '0' and text ~= '0' then return nil end
  local high, low = 0, tonumber(string.sub(digits, -9))
  if #digits > 9 then high = tonumber(string.sub(digits, 1, -10)) end
  if high > 9223372036 then return nil end
  if high == 9223372036 and (low > 854775808 or (low == 854775808 and sign == '')) then return nil end
  if sign == '-' then return -high, -low end
  return high, low
end

-- add returns a + b as text, or nil and the code of what is wrong with a or the sum. b is known to be good.
local function add(a, b)
  local ahigh, alow = split(a)
  if not ahigh then return nil, 'KVNOTINTEGER' end
  local bhigh, blow = split(b)
  local high, low = ahigh + bhigh, alow + blow
  if low >= 1000000000 then high, low = high + 1, low - 1000000000 end
  if low <= -1000000000 then high, low = high - 1, low + 1000000000 end
  if high > 0 and low < 0 then high, low = high - 1, low + 1000000000 end
  if high < 0 and low > 0 then high, low = high + 1, low - 1000000000 end
  if high > 9223372036 or (high == 9223372036 and low > 854775807) then return nil, 'KVOVERFLOW' end
  if high < -9223372036 or (high == -9223372036 and low < -854775808) then return nil, 'KVOVERFLOW' end
  if high == 0 then return string.format('%d', low) end
  return string.format('%d%09d', high, math.abs(low))
end
