-- Txn. KEYS: the keys, each once. ARGV: the number of conditions, three fields
-- for each (kind, index of its key, value), then four for each operation (kind,
-- index of its key, value or delta, ttl).
--
-- Returns {0} if a condition does not hold, {1, {results}} if everything is done,
-- {2, index of the operation from 1 (0: a condition), code} if it can't be done.
--
-- A script that has written can't take it back. So all operations are tried on a
-- copy first, which finds those that fail, and the commands that this gives are run only then.

local states = {}

-- state of a key as the transaction sees it: live; once it was read also value, meta and wrong.
local function state(i)
  local s = states[i]
  if not s then
    s = {live = redis.call('EXISTS', KEYS[i]) == 1}
    states[i] = s
  end
  return s
end

-- read returns the state of a key with its value; wrong is set if it is no string.
local function read(i)
  local s = state(i)
  if s.live and not s.value and not s.wrong then
    local raw = redis.pcall('GET', KEYS[i])
    if type(raw) == 'string' then s.value, s.meta = open(raw) else s.wrong = true end
  end
  return s
end

local commands = {}

local function plan(...) commands[#commands + 1] = {...} end

local function plan_set(key, raw, ttl)
  if ttl == '' then plan('SET', key, raw)
  elseif ttl == 'keep' then plan('SET', key, raw, 'KEEPTTL')
  else plan('SET', key, raw, 'PX', ttl) end
end

-- Each returns the result, or nil and the code of what is wrong.
local try = {}

function try.get(i)
  local s = read(i)
  if s.wrong then return nil, 'WRONGTYPE' end
  return s.live and s.value
end

function try.set(i, value, ttl)
  states[i] = {live = true, value = value}
  plan_set(KEYS[i], seal(value), ttl)
  return 1
end

function try.setnx(i, value, ttl)
  if state(i).live then return false end
  return try.set(i, value, ttl)
end

function try.incr(i, delta, ttl)
  local s = read(i)
  if s.wrong then return nil, 'WRONGTYPE' end
  if not s.live then
    try.set(i, delta, ttl)
    return delta
  end
  local sum, wrong = add(s.value, delta)
  if not sum then return nil, wrong end
  s.value = sum
  plan_set(KEYS[i], seal(sum, s.meta), 'keep')
  return sum
end

function try.expire(i, _, ttl)
  if not state(i).live then return 0 end
  if ttl == '' then plan('PERSIST', KEYS[i])
  elseif ttl ~= 'keep' then plan('PEXPIRE', KEYS[i], ttl) end
  return 1
end

function try.delete(i)
  if not state(i).live then return 0 end
  states[i] = {live = false}
  plan('DEL', KEYS[i])
  return 1
end

local position = 2
for _ = 1, tonumber(ARGV[1]) do
  local kind, i, value = ARGV[position], tonumber(ARGV[position + 1]), ARGV[position + 2]
  position = position + 3
  if kind == 'exists' then
    if not state(i).live then return {0} end
  elseif kind == 'absent' then
    if state(i).live then return {0} end
  else
    local s = read(i)
    if s.wrong then return {2, 0, 'WRONGTYPE', i} end
    if not s.live or s.value ~= value then return {0} end
  end
end

local results = {}
while position <= #ARGV do
  local kind, i = ARGV[position], tonumber(ARGV[position + 1])
  local result, wrong = try[kind](i, ARGV[position + 2], ARGV[position + 3])
  if wrong then return {2, #results + 1, wrong, i} end
  results[#results + 1] = result
  position = position + 4
end
for _, command in ipairs(commands) do redis.call(unpack(command)) end
return {1, results}
