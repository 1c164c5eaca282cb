-- Drop one page of the entries of a scope, of a model digest, or all. ARGV: cursor, count, scope, digest ('' = any).
-- Returns {next cursor, latents dropped}.
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
