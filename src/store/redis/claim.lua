-- claim: KEYS[1] = record, ARGV = owner, lease (ms), expiry (ms). The same as `claim` in claim/record.rs.

if state == 'settled' then
  return {'duplicate', verdict, digest}
end
if state == 'leased' and owner == ARGV[1] then
  return {'won', attempts, lapses}
end
if (state == 'leased' or state == 'released') and now < time then
  return {'busy', time - now}
end
if state == 'leased' then
  lapses = one_more(lapses)
end
attempts = one_more(attempts)

local saved = save_leased(attempts, lapses, tonumber(ARGV[2]), ARGV[3])
if saved.err then return saved end
return {'won', attempts, lapses}
