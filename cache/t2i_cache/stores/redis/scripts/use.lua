-- Count one use of a latent. ARGV: member, reuse cap. Returns its uses; 0 if it is not there.
local e, step = split(ARGV[1])
if redis.call('HEXISTS', e, 's' .. step) == 0 then
  return 0
end
local uses = redis.call('HINCRBY', e, 'h' .. step, 1)
if uses > tonumber(ARGV[2]) then
  drop(ARGV[1], 'WornOut')
else
  redis.call('ZADD', WORTH, worth(uses, step, now_ms()), ARGV[1]) -- no longer marked, if it was
  announce('u', ARGV[1], uses)
end
return uses
