-- One limit: core/share.py, number for number.
local BINS, NEWS, ANSWERED, JITTER, OVERTOOK, NO_HEADER, INF = 120, 0.1, 1.0, 0.3, 0.01, -2e12, math.huge

local function has(limit, letter) return string.find(limit.algorithms, letter, 1, true) ~= nil end
local function get(map, key) return map[key] or 0.0 end

local function capacity(l) if has(l, "b") then return l.burst end return l.limit end

local function guard(l)
  if l.evidence >= 1e9 or not has(l, "b") then return 0.0 end
  local least = math.min(JITTER * l.limit / l.window, 0.05 * l.limit)
  return least >= 0.1 and least or 0.0
end

local function span(l) return l.window + math.min(0.5, 0.05 * l.window) end

local function slid(l)
  local total = 0.0
  for _, entry in ipairs(l.bins) do total = total + entry[2] end
  return l.limit - total
end

local function available(l, kept)
  local least = INF
  if has(l, "b") then least = math.min(least, l.value - (kept or 0.0)) end
  if has(l, "f") then least = math.min(least, l.limit - l.used) end
  if has(l, "s") then least = math.min(least, slid(l)) end
  return least
end

local function return_oldest(l, amount)
  for _, entry in ipairs(l.bins) do
    local part = math.min(amount, entry[2])
    entry[2] = entry[2] - part
    amount = amount - part
  end
end

local function advance(l, now, leased)
  local before = available(l)
  if now > l.at then
    local full = math.max(l.value, l.burst - leased)
    l.value = math.min(full, l.value + (now - l.at) * l.limit / l.window)
    l.at = now
  end
  if now >= l.ends_at then
    if l.ends_told then
      l.ended_at = now
      if l.unit == "requests" then return_oldest(l, math.max(0.0, 1.0 - slid(l))) end
    end
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
  local number, left = math.floor(taken_at / (l.window / BINS)), amount
  for _, entry in ipairs(l.bins) do
    if entry[1] >= number and left > 0 then
      local part = math.min(left, entry[2])
      entry[2] = entry[2] - part
      left = left - part
    end
  end
  return amount - left
end

local function postpone(l, amount, taken_at, counted_at)
  local moved = unbin(l, amount, taken_at)
  if moved <= 0 then return end
  local number = math.floor(counted_at / (l.window / BINS))
  for _, entry in ipairs(l.bins) do
    if entry[1] >= number then
      entry[2] = entry[2] + moved
      return
    end
  end
  l.bins[#l.bins + 1] = {number, moved}
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

local function lift(l, left)
  left = math.min(left, capacity(l))
  l.value = math.max(l.value, math.min(l.burst, left))
  l.used = math.min(l.used, math.max(0.0, l.limit - left))
  return_oldest(l, math.max(0.0, left - slid(l)))
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

local function told(l, remaining, sent, at)
  if sent <= NO_HEADER then return true end
  if at <= l.newest - JITTER then return false end
  local newer = at > l.newest
  l.told_left = at < l.newest + JITTER and math.min(get(l, "told_left"), remaining) or remaining
  l.newest = math.max(at, l.newest)
  return newer
end

local function sure(l, amount)
  local least = get(l, "told_left") - l.leased - l.flying - OVERTOOK * l.limit
  return amount > 0 and amount <= least and l.algorithms ~= "b" and amount or -INF
end

local function end_at(l, when)
  if l.algorithms ~= "b" and when > l.ended_at then
    l.ends_at = l.ends_told and math.min(l.ends_at, when) or when
    l.ends_told = true
  end
end

local function slides_at(l, amount, now)
  local left, at, width = slid(l), now, l.window / BINS
  for _, entry in ipairs(l.bins) do
    if left >= amount then break end
    left = left + entry[2]
    at = (entry[1] + 1) * width + span(l)
  end
  return at
end

local function news_at(l, now)
  if l.ends_told then return l.ends_at end
  return now < l.ended_at + ANSWERED and now + NEWS or INF
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
    latest = math.max(latest, math.min(slides_at(l, amount, now), news_at(l, now)))
  end
  return latest
end

local function limit_of(key, unit, limit, window, burst, now)
  return {key = key, unit = unit, limit = limit, window = window, burst = burst, algorithms = "bfs", evidence = 0.0,
    at = now, value = burst, used = 0.0, ends_at = INF, ends_told = false, ended_at = -ANSWERED, bins = {}, taken = 0.0, refilled = 0.0,
    newest = 0.0, told_left = 0.0, leased = 0.0, flying = 0.0, waiting = 0.0}
end
