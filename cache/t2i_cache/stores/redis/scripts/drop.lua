-- Drop latents. ARGV: reason, then members. Returns the bytes that were freed.
local freed = 0
for i = 2, #ARGV do
  freed = freed + drop(ARGV[i], ARGV[1])
end
return freed
