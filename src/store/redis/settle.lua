-- settle: KEYS[1] = record, ARGV = owner, verdict, digest, expiry (ms). The same as `settle` in claim/record.rs.

local reply = 'fenced'
if state == 'settled' then
  reply = 'already_settled'
  local upgrades = string.sub(verdict, 1, 1) ~= 'D' and string.sub(ARGV[2], 1, 1) == 'D'
  if not upgrades then return {reply} end
elseif state == 'leased' and owner == ARGV[1] then
  reply = 'done'
end

local saved = save_settled(ARGV[2], ARGV[3], ARGV[4])
if saved.err then return saved end
return {reply}
