-- One step on the pool of one bucket: core/pool.py, number for number. share.lua, inferred.lua and roster.lua go before it.
-- KEYS: those of roster.lua. ARGV[1]: the renewal, JSON. ARGV[2]: the time in seconds, or "" for the server's.
-- ARGV[3]: seconds after which an untouched pool is forgotten. ARGV[4]: the bucket's name, for reports.
local BATCH, PATIENCE, EARLY = 0.1, 5.0, 0.8

local function find(key)
  for _, l in ipairs(pool.limits) do if l.key == key then return l end end
end

local function has_unit(unit)
  for _, l in ipairs(pool.limits) do if l.unit == unit then return true end end
  return false
end

local function worker_of(renewal)
  local w = read(renewal.worker)
  if w then
    leave(w)
    return w
  end
  return {name = renewal.worker, number = -1, weight = renewal.weight, finish = pool.virtual, epoch = pool.epoch,
    renewed = 0.0, ends_at = 0.0, dead = false, away = false, leased = {}, flying = {}, pace = {}, unmet = {}, free = {}, last = {}, retry_in = 0.0}
end

local function miss(w, renewal, before, now)
  local away, absence = renewal.away, pool.absence
  if away > 0 then
    if before <= now - away and now >= absence.ends_at then
      absence = {since = now - away, ends_at = now + LIVES * LEASE, workers = renewal.workers, missing = renewal.workers}
      pool.absence = absence
    end
    w.away = now < absence.ends_at
  elseif w.away then
    w.away, absence.missing = false, absence.missing - 1
  end
end

local function kept_for_absent(l, left, now)
  local absence = pool.absence
  if now >= absence.ends_at or absence.missing <= 0 then return 0.0 end
  local sent = absence.missing / absence.workers * l.limit / l.window * (now - absence.since)
  local one = l.leased + l.flying < 1.0 and 1.0 or 0.0
  return math.max(0.0, math.min(sent, left - one))
end

local function unheard(unit) return math.max(0.0, get(pool.free, unit)) end

local function answered(renewal, key)
  local total = 0.0
  for _, u in ipairs(renewal.uses) do if u.key == key then total = total + math.max(0.0, u.spent - u.flying) end end
  return total
end

local function free_of(renewal)
  local counted, free = {}, {}
  for _, u in ipairs(renewal.uses) do
    local l = find(u.key)
    if l then counted[l.unit] = true end
  end
  for unit, amount in pairs(renewal.flying or {}) do if not counted[unit] then free[unit] = amount end end
  for unit, amount in pairs(renewal.need) do if not has_unit(unit) then free[unit] = get(free, unit) + amount end end
  return free
end

local function find_new(renewal, now)
  for _, fact in ipairs(renewal.facts) do
    if not find(fact.key) then
      local burst = fact.burst > 0 and fact.burst or fact.limit
      local l = limit_of(fact.key, fact.unit, fact.limit, fact.window, burst, now)
      pool.limits[#pool.limits + 1] = l
      shape(l, fact.algorithms, fact.evidence, now)
      if fact.remaining >= 0 then
        local left = fact.remaining + answered(renewal, fact.key) - unheard(fact.unit)
        correct(l, math.min(available(l), left), now)
        told(l, fact.remaining, fact.sent, now - fact.age)
      end
    end
  end
end

local function report(w, renewal, now)
  for _, u in ipairs(renewal.uses) do
    local l = find(u.key)
    if l then
      exchange(l, get(w.leased, u.key), u.spent + u.kept, now, w.renewed)
      postpone(l, u.late, now - u.admitted, now - u.sent)
      w.leased[u.key] = u.kept
      w.flying[u.key] = u.flying
      w.pace[u.key] = u.pace
    end
  end
end

local function correct_by(l, w, fact, now)
  local left = available(l)
  local most = fact.remaining + l.refilled - fact.refilled - get(w.leased, l.key)
  local least = fact.remaining + fact.sent - l.taken - unheard(l.unit)
  if left > most then
    correct(l, most, now)
  elseif least > left and fact.remaining < l.limit then
    lift(l, least)
  end
end

local function learn(w, renewal, now)
  for _, fact in ipairs(renewal.facts) do
    local l = find(fact.key)
    if fact.evidence >= l.evidence then
      resize(l, fact.limit, fact.window, fact.burst, now)
      shape(l, fact.algorithms, fact.evidence, now)
    end
    if fact.remaining >= 0 and told(l, fact.remaining, fact.sent, now - fact.age) then correct_by(l, w, fact, now) end
    if fact.ends_in ~= 0 then end_at(l, now + fact.ends_in) end
  end
  if now + renewal.pause > pool.pause_until and renewal.pause > 0 then
    pool.pause_until, pool.reason, pool.invites = now + renewal.pause, renewal.reason, true
  end
end

local function infer(renewal, now)
  local found = follow(pool.inferred, renewal.sent, renewal.limited, find(INFERRED), pool.alive + 1, now)
  if found then pool.limits[#pool.limits + 1] = found end
end

local function teach(lessons)
  local workers = pool.alive + 1
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

local function ask_of(l, w, renewal, now)
  local unit, most, held = l.unit, capacity(l), get(w.leased, l.key)
  local need = math.max(0.0, math.min(get(renewal.need, unit), most) - held)
  local due = math.max(0.0, get(renewal.due, unit) - held)
  local want = math.max(0.0, get(renewal.want, unit) - held)
  local rate = l.limit / l.window * w.weight / (pool.weights + w.weight)
  local left = available(l, guard(l))
  if held + get(w.flying, l.key) <= 0 then left = math.max(left, sure(l, need)) end
  if pool.invites and now >= pool.pause_until and l.leased + l.flying < 1.0 then left = math.max(left, need) end
  local kept = kept_for_absent(l, left, now)
  left = left - kept
  local quantum = math.max(need, left / (pool.busy + 1), rate * LEASE)
  want = math.min(math.max(need, due, want), quantum, most)
  local least = math.min(need, most - guard(l)) * (1 - EPSILON)
  return {limit = l, need = need, due = due, want = want, rate = rate, kept = kept + guard(l), left = left,
    room = need > 0 and left - least or INF}
end

local function pay(ask, w, amount, now)
  local key, at_once = ask.limit.key, math.min(amount, ask.due)
  take(ask.limit, amount, now, now)
  w.leased[key] = get(w.leased, key) + amount - at_once
  w.flying[key] = get(w.flying, key) + at_once
  w.last[key] = {amount, at_once}
  return amount / ask.limit.limit
end

local function turn_of(ask, w, before, pays, now)
  local l = ask.limit
  local last = w.last[l.key]
  local missing = ask.due - (last and last[2] or 0.0)
  if missing <= EPSILON * l.limit then return 0.0 end
  w.unmet[l.key] = math.min(missing, math.max(ask.need, ask.rate * LEASE))
  local batch = math.min(missing, ask.rate * BATCH)
  local ready = ready_at(l, before + (pays and batch or ask.need) + ask.kept, now) - now
  return math.max(batch / ask.rate, ready)
end

local function patience(w, turn)
  if turn <= LEASE or rank_of(w) < FRONT then return math.min(turn, LEASE) end
  return math.min(PATIENCE, math.max(LEASE, EARLY * turn))
end

local function serve(w, renewal, now)
  if w.epoch ~= pool.epoch then w.finish, w.epoch = 0.0, pool.epoch end
  w.last, w.unmet = {}, {}
  local asked, pays, share, turn = {}, true, 0.0, 0.0
  for i, l in ipairs(pool.limits) do asked[i] = ask_of(l, w, renewal, now) end
  local before = before_of(w, asked, now)
  for i, ask in ipairs(asked) do if before[i] > ask.room then pays = false end end
  for i, ask in ipairs(asked) do
    if pays then
      share = math.max(share, pay(ask, w, math.max(0.0, ask.need, math.min(ask.want, ask.left - before[i])), now))
    end
  end
  if share > 0 then
    pool.invites = pool.invites and now < pool.pause_until
    pool.virtual = math.max(pool.virtual, w.finish)
    w.finish = pool.virtual + share / w.weight
    before = about_before(w)
  end
  for i, ask in ipairs(asked) do turn = math.max(turn, turn_of(ask, w, before[i], pays, now)) end
  w.retry_in = next(w.unmet) ~= nil and patience(w, turn) or 0.0
  if next(w.unmet) == nil and line_length() == 0 then
    pool.virtual, pool.epoch = 0.0, pool.epoch + 1
  end
end

local function answer(w, number, weights, now)
  local fresh = number == w.number
  local limits, learned = {}, {}
  for _, l in ipairs(pool.limits) do
    local last = fresh and w.last[l.key] or {0.0, 0.0}
    limits[#limits + 1] = {l.key, l.unit, exact(l.limit), exact(l.window), exact(l.burst), l.algorithms,
      exact(l.evidence), exact(last[1]), exact(last[2]), exact(available(l)),
      exact(l.limit / l.window * w.weight / weights), exact(l.taken - l.leased - l.flying), exact(l.refilled)}
  end
  for _, l in ipairs(pool.learned) do learned[#learned + 1] = {l.name, exact(l.value), l.count} end
  local hungry = line_length() > (next(w.unmet) ~= nil and 1 or 0) and 1 or 0
  return {exact(w.number), exact(w.dead and 0.0 or math.max(0.0, w.ends_at - now)), exact(w.retry_in), hungry,
    pool.alive, exact(math.max(0.0, pool.pause_until - now)), pool.pause_until > now and pool.reason or "", limits,
    learned, exact(pool.born)}
end

local renewal = cjson.decode(ARGV[1])
local now = tonumber(ARGV[2])
if not now then
  local time = redis.call("TIME")
  now = tonumber(time[1]) + tonumber(time[2]) / 1e6
end
pool = stored_pool()
  or {limits = {}, at = 0.0, born = now, absence = {since = 0.0, ends_at = 0.0, workers = 1, missing = 0}, virtual = 0.0, epoch = 0, pause_until = 0.0, reason = "", invites = false, name = ARGV[4],
    refused = 0, learned = {}, free = {}, known = 0, waiters = 0, alive = 0, busy = 0, weights = 0.0,
    inferred = {recent = 0.0, passed = 0.0, at = 0.0, cut_at = 0.0, cuts = 0, wait = 0.0, rate = 0.0, tried_at = INF}}
local before = pool.at
now = math.max(now, before)
pool.at = now
reclaim(now)
for _, l in ipairs(pool.limits) do advance(l, now, l.leased) end
local w = worker_of(renewal)
if renewal.pool ~= 0 and renewal.pool ~= pool.born then
  renewal.facts, renewal.away = {}, math.max(renewal.away, LEASE)
end
miss(w, renewal, before, now)
if renewal.number > w.number then
  w.number, w.weight = renewal.number, renewal.weight
  pool.refused = pool.refused + renewal.refused
  find_new(renewal, now)
  report(w, renewal, now)
  w.renewed, w.dead = now, false
  learn(w, renewal, now)
  teach(renewal.lessons)
  infer(renewal, now)
  serve(w, renewal, now)
  w.free = free_of(renewal)
  w.ends_at = now + w.retry_in + LIVES * LEASE
end
local weights = pool.weights + w.weight
enter(w)
local longest = tonumber(ARGV[3])
for _, l in ipairs(pool.limits) do longest = math.max(longest, 2 * l.window) end
store_pool()
for _, key in ipairs(KEYS) do redis.call("PEXPIRE", key, string.format("%d", math.min(longest, 1e9) * 1000)) end
return answer(w, renewal.number, weights, now)
