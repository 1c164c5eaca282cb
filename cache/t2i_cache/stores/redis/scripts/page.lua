-- Some of the entries. ARGV: cursor, count, now. Returns {next cursor, ENTRY, embedding, digest, items, ENTRY, ...};
-- items is "step size uses age_ms;..." of the latents that are stored.
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
