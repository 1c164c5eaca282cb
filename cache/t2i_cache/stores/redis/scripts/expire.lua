-- Drop what is past its TTL. ARGV: ttl ms, at most. Returns how many latents went.
return expire(tonumber(ARGV[1]), tonumber(ARGV[2]))
