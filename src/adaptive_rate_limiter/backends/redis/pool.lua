-- One step on the pool of one bucket: core/pool.py and core/share.py, number for number.
-- KEYS[1]: the state. ARGV[1]: the renewal, JSON. ARGV[2]: the time in seconds, or "" for the server's.
-- ARGV[3]: seconds after which an untouched pool is forgotten. ARGV[4]: the bucket's name, for reports.
local LEASE, LIVES, FORGET, BATCH, UP_GAIN, EPSILON, BINS = 1.0, 3, 60.0, 0.1, 0.1, 1e-9, 120
local INF = math.huge

local function has(limit, letter) return string.find(limit.algorithms, letter, 1, true) ~= nil end
local function get(map, key) return map[key] or 0.0 end

-- One limit (core/share.py)

local function capacity(l) if has(l, "b") then return l.burst end return l.limit end

local function guard(l)
  if l.evidence >= 1e9 or not has(l, "b") then return 0.0 end
  local least = math.min(0.3 * l.limit / l.window, 0.05 * l.limit)
  return least >= 0.1 and least or 0.0
end

local function span(l) return l.window + math.min(0.5, 0.05 * l.window) end

local function slid(l)
  local total = 0.0
  for _, entry in ipairs(l.bins) do total = total + entry[2] end
  return l.limit - total
end

local function available(l)
  local least = INF
  if has(l, "b") then least = math.min(least, l.value) end
  if has(l, "f") then least = math.min(least, l.limit - l.used) end
  if has(l, "s") then least = math.min(least, slid(l)) end
  return least
end

local function advance(l, now, leased)
  local before = available(l)
  if now > l.at then
    local full = math.max(l.value, l.burst - leased)
    l.value = math.min(full, l.value + (now - l.at) * l.limit / l.window)
    l.at = now
  end
  if now >= l.ends_at then
    l.used = leased
    l.ends_at = leased > 0 and now + span(l) or INF
    l.ends_told = false
  end
  local width = l.window / BINS
  while #l.bins > 0 and (l.bins[1][1] + 1) * width + span(l) <= now do table.remove(l.bins, 1) end
  l.refilled = l.refilled + math.max(0.0, available(l) - before)
end

local function use(l, amount, now)
  l.used = math.max(0.0, l.used + amount)
  if amount > 0 and l.ends_at == INF then
    l.ends_at = now + span(l)
    l.ends_told = false
  end
end

local function return_oldest(l, amount)
  for _, entry in ipairs(l.bins) do
    local part = math.min(amount, entry[2])
    entry[2] = entry[2] - part
    amount = amount - part
  end
end

local function bin(l, amount, now)
  if not has(l, "s") then return end
  local number = math.floor(now / (l.window / BINS))
  if amount < 0 then
    return_oldest(l, -amount)
  elseif amount > 0 then
    if #l.bins == 0 or l.bins[#l.bins][1] < number then l.bins[#l.bins + 1] = {number, 0.0} end
    l.bins[#l.bins][2] = l.bins[#l.bins][2] + amount
  end
end

local function unbin(l, amount, taken_at)
  local number = math.floor(taken_at / (l.window / BINS))
  for _, entry in ipairs(l.bins) do
    if entry[1] >= number and amount > 0 then
      local part = math.min(amount, entry[2])
      entry[2] = entry[2] - part
      amount = amount - part
    end
  end
end

local function exchange(l, leased, spent, now, leased_at)
  l.taken = l.taken + (spent - leased)
  l.value = math.min(l.burst, l.value + leased - spent)
  use(l, spent - leased, now)
  unbin(l, leased, leased_at)
  bin(l, spent, now)
end

local function take(l, amount, now, taken_at)
  l.taken = l.taken + amount
  l.value = math.min(l.burst, l.value - amount)
  use(l, amount, now)
  if amount < 0 then unbin(l, -amount, taken_at) else bin(l, amount, now) end
end

local function correct(l, left, now)
  left = math.min(left, capacity(l))
  l.value = math.min(l.burst, left)
  l.used = math.max(0.0, l.limit - left)
  if l.used > 0 and l.ends_at == INF then
    l.ends_at = now + span(l)
    l.ends_told = false
  end
  if has(l, "s") then
    local missing = slid(l) - left
    if missing > 0 then bin(l, missing, now) else return_oldest(l, -missing) end
  end
end

local function shape(l, algorithms, evidence, now)
  local left = available(l)
  l.evidence = evidence
  if algorithms ~= l.algorithms then
    local slides = has(l, "s")
    l.algorithms = algorithms
    if not has(l, "s") then
      l.bins = {}
    elseif not slides then
      bin(l, math.max(0.0, l.limit - left), now)
    end
  end
end

local function resize(l, limit, window, burst, now)
  if burst <= 0 then burst = limit end
  l.value = math.min(burst, l.value + burst - l.burst)
  l.burst = burst
  if window ~= l.window then
    local used = math.max(0.0, l.limit - slid(l))
    l.bins = {}
    l.window = window
    bin(l, used, now)
    if l.ends_at < INF then l.ends_at = math.min(l.ends_at, now + span(l)) end
  end
  l.limit = limit
end

local function end_at(l, when)
  if has(l, "f") then
    l.ends_at = l.ends_told and math.min(l.ends_at, when) or when
    l.ends_told = true
  end
end

local function ready_at(l, amount, now)
  local latest = now
  amount = math.min(amount, capacity(l))
  if has(l, "b") and l.value < amount then
    latest = math.max(latest, now + (math.min(amount, l.burst) - l.value) * l.window / l.limit)
  end
  if has(l, "f") and l.limit - l.used < amount then
    latest = math.max(latest, l.ends_at < INF and l.ends_at or now + span(l))
  end
  if has(l, "s") then
    local left, width = slid(l), l.window / BINS
    for _, entry in ipairs(l.bins) do
      if left >= amount then break end
      left = left + entry[2]
      latest = math.max(latest, (entry[1] + 1) * width + span(l))
    end
  end
  return latest
end

-- The pool (core/pool.py)

local pool, at

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
      local l = {key = fact.key, unit = fact.unit, limit = fact.limit, window = fact.window, burst = burst,
        algorithms = "bfs", evidence = 0.0, at = now, value = burst, used = 0.0, ends_at = INF, ends_told = false,
        bins = {}, taken = 0.0, refilled = 0.0, newest = 0.0}
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
  local alive, hungry = 0, 0
  for _, other in ipairs(pool.workers) do
    if now - other.renewed <= LIVES * LEASE then
      alive = alive + 1
      if other ~= w and next(other.unmet) ~= nil then hungry = 1 end
    end
  end
  return {exact(w.number), exact(math.max(0.0, w.renewed + LIVES * LEASE - now)), exact(w.retry_in), hungry, alive,
    exact(math.max(0.0, pool.pause_until - now)), pool.pause_until > now and pool.reason or "", limits}
end

local renewal = cjson.decode(ARGV[1])
local now = tonumber(ARGV[2])
if not now then
  local time = redis.call("TIME")
  now = tonumber(time[1]) + tonumber(time[2]) / 1e6
end
local stored = redis.call("GET", KEYS[1])
pool = stored and cmsgpack.unpack(stored)
  or {limits = {}, workers = {}, at = 0.0, virtual = 0.0, pause_until = 0.0, reason = "", name = ARGV[4]}
now = math.max(now, pool.at)
at, pool.at = now, now
reclaim(now)
for _, l in ipairs(pool.limits) do advance(l, now, total("leased", l.key)) end
local w = worker_of(renewal)
if renewal.number > w.number then
  w.number, w.weight = renewal.number, renewal.weight
  pool.refused = (pool.refused or 0) + (renewal.refused or 0)
  find_new(renewal, now)
  report(w, renewal, now)
  w.renewed = now
  learn(w, renewal, now)
  serve(w, renewal, now)
end
local longest = tonumber(ARGV[3])
for _, l in ipairs(pool.limits) do longest = math.max(longest, 2 * l.window) end
redis.call("SET", KEYS[1], cmsgpack.pack(pool), "PX", string.format("%d", math.min(longest, 1e9) * 1000))
return answer(w, renewal.number, now)
