-- Quota.Take of package kv, whose documentation defines what is computed here.
-- All numbers are whole and at most 2^53, up to which doubles are exact.
local fmod = math.fmod

-- muldiv returns quotient and remainder of a * b / m by long multiplication.
local function muldiv(a, b, m)
  if a * b < 9007199254740992 then
    local r = fmod(a * b, m)
    return (a * b - r) / m, r
  end
  local rest = fmod(b, m)
  local whole = (b - rest) / m
  local base = 2
  while 4 * base * m <= 9007199254740992 do base = 2 * base end
  local digits, left = {}, a
  while left > 0 do
    local digit = fmod(left, base)
    digits[#digits + 1] = digit
    left = (left - digit) / base
  end
  local q, r = 0, 0
  for i = #digits, 1, -1 do
    r = r * base + digits[i] * rest
    local s = fmod(r, m)
    q = q * base + (r - s) / m
    r = s
  end
  return q + a * whole, r
end

-- number returns the value of decimal digits, nil if it is over 2^53.
local function number(digits)
  digits = string.gsub(digits, '^0+', '')
  if #digits > 16 or (#digits == 16 and digits > '9007199254740992') then return nil end
  return tonumber(digits) or 0
end

local MOST = 2251799813685248 -- 2^51

-- Each of the following returns the new state without its letter, what take
-- returns after next and ttl, and whether the clock was set back far; nil if old is no state.
local refill = {}

function refill.w(C, _, P, n, old, now)
  local start, used, moved = now, 0, false
  if old then
    local a, b = string.match(old, '^([0-9]+) ([0-9]+)$')
    start, used = a and number(a), b and number(b)
    if not start or not used or used > MOST then return nil end
  end
  if now - start >= P then start, used = now, 0
  elseif start - now > P then start, moved = now, true end
  local ok, retry, reset = n <= C - used or n <= 0, 0, 0
  if ok then used = math.max(used + n, 0) else retry = start + P - now end
  if used > 0 then reset = start + P - now end
  return {start, used}, ok, used, retry, reset, moved
end

function refill.s(C, _, P, n, old, now)
  local start, used, before, moved = now, 0, 0, false
  if old then
    local a, b, c = string.match(old, '^([0-9]+) ([0-9]+) ([0-9]+)$')
    start, used, before = a and number(a), b and number(b), c and number(c)
    if not start or not used or not before or used > MOST or before > MOST then return nil end
  end
  if now - start >= 2 * P then used, before = 0, 0
  elseif now - start >= P then start, used, before = start + P, 0, used
  elseif start - now > P then start, moved = now, true end
  local function count()
    if before == 0 then return used end
    local counted = muldiv(before, P - math.max(now - start, 0), P)
    return used + counted
  end
  local function overlap(room, taken)
    local q, r = muldiv(room + 1, P, taken)
    if r == 0 then q = q - 1 end
    return q
  end
  local function falls_to(room)
    if used > room then return start + 2 * P - overlap(room, used) end
    return start + P - overlap(room - used, before)
  end
  local counted = count()
  if counted == 0 then start, before = now, 0 end
  local ok, retry, reset = n <= C - counted or n <= 0, 0, 0
  if ok then
    used = used + n
    if used < 0 then used, before = 0, math.max(before + used, 0) end
    counted = count()
  else
    retry = falls_to(C - n) - now
  end
  if used > 0 or before > 0 then reset = math.max(falls_to(0) - now, 0) end
  return {start, used, before}, ok, counted, retry, reset, moved
end

function refill.g(C, A, P, n, old, now)
  local at, part, moved = now, 0, false
  if old then
    local a, b = string.match(old, '^([0-9]+) ([0-9]+)$')
    at, part = a and number(a), b and number(b)
    if not at or not part or part >= MOST then return nil end
  end
  local function plus(a, b, c, d)
    if b + d >= A then return a + c + 1, b + d - A end
    return a + c, b + d
  end
  local function minus(a, b, c, d)
    if b < d then return a - c - 1, b - d + A end
    return a - c, b - d
  end
  local function ceil(a, b)
    if b > 0 then return a + 1 end
    return a
  end
  local full, fullpart = muldiv(C, P, A)
  if part >= A then at, part = at + 1, 0 end
  if at < now then at, part = now, 0
  elseif at - now > 2 * ceil(full, fullpart) then at, part, moved = now + full, fullpart, true end
  local ok, retry = true, 0
  if n > 0 then
    local after, afterpart = plus(at, part, muldiv(n, P, A))
    local a, b = minus(after, afterpart, full, fullpart)
    local wait = ceil(a, b) - now
    if wait > 0 then ok, retry = false, wait else at, part = after, afterpart end
  elseif n < 0 then
    at, part = minus(at, part, muldiv(-n, P, A))
    if at < now then at, part = now, 0 end
  end
  local used, rest = muldiv(at - now, A, P)
  rest = rest + part
  local s = fmod(rest, P)
  used = used + (rest - s) / P
  if s > 0 then used = used + 1 end
  return {at, part}, ok, used, retry, ceil(at, part) - now, moved
end

-- take returns next, ttl and the usage {ok, used, retry, reset}; nil if old is no state of this kind.
local function take(kind, C, A, P, n, old, now)
  local fields
  if old ~= '' then
    if string.sub(old, 1, 1) ~= kind then return nil end
    fields = string.sub(old, 2)
  end
  local state, ok, used, retry, reset, moved = refill[kind](C, A, P, n, fields, now)
  if not state then return nil end
  local usage = {ok and 1 or 0, used, retry, reset}
  if reset == 0 then return '', 0, usage end
  if not moved and (n == 0 or not ok) then return old, 0, usage end
  for i, v in ipairs(state) do state[i] = string.format('%.0f', v) end
  return kind .. table.concat(state, ' '), reset, usage
end
