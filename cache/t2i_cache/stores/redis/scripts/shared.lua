-- What the scripts share; it is put before each of them. KEYS[1] is the prefix of one pool's keys:
--   meta     hash: epoch, seq, bytes, items
--   l:MEMBER the record of one latent; MEMBER is scope:model:entry:step
--   e:ENTRY  hash of one entry (scope:model:entry): v embedding (float16), d model digest, n latents,
--            and by step sN bytes, hN uses, cN created (ms of the server's clock)
--   entries  set of ENTRY
--   worth    sorted set of MEMBER: the lowest goes first. hits x K (LCBFU); negative = marked by a gateway's policy
--   born     sorted set of MEMBER by cN
--   changes  stream of what was stored, used and dropped, numbered without gaps by n
local P = KEYS[1]
local META, WORTH, BORN, ENTRIES, CHANGES = P .. 'meta', P .. 'worth', P .. 'born', P .. 'entries', P .. 'changes'

local function now_ms()
  local now = redis.call('TIME')
  return now[1] * 1000 + math.floor(now[2] / 1000)
end

local function split(member)
  local entry, step = string.match(member, '^(.*):(%d+)$')
  return P .. 'e:' .. entry, step, entry
end

-- LCBFU; of equals, the one that was used longest ago goes first (policy/eviction.py has the same order)
local function worth(uses, step, at_ms)
  return uses * tonumber(step) + at_ms / 1e14
end

local function announce(op, member, value)
  local n = redis.call('HINCRBY', META, 'seq', 1)
  redis.call('XADD', CHANGES, 'MAXLEN', '~', 100000, '*', 'n', n, 'op', op, 'k', member, 'x', value)
end

-- Takes one latent out of everything; what is half gone (an expired record, a server that evicts on its own) too.
local function drop(member, reason)
  local e, step, entry = split(member)
  redis.call('UNLINK', P .. 'l:' .. member)
  redis.call('ZREM', WORTH, member)
  redis.call('ZREM', BORN, member)
  local size = redis.call('HGET', e, 's' .. step)
  if not size then
    return 0
  end
  redis.call('HINCRBY', META, 'bytes', -size)
  redis.call('HINCRBY', META, 'items', -1)
  redis.call('HDEL', e, 's' .. step, 'h' .. step, 'c' .. step)
  if redis.call('HINCRBY', e, 'n', -1) <= 0 then
    redis.call('DEL', e)
    redis.call('SREM', ENTRIES, entry)
  end
  announce('-', member, reason)
  return tonumber(size)
end

-- Drops the least worth until `excess` bytes are free; the bytes that were.
local function evict(excess)
  local freed = 0
  while freed < excess do
    local lowest = redis.call('ZRANGE', WORTH, 0, 0)[1]
    if not lowest then
      break
    end
    freed = freed + drop(lowest, 'Capacity')
  end
  return freed
end

-- Drops what is older than ttl_ms (0 = nothing is), at most `limit` latents; how many.
local function expire(ttl_ms, limit)
  if ttl_ms <= 0 then
    return 0
  end
  local old = redis.call('ZRANGEBYSCORE', BORN, '-inf', '(' .. (now_ms() - ttl_ms), 'LIMIT', 0, limit)
  for _, member in ipairs(old) do
    drop(member, 'Expired')
  end
  return #old
end
