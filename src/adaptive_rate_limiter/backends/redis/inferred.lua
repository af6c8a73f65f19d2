-- The rate where nobody tells a limit: core/inferred.py, number for number. `s` is what the pool keeps of it.
local INFERRED = "?requests"

local function burst_of(limit) return math.max(1.0, limit / 60.0) end

local function set_rate(l, value, now) resize(l, value, 60.0, burst_of(value), now) end

local function first(s, now)
  local l = limit_of(INFERRED, "requests", s.recent, 60.0, burst_of(s.recent), now)
  shape(l, "b", 1e9, now)
  correct(l, 0.0, now)
  s.cut_at, s.cuts, s.passed = now, 1, 0.0
  return l
end

local function cut(s, l, now)
  s.cuts = now - s.cut_at < 10.0 and s.cuts + 1 or 1
  local part = math.min(0.5, 0.05 * 2.0 ^ (s.cuts - 1))
  local most = math.max(s.recent, (1 - 0.5) * l.limit)
  set_rate(l, math.max(1.0, math.min(most, l.limit * (1 - part))), now)
end

local function refused(s, l, workers, now)
  if workers == 1 then
    set_rate(l, math.max(1.0, s.recent), now)
  elseif now - s.cut_at >= 1.0 then
    if s.passed > 3.0 then
      cut(s, l, now)
    else
      if s.wait == 0 then s.rate = l.limit end
      s.wait = math.min(8.0, math.max(1.0, 2 * s.wait))
      set_rate(l, 60.0 / s.wait, now)
    end
    s.cut_at, s.passed, s.tried_at = now, 0.0, INF
  end
  correct(l, math.min(0.0, available(l)), now)
end

local function try(s, l, sent, now)
  if sent > 0 then s.tried_at = math.min(s.tried_at, now) end
  if now - s.tried_at >= 1.5 then
    set_rate(l, s.rate, now)
    s.wait, s.tried_at = 0.0, INF
  end
end

-- `l` is the limit, if it is known; returns it when it is new.
local function follow(s, sent, refusals, l, workers, now)
  local elapsed = math.max(0.0, now - s.at)
  s.recent = s.recent * math.exp(-elapsed / 60.0) + math.max(0.0, sent)
  s.passed = s.passed + sent
  s.at = now
  if not l then
    return refusals > 0 and s.recent >= 1 and first(s, now) or nil
  elseif refusals > 0 then
    refused(s, l, workers, now)
  elseif s.wait > 0 then
    try(s, l, sent, now)
  elseif workers > 1 and available(l) < 0.5 * l.burst then
    local growth = math.min(0.05, 0.001 * (1 + ((now - s.cut_at) / 30.0) ^ 2))
    set_rate(l, l.limit * (1 + growth * math.min(elapsed, 1.0)), now)
  end
end
