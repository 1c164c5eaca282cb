-- The scripts of the store: `scripts.py` sends this text with a line that calls one of COMMANDS. KEYS[1] is the prefix
-- of one pool's keys:
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

local COMMANDS = {}

-- Store one latent, after making room for it. ARGV: member, record, embedding, digest, capacity, ttl ms, new epoch, age ms.
-- Returns 1, or 0 if it could never fit.
function COMMANDS.put()
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
end

-- Count one use of a latent. ARGV: member, reuse cap. Returns its uses; 0 if it is not there.
function COMMANDS.use()
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
end

-- Drop latents. ARGV: reason, then members. Returns the bytes that were freed.
function COMMANDS.drop()
  local freed = 0
  for i = 2, #ARGV do
    freed = freed + drop(ARGV[i], ARGV[1])
  end
  return freed
end

-- Free ARGV[1] bytes by worth, when the server itself has no room left. Returns the bytes that were freed.
function COMMANDS.evict()
  return evict(tonumber(ARGV[1]))
end

-- Drop what is past its TTL. ARGV: ttl ms, at most. Returns how many latents went.
function COMMANDS.expire()
  return expire(tonumber(ARGV[1]), tonumber(ARGV[2]))
end

-- Let these latents go first, in this order, before any other. ARGV: members, least worth first. A use takes the mark off.
function COMMANDS.mark()
  for _, marked in ipairs(redis.call('ZRANGEBYSCORE', WORTH, '-inf', '(0')) do
    local e, step = split(marked)
    redis.call('ZADD', WORTH, 'XX', worth(redis.call('HGET', e, 'h' .. step) or 1, step, 0), marked)
  end
  for i = 1, #ARGV do
    redis.call('ZADD', WORTH, 'XX', i - #ARGV - 1, ARGV[i])
  end
  return redis.call('ZCOUNT', WORTH, '-inf', '(0')
end

-- Drop one page of the entries of a scope, of a model digest, or all. ARGV: cursor, count, scope, digest ('' = any).
-- Returns {next cursor, latents dropped}.
function COMMANDS.purge()
  local page = redis.call('SSCAN', ENTRIES, ARGV[1], 'COUNT', ARGV[2])
  local dropped = 0
  for _, entry in ipairs(page[2]) do
    local e = P .. 'e:' .. entry
    local scope = string.match(entry, '^([^:]*):')
    local digest = ARGV[4] ~= '' and redis.call('HGET', e, 'd')
    if (ARGV[3] == '' or scope == ARGV[3]) and (ARGV[4] == '' or digest == ARGV[4]) then
      for _, field in ipairs(redis.call('HKEYS', e)) do
        local step = string.match(field, '^s(%d+)$')
        if step then
          drop(entry .. ':' .. step, 'Purged')
          dropped = dropped + 1
        end
      end
      redis.call('SREM', ENTRIES, entry)
    end
  end
  return {page[1], dropped}
end

-- Some of the entries. ARGV: cursor, count, now. Returns {next cursor, ENTRY, embedding, digest, items, ENTRY, ...};
-- items is "step size uses age_ms;..." of the latents that are stored.
function COMMANDS.page()
  local page = redis.call('SSCAN', ENTRIES, ARGV[1], 'COUNT', ARGV[2])
  local found = {page[1]}
  local now = now_ms()
  for _, entry in ipairs(page[2]) do
    local fields = redis.call('HGETALL', P .. 'e:' .. entry)
    local by_name, items = {}, {}
    for i = 1, #fields, 2 do
      by_name[fields[i]] = fields[i + 1]
    end
    for name, size in pairs(by_name) do
      local step = string.match(name, '^s(%d+)$')
      if step then
        local age = now - (by_name['c' .. step] or now)
        items[#items + 1] = table.concat({step, size, by_name['h' .. step] or 1, string.format('%.0f', age)}, ' ')
      end
    end
    if by_name['v'] then
      found[#found + 1] = entry
      found[#found + 1] = by_name['v']
      found[#found + 1] = by_name['d'] or ''
      found[#found + 1] = table.concat(items, ';')
    end
  end
  return found
end

-- Which commands that the store needs this user may not run on the pool's keys. Returns their names.
-- Servers that cannot tell (they know no such question) return none.
function COMMANDS.probe()
  local K = P .. 'probe'
  local needed = {
    -- by the store itself
    {'EVALSHA', '', '1', K}, {'SCRIPT', 'LOAD', ''}, {'MULTI'}, {'EXEC'}, {'GET', K}, {'HMGET', K, 'f'}, {'SCARD', K},
    {'XREAD', 'COUNT', '1', 'BLOCK', '1', 'STREAMS', K, '0'}, {'XREVRANGE', K, '+', '-'},
    -- by the scripts
    {'DEL', K}, {'HDEL', K, 'f'}, {'HEXISTS', K, 'f'}, {'HGET', K, 'f'}, {'HGETALL', K}, {'HINCRBY', K, 'f', '1'},
    {'HKEYS', K}, {'HSET', K, 'f', 'v'}, {'HSETNX', K, 'f', 'v'}, {'PEXPIRE', K, '1'}, {'SADD', K, 'm'}, {'SET', K, 'v'},
    {'SREM', K, 'm'}, {'SSCAN', K, '0'}, {'TIME'}, {'UNLINK', K}, {'XADD', K, '*', 'f', 'v'}, {'ZADD', K, '1', 'm'},
    {'ZCOUNT', K, '0', '1'}, {'ZRANGE', K, '0', '0'}, {'ZRANGEBYSCORE', K, '0', '1'}, {'ZREM', K, 'm'},
  }
  local missing = {}
  if redis.acl_check_cmd then
    for _, words in ipairs(needed) do
      if not redis.acl_check_cmd(unpack(words)) then
        missing[#missing + 1] = words[1] == 'SCRIPT' and 'SCRIPT|LOAD' or words[1]
      end
    end
  end
  return missing
end
