-- release: KEYS[1] = record, ARGV = owner, failed | ambiguous, pause (ms), expiry (ms).
-- The same as `release` in claim/record.rs.

if state ~= 'leased' or owner ~= ARGV[1] then
  return {'fenced'}
end
if ARGV[2] == 'ambiguous' then
  lapses = one_more(lapses)
end

local saved = save_released(attempts, lapses, tonumber(ARGV[3]), ARGV[4])
if saved.err then return saved end
return {'done'}
