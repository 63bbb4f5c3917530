-- What the three scripts begin with: reads the record.
--
-- A record is a string: format version, state, fields (times in milliseconds of this server's clock).
--   1F<owner>:<lease>:<expiry>                  leased for the first time, by a SET (command.rs)
--   1L<owner>:<attempts>:<lapses>:<until>       leased
--   1R<attempts>:<lapses>:<not before>          released
--   <D|R|U><status, 3 digits><digest, 8 bytes>  settled: delivered, refused, unknown
-- Most of what Redis holds is settled: twelve bytes are what fits beside Redis' own header into 32 bytes.
-- Owner (32 hexadecimal digits) and digest (as it is) stay strings: a Lua number holds no more than 53 bits of them.
-- The gateway writes the first form and does not know this server's clock: the form says how long the lease and the
-- key's expiry were at the start, in milliseconds, and what is left of the expiry says what is left of the lease.
--
-- Every command goes through pcall and its error is returned as it came: Redis 6.2 strips the code off an error that
-- redis.call raises, and the gateway could no longer tell a wrong setting from a passing state.

local COUNT_MAX = 4294967295

local stored = redis.pcall('GET', KEYS[1])
if type(stored) == 'table' then return stored end

local state, owner, attempts, lapses, time, lease, expiry, verdict, digest
if not stored then
  state, attempts, lapses = 'vacant', 0, 0
elseif string.len(stored) == 12 then
  verdict, digest = string.sub(stored, 1, 4), string.sub(stored, 5)
  if string.find(verdict, '^D2%d%d$') or string.find(verdict, '^R4%d%d$') or verdict == 'U000' then
    state = 'settled'
  end
else
  local form = string.sub(stored, 1, 2)
  if form == '1F' then
    lease, expiry = string.match(stored, '^:(%d+):(%d+)$', 35)
    state, attempts, lapses = lease and 'leased', 1, 0
  elseif form == '1L' then
    attempts, lapses, time = string.match(stored, '^:(%d+):(%d+):(%d+)$', 35)
    state = time and 'leased'
  elseif form == '1R' then
    attempts, lapses, time = string.match(stored, '^(%d+):(%d+):(%d+)$', 3)
    state = time and 'released'
  end
  if state == 'leased' then
    owner = string.sub(stored, 3, 34)
    if string.find(owner, '%X') then state = nil end
  end
  attempts, lapses, time = tonumber(attempts), tonumber(lapses), tonumber(time)
end
if not state then
  return redis.error_reply('BADRECORD the key holds what this version of oncehook did not write')
end
