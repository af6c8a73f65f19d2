-- The workers of one pool: core/roster.py, number for number.
-- KEYS[1]: a hash of the pool and each of its workers. KEYS[2]: whose silence ends when. KEYS[3]: the line of those who wait.
local LEASE, LIVES, FORGET, FRONT, RECLAIMED, EPSILON = 1.0, 3, 60.0, 10, 10, 1e-9
local pool

local function exact(number) return string.format("%.17g", number) end

-- The line ends with nobody, so that there is always such a key: while a slot moves, a missing one counts as moved.
local function line_length() return math.max(0, redis.call("ZCARD", KEYS[3]) - 1) end

-- All or nothing: a server short of memory may have evicted one of the keys. The first write is one that fails where no
-- memory is left, since Redis asks no more after it.
local function stored_pool()
  local stored = redis.call("HGET", KEYS[1], "pool")
  redis.call("ZADD", KEYS[3], "+inf", "")
  local found = stored and cmsgpack.unpack(stored) or {known = 0, waiters = 0}
  if found.known ~= redis.call("ZCARD", KEYS[2]) or found.waiters ~= line_length() then
    redis.call("DEL", unpack(KEYS))
    redis.call("ZADD", KEYS[3], "+inf", "")
    return nil
  end
  return stored and found or nil
end

local function store_pool()
  pool.known, pool.waiters = redis.call("ZCARD", KEYS[2]), line_length()
  redis.call("HSET", KEYS[1], "pool", cmsgpack.pack(pool))
end

local function read(name)
  local stored = redis.call("HGET", KEYS[1], "w:" .. name)
  if not stored then return nil end
  local w = cmsgpack.unpack(stored)
  w.name = name
  return w
end

local function write(w)
  local name = w.name
  w.name = nil
  redis.call("HSET", KEYS[1], "w:" .. name, cmsgpack.pack(w))
  w.name = name
end

local function is_busy(w)
  if w.dead then return false end
  if next(w.unmet) ~= nil then return true end
  for _, pace in pairs(w.pace) do if pace > 0 then return true end end
  return false
end

local function above(number, least) return number > least and number or 0.0 end

local function count(w, sign)
  for _, l in ipairs(pool.limits) do
    local least = EPSILON * l.limit
    l.leased = above(l.leased + sign * get(w.leased, l.key), least)
    l.flying = above(l.flying + sign * get(w.flying, l.key), least)
    l.waiting = above(l.waiting + sign * get(w.unmet, l.key), least)
  end
  for unit, amount in pairs(w.free) do pool.free[unit] = get(pool.free, unit) + sign * amount end
  if not w.dead then pool.alive = pool.alive + sign end
  if is_busy(w) then
    pool.busy = pool.busy + sign
    pool.weights = pool.busy > 0 and pool.weights + sign * w.weight or 0.0
  end
end

local function enter(w)
  write(w)
  redis.call("ZADD", KEYS[2], exact(w.ends_at), w.name)
  if next(w.unmet) ~= nil then redis.call("ZADD", KEYS[3], exact(w.finish), w.name) end
  count(w, 1)
end

local function leave(w)
  if next(w.unmet) ~= nil then redis.call("ZREM", KEYS[3], w.name) end
  count(w, -1)
end

local function bury(w, now)
  for _, l in ipairs(pool.limits) do
    local leased = get(w.leased, l.key)
    local probably = math.min(leased, get(w.pace, l.key))
    take(l, probably - leased, now, w.renewed)
    w.leased[l.key] = probably
  end
  w.unmet, w.dead, w.ends_at = {}, true, w.renewed + FORGET
  enter(w)
end

local function reclaim(now)
  local first = redis.call("ZRANGE", KEYS[2], 0, RECLAIMED - 1, "WITHSCORES")
  for i = 1, #first, 2 do
    if tonumber(first[i + 1]) >= now then break end
    local w = read(first[i])
    leave(w)
    if w.dead then
      redis.call("ZREM", KEYS[2], w.name)
      redis.call("HDEL", KEYS[1], "w:" .. w.name)
    else
      bury(w, now)
    end
  end
end

-- Of one that has left: it is in the line only to be counted.
local function rank_of(w)
  if line_length() == 0 then return 0 end
  redis.call("ZADD", KEYS[3], exact(w.finish), w.name)
  local rank = redis.call("ZRANK", KEYS[3], w.name)
  redis.call("ZREM", KEYS[3], w.name)
  return rank
end

local function is_full(totals, asked)
  for i, ask in ipairs(asked) do if totals[i] > ask.room then return true end end
  return false
end

local function before_of(w, asked, now)
  local totals, asks, seen = {}, false, 0
  for i, ask in ipairs(asked) do
    totals[i] = 0.0
    asks = asks or ask.want > 0
  end
  if not asks then return totals end
  local rank = rank_of(w)
  local first = rank > 0 and redis.call("ZRANGE", KEYS[3], 0, math.min(rank, FRONT) - 1) or {}
  for _, name in ipairs(first) do
    if is_full(totals, asked) then break end
    local other = read(name)
    if other.renewed + other.retry_in + LEASE < now then
      leave(other)
      other.unmet = {}
      enter(other)
      rank = rank - 1
    else
      seen = seen + 1
      for i, l in ipairs(pool.limits) do totals[i] = totals[i] + get(other.unmet, l.key) end
    end
  end
  if rank > seen then
    local part = (rank - seen) / (line_length() - seen)
    for i, l in ipairs(pool.limits) do totals[i] = totals[i] + part * math.max(0.0, l.waiting - totals[i]) end
  end
  return totals
end

local function about_before(w)
  local part, totals = rank_of(w) / math.max(1, line_length()), {}
  for i, l in ipairs(pool.limits) do totals[i] = part * l.waiting end
  return totals
end
