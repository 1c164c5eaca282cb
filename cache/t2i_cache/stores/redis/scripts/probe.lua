-- Which commands that the store needs this user may not run on the pool's keys. Returns their names.
-- Servers that cannot tell (they know no such question) return none.
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
