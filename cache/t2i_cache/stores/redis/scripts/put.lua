-- Store one latent, after making room for it. ARGV: member, record, embedding, digest, capacity, ttl ms, new epoch, age ms.
-- Returns 1, or 0 if it could never fit.
local member, record, embedding, digest = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local capacity, ttl_ms, age_ms = tonumber(ARGV[5]), tonumber(ARGV[6]), tonumber(ARGV[8])
local size = #record
if size > capacity then
  return 0
end
redis.call('HSETNX', META, 'epoch', ARGV[7])
expire(ttl_ms, 16)
local e, step, entry = split(member)
local before = redis.call('HGET', e, 's' .. step)
if before then
  redis.call('ZREM', WORTH, member) -- its own predecessor goes last
else
  before = 0
end
local used = tonumber(redis.call('HGET', META, 'bytes') or 0)
evict(used - before + size - capacity)
local created_ms = now_ms() - age_ms
redis.call('SET', P .. 'l:' .. member, record)
if ttl_ms > 0 then
  redis.call('PEXPIRE', P .. 'l:' .. member, math.max(1, ttl_ms - age_ms))
end
if redis.call('HEXISTS', e, 's' .. step) == 0 then
  before = 0
  redis.call('HINCRBY', e, 'n', 1)
  redis.call('HINCRBY', META, 'items', 1)
end
redis.call('HSET', e, 's' .. step, size, 'h' .. step, 1, 'c' .. step, created_ms, 'v', embedding, 'd', digest)
redis.call('SADD', ENTRIES, entry)
redis.call('HINCRBY', META, 'bytes', size - before)
redis.call('ZADD', WORTH, worth(1, step, created_ms), member)
redis.call('ZADD', BORN, created_ms, member)
announce('+', member, size)
return 1
