-- One step on the pool of one bucket: core/pool.py, number for number. share.lua and inferred.lua go before it.
-- KEYS[1]: the state. ARGV[1]: the renewal, JSON. ARGV[2]: the time in seconds, or "" for the server's.
-- ARGV[3]: seconds after which an untouched pool is forgotten. ARGV[4]: the bucket's name, for reports.
local LEASE, LIVES, FORGET, BATCH, UP_GAIN, EPSILON = 1.0, 3, 60.0, 0.1, 0.1, 1e-9
local pool, at

local function alive(w, now) return now - w.renewed <= LIVES * LEASE end

local function find(key)
  for _, l in ipairs(pool.limits) do if l.key == key then return l end end
end

local function total(field, key)
  local sum = 0.0
  for _, w in ipairs(pool.workers) do sum = sum + get(w[field], key) end
  return sum
end

local function reclaim(now)
  local kept = {}
  for _, w in ipairs(pool.workers) do
    local silence = now - w.renewed
    if silence > LIVES * LEASE then
      for _, l in ipairs(pool.limits) do
        local leased = get(w.leased, l.key)
        local probably = math.min(leased, get(w.pace, l.key))
        take(l, probably - leased, now, w.renewed)
        w.leased[l.key] = probably
      end
      w.unmet = {}
    end
    if silence <= FORGET then kept[#kept + 1] = w end
  end
  pool.workers = kept
end

local function worker_of(renewal)
  for _, w in ipairs(pool.workers) do if w.name == renewal.worker then return w end end
  local w = {name = renewal.worker, number = -1, weight = renewal.weight, finish = pool.virtual, renewed = 0.0,
    leased = {}, flying = {}, pace = {}, unmet = {}, last = {}, retry_in = 0.0}
  pool.workers[#pool.workers + 1] = w
  return w
end

local function find_new(renewal, now)
  for _, fact in ipairs(renewal.facts) do
    if not find(fact.key) then
      local burst = fact.burst > 0 and fact.burst or fact.limit
      local l = limit_of(fact.key, fact.unit, fact.limit, fact.window, burst, now)
      pool.limits[#pool.limits + 1] = l
      shape(l, fact.algorithms, fact.evidence, now)
      if fact.remaining >= 0 then
        correct(l, math.min(available(l), fact.remaining), now)
        l.newest = now - fact.age
      end
    end
  end
end

local function report(w, renewal, now)
  for _, u in ipairs(renewal.uses) do
    local l = find(u.key)
    if l then
      exchange(l, get(w.leased, u.key), u.spent + u.kept, now, w.renewed)
      w.leased[u.key] = u.kept
      w.flying[u.key] = u.flying
      w.pace[u.key] = u.pace
    end
  end
end

local function correct_by(l, w, fact, now)
  local left = available(l)
  local most = fact.remaining + l.refilled - fact.refilled - get(w.leased, l.key)
  local least = fact.remaining + fact.sent - l.taken
  if left > most then
    correct(l, most, now)
  elseif least > left then
    correct(l, left + UP_GAIN * (least - left), now)
  end
end

local function learn(w, renewal, now)
  for _, fact in ipairs(renewal.facts) do
    local l = find(fact.key)
    if fact.evidence >= l.evidence then
      resize(l, fact.limit, fact.window, fact.burst, now)
      shape(l, fact.algorithms, fact.evidence, now)
    end
    if fact.remaining >= 0 and now - fact.age > l.newest then
      l.newest = now - fact.age
      correct_by(l, w, fact, now)
    end
    if fact.ends_in > 0 then end_at(l, now + fact.ends_in) end
  end
  if now + renewal.pause > pool.pause_until and renewal.pause > 0 then
    pool.pause_until, pool.reason = now + renewal.pause, renewal.reason
  end
end


local function count_alive(now)
  local count = 0
  for _, w in ipairs(pool.workers) do if alive(w, now) then count = count + 1 end end
  return count
end

local function infer(renewal, now)
  local found = follow(pool.inferred, renewal.sent, renewal.limited, find(INFERRED), count_alive(now), now)
  if found then pool.limits[#pool.limits + 1] = found end
end

local function teach(lessons, now)
  local workers = count_alive(now)
  for _, lesson in ipairs(lessons) do
    local old
    for _, learned in ipairs(pool.learned) do if learned.name == lesson.name then old = learned end end
    if not old then
      old = {name = lesson.name, value = lesson.value, count = 0}
      pool.learned[#pool.learned + 1] = old
    end
    local count, value = old.count + lesson.seen, nil
    if lesson.base > 0 then
      value = old.value + (lesson.value - lesson.base) / workers
    else
      value = (old.value * old.count + lesson.value * lesson.seen) / math.max(1, count)
    end
    old.value, old.count = math.max(value, old.value / 2), count
  end
end

local function spends(w)
  if at - w.renewed > LIVES * LEASE then return false end
  for _, pace in pairs(w.pace) do if pace > 0 then return true end end
  return false
end

local function busy_with(w)
  local busy, weights = 1, w.weight
  for _, other in ipairs(pool.workers) do
    if other ~= w and (next(other.unmet) ~= nil or spends(other)) then
      busy, weights = busy + 1, weights + other.weight
    end
  end
  return busy, weights
end

local function before_of(w, key)
  local sum = 0.0
  for _, other in ipairs(pool.workers) do
    if other ~= w and next(other.unmet) ~= nil and at - other.renewed <= LEASE
        and (other.finish < w.finish or (other.finish == w.finish and other.name < w.name)) then
      sum = sum + get(other.unmet, key)
    end
  end
  return sum
end

local function serve(w, renewal, now)
  w.last, w.unmet = {}, {}
  local busy, weights = busy_with(w)
  local pays, asked = true, {}
  for _, l in ipairs(pool.limits) do
    local unit, most, held = l.unit, capacity(l), get(w.leased, l.key)
    local need = math.max(0.0, math.min(get(renewal.need, unit), most) - held)
    local due = math.max(0.0, get(renewal.due, unit) - held)
    local want = math.max(0.0, get(renewal.want, unit) - held)
    local rate = l.limit / l.window * w.weight / weights
    local left = available(l) - guard(l)
    local quantum = math.max(need, left / busy, rate * LEASE)
    want = math.min(math.max(need, due, want), quantum, most)
    local before = before_of(w, l.key)
    if need > 0 and left - before < math.min(need, most - guard(l)) * (1 - EPSILON) then pays = false end
    asked[#asked + 1] = {l, need, due, want, before, rate, left}
  end
  local share, retry = 0.0, 0.0
  for _, a in ipairs(asked) do
    local l, need, due, want, before, rate, left = a[1], a[2], a[3], a[4], a[5], a[6], a[7]
    local amount = pays and math.max(need, math.min(want, left - before)) or 0.0
    amount = math.max(0.0, amount)
    local at_once = math.min(amount, due)
    take(l, amount, now, now)
    w.leased[l.key] = get(w.leased, l.key) + amount - at_once
    w.last[l.key] = {amount, at_once}
    share = math.max(share, amount / l.limit)
    local missing = due - at_once
    if missing > EPSILON * l.limit then
      w.unmet[l.key] = math.min(missing, math.max(need, rate * LEASE))
      local batch = math.min(missing, rate * BATCH)
      local wanted = pays and batch or need
      local ready = ready_at(l, before + wanted + guard(l), now) - now
      retry = math.max(retry, batch / rate, ready)
    end
  end
  if share > 0 then
    pool.virtual = math.max(pool.virtual, w.finish)
    w.finish = pool.virtual + share / w.weight
  end
  w.retry_in = next(w.unmet) ~= nil and math.min(retry, LEASE) or 0.0
  local hungry = false
  for _, other in ipairs(pool.workers) do hungry = hungry or next(other.unmet) ~= nil end
  if not hungry then
    pool.virtual = 0.0
    for _, other in ipairs(pool.workers) do other.finish = 0.0 end
  end
end

local function exact(number) return string.format("%.17g", number) end

local function answer(w, number, now)
  local fresh = number == w.number
  local _, weights = busy_with(w)
  local limits = {}
  for _, l in ipairs(pool.limits) do
    local last = fresh and w.last[l.key] or {0.0, 0.0}
    local sent = l.taken - total("leased", l.key) - total("flying", l.key)
    limits[#limits + 1] = {l.key, l.unit, exact(l.limit), exact(l.window), exact(l.burst), l.algorithms,
      exact(l.evidence), exact(last[1]), exact(last[2]), exact(available(l)),
      exact(l.limit / l.window * w.weight / weights), exact(sent), exact(l.refilled)}
  end
  local workers, hungry, learned = 0, 0, {}
  for _, other in ipairs(pool.workers) do
    if alive(other, now) then
      workers = workers + 1
      if other ~= w and next(other.unmet) ~= nil then hungry = 1 end
    end
  end
  for _, l in ipairs(pool.learned) do learned[#learned + 1] = {l.name, exact(l.value), l.count} end
  return {exact(w.number), exact(math.max(0.0, w.renewed + LIVES * LEASE - now)), exact(w.retry_in), hungry, workers,
    exact(math.max(0.0, pool.pause_until - now)), pool.pause_until > now and pool.reason or "", limits, learned}
end

local renewal = cjson.decode(ARGV[1])
local now = tonumber(ARGV[2])
if not now then
  local time = redis.call("TIME")
  now = tonumber(time[1]) + tonumber(time[2]) / 1e6
end
local stored = redis.call("GET", KEYS[1])
pool = stored and cmsgpack.unpack(stored)
  or {limits = {}, workers = {}, at = 0.0, virtual = 0.0, pause_until = 0.0, reason = "", name = ARGV[4],
    refused = 0, learned = {},
    inferred = {recent = 0.0, passed = 0.0, at = 0.0, cut_at = 0.0, cuts = 0, wait = 0.0, rate = 0.0, tried_at = INF}}
now = math.max(now, pool.at)
at, pool.at = now, now
reclaim(now)
for _, l in ipairs(pool.limits) do advance(l, now, total("leased", l.key)) end
local w = worker_of(renewal)
if renewal.number > w.number then
  w.number, w.weight = renewal.number, renewal.weight
  pool.refused = pool.refused + renewal.refused
  find_new(renewal, now)
  report(w, renewal, now)
  w.renewed = now
  learn(w, renewal, now)
  teach(renewal.lessons, now)
  infer(renewal, now)
  serve(w, renewal, now)
end
local longest = tonumber(ARGV[3])
for _, l in ipairs(pool.limits) do longest = math.max(longest, 2 * l.window) end
redis.call("SET", KEYS[1], cmsgpack.pack(pool), "PX", string.format("%d", math.min(longest, 1e9) * 1000))
return answer(w, renewal.number, now)
