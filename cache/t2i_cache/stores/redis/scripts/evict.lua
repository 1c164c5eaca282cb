-- Free ARGV[1] bytes by worth, when the server itself has no room left. Returns the bytes that were freed.
return evict(tonumber(ARGV[1]))
