-- What the three scripts begin with: reads the record and the clock, and knows how a record is written down.
--
-- A record is a string: format version, state, fields (times in milliseconds of this server's clock).
--   1L<owner>:<attempts>:<lapses>:<until>       leased
--   1R<attempts>:<lapses>:<not before>          released
--   <D|R|U><status, 3 digits><digest, 8 bytes>  settled: delivered, refused, unknown
-- Most of what Redis holds is settled: twelve bytes are what fits beside Redis' own header into 32 bytes.
-- Owner (hexadecimal) and digest (as it is) stay strings: a Lua number holds no more than 53 bits of them.
--
-- Every command goes through pcall and its error is returned as it came: Redis 6.2 strips the code off an error that
-- redis.call raises, and the gateway could no longer tell a wrong setting from a passing state.

local COUNT_MAX = 4294967295

local stored = redis.pcall('GET', KEYS[1])
if type(stored) == 'table' and stored.err then return stored end
local clock = redis.pcall('TIME')
if clock.err then return clock end
local now = tonumber(clock[1]) * 1000 + math.floor(tonumber(clock[2]) / 1000)

local state, owner, attempts, lapses, time, verdict, digest = 'vacant', '', 0, 0, 0, '', ''
if stored then
  local version_and_state = string.sub(stored, 1, 2)
  if version_and_state == '1L' then
    state = 'leased'
    owner, attempts, lapses, time = string.match(stored, '^1L(%x+):(%d+):(%d+):(%d+)$')
  elseif version_and_state == '1R' then
    state = 'released'
    attempts, lapses, time = string.match(stored, '^1R(%d+):(%d+):(%d+)$')
  elseif string.len(stored) == 12 then
    state = 'settled'
    local said = string.sub(stored, 1, 4)
    verdict = string.match(said, '^D2%d%d$') or string.match(said, '^R4%d%d$') or string.match(said, '^U000$')
    digest = string.sub(stored, 5)
  end
  if state == 'vacant' or not owner or not attempts or not verdict then
    return redis.error_reply('BADRECORD the key holds what this version of oncehook did not write')
  end
  attempts, lapses, time = tonumber(attempts), tonumber(lapses), tonumber(time)
end

local function one_more(count)
  return math.min(count + 1, COUNT_MAX)
end

local function save_leased(attempts, lapses, lease, expiry)
  local record = string.format('1L%s:%.0f:%.0f:%.0f', ARGV[1], attempts, lapses, now + lease)
  return redis.pcall('SET', KEYS[1], record, 'PX', expiry)
end

local function save_released(attempts, lapses, pause, expiry)
  local record = string.format('1R%.0f:%.0f:%.0f', attempts, lapses, now + pause)
  return redis.pcall('SET', KEYS[1], record, 'PX', expiry)
end

local function save_settled(verdict, digest, expiry)
  return redis.pcall('SET', KEYS[1], verdict .. digest, 'PX', expiry)
end
