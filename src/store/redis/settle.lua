-- settle: KEYS[1] = record, ARGV = owner, verdict, digest, expiry (ms). The same as `settle` in claim/record.rs; the
-- gateway asks it of verdicts other than a delivery alone, which command.rs writes by a SET.

local reply = 'fenced'
if state == 'settled' then
  reply = 'already_settled'
  if string.sub(ARGV[2], 1, 1) ~= 'D' then return {reply} end
elseif owner == ARGV[1] then
  reply = 'done'
end

local saved = redis.pcall('SET', KEYS[1], ARGV[2] .. ARGV[3], 'PX', ARGV[4])
if saved.err then return saved end
return {reply}
