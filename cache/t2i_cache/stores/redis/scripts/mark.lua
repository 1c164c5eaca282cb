-- Let these latents go first, in this order, before any other. ARGV: members, least worth first. A use takes the mark off.
for _, marked in ipairs(redis.call('ZRANGEBYSCORE', WORTH, '-inf', '(0')) do
  local e, step = split(marked)
  redis.call('ZADD', WORTH, 'XX', worth(redis.call('HGET', e, 'h' .. step) or 1, step, 0), marked)
end
for i = 1, #ARGV do
  redis.call('ZADD', WORTH, 'XX', i - #ARGV - 1, ARGV[i])
end
return redis.call('ZCOUNT', WORTH, '-inf', '(0')
