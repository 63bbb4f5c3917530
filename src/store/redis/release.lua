-- release: KEYS[1] = record, ARGV = owner, failed | ambiguous, pause (ms), expiry (ms).
-- The same as `release` in claim/record.rs.

if owner ~= ARGV[1] then
  return {'fenced'}
end
local clock = redis.pcall('TIME')
if clock.err then return clock end
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
if ARGV[2] == 'ambiguous' then
  lapses = math.min(lapses + 1, COUNT_MAX)
end

local record = string.format('1R%.0f:%.0f:%.0f', attempts, lapses, now + tonumber(ARGV[3]))
local saved = redis.pcall('SET', KEYS[1], record, 'PX', ARGV[4])
if saved.err then return saved end
return {'done'}
