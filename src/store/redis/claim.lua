-- claim: KEYS[1] = record, ARGV = owner, lease (ms), expiry (ms). The same as `claim` in claim/record.rs.

if state == 'settled' then
  return {'duplicate', verdict, digest}
end
if owner == ARGV[1] then
  return {'won', attempts, lapses}
end
local clock = redis.pcall('TIME')
if clock.err then return clock end
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)

if lease then
  local left = redis.pcall('PTTL', KEYS[1])
  if type(left) == 'table' then return left end
  lease, expiry = tonumber(lease), tonumber(expiry)
  if left == -1 then
    -- Somebody took the expiry away, and with it the lease's beginning. From now on is the longest it can be: written
    -- down, so that it ends.
    local record = string.format('1L%s:1:0:%.0f', owner, now + lease)
    local saved = redis.pcall('SET', KEYS[1], record, 'PX', string.format('%.0f', math.max(expiry, 1)))
    if saved.err then return saved end
    left = expiry
  end
  -- An expiry that somebody prolonged does not prolong the lease. One that has just passed (-2) has taken it along.
  time = now + math.min(lease, left - expiry + lease)
end
if time and now < time then
  return {'busy', time - now}
end

if state == 'leased' then
  lapses = math.min(lapses + 1, COUNT_MAX)
end
attempts = math.min(attempts + 1, COUNT_MAX)
local record = string.format('1L%s:%.0f:%.0f:%.0f', ARGV[1], attempts, lapses, now + tonumber(ARGV[2]))
local saved = redis.pcall('SET', KEYS[1], record, 'PX', ARGV[3])
if saved.err then return saved end
return {'won', attempts, lapses}
